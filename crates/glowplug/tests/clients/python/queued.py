"""The queue through `fal_client`: submit, status, logs, result, subscribe, timeouts, retries."""

import time

import fal_client
from fal_client import Completed, InProgress, Queued

from checks import (
    APP,
    PLAIN,
    SINGLE,
    UUID,
    Calls,
    busy,
    completed,
    equal,
    http_error,
    messages,
    run,
    until,
    until_said,
)

LARGE_BYTES = 4 * 1024 * 1024
STEPS = ["step %d of 3" % step for step in (1, 2, 3)]


def check_a_request_goes_through_the_queue():
    handle = fal_client.submit(APP, {"name": "you"})
    assert UUID.fullmatch(handle.request_id), handle
    base = fal_client.client.QUEUE_URL_FORMAT + APP + "/requests/" + handle.request_id
    equal(handle.response_url, base)
    equal(handle.status_url, base + "/status")
    equal(handle.cancel_url, base + "/cancel")
    equal(handle.get(), {"greeting": "hello you"})
    status = handle.status()
    equal((type(status), status.logs, status.error), (Completed, None, None))
    assert 0 <= status.metrics["inference_time"] < 30, status
    # It is kept: asking again gives the same.
    equal(handle.get(), {"greeting": "hello you"})


def check_a_request_is_found_again_by_its_id():
    handle = fal_client.submit(APP, {"a": 1}, path="/echo", headers={"X-Own": "kept"})
    # The path is the request's own: only owner and name of the app count here.
    for app in [APP, APP + "/echo", APP + "/else"]:
        answer = fal_client.result(app, handle.request_id)
        equal(answer["body"], {"a": 1})
        equal(answer["headers"]["x-fal-endpoint"], "me/app/echo")
        equal(answer["headers"]["x-fal-request-id"], handle.request_id)
        equal(answer["headers"]["x-own"], "kept")
        assert "authorization" not in answer["headers"], answer
        equal(type(fal_client.status(app, handle.request_id)), Completed)
    again = fal_client.sync_client.get_handle(APP, handle.request_id)
    equal(again.get()["body"], {"a": 1})
    error = http_error(lambda: fal_client.status(SINGLE, handle.request_id))
    equal((error.status_code, error.error_type), (404, "not_found"))


def check_unknown_requests_are_not_found():
    for unknown in ["01890000-0000-7000-8000-000000000000", "nothing"]:
        for call in [fal_client.status, fal_client.result, fal_client.cancel]:
            error = http_error(lambda: call(APP, unknown))
            equal((error.status_code, error.error_type), (404, "not_found"))
            equal(error.response.json()["status"], "NOT_FOUND")
    error = http_error(lambda: fal_client.submit("me/nothing", {}))
    equal((error.status_code, error.error_type), (404, "app_not_found"))


def check_logs_are_the_requests_own_and_in_order():
    fal_client.run(SINGLE, {"steps": 1, "seconds": 0}, path="slow")
    for seconds in [0.4, 0]:
        handle = fal_client.submit(SINGLE, {"steps": 3, "seconds": seconds}, path="slow")
        seen = []

        def look():
            status = handle.status(with_logs=True)
            if isinstance(status, InProgress):
                seen.append(messages(status.logs))
            return isinstance(status, Completed)

        until("the end", look)
        equal(messages(completed(handle).logs), STEPS)
        if seconds:
            for earlier, later in zip(seen, seen[1:]):
                equal(later[: len(earlier)], earlier)
            assert STEPS[:1] in seen and STEPS[:2] in seen, seen
        equal(handle.status().logs, None)


def check_no_line_is_lost_or_given_to_another_request():
    handles = [
        fal_client.submit(SINGLE, {"steps": n, "seconds": 0}, path="slow") for n in range(1, 13)
    ]
    for n, handle in enumerate(handles, 1):
        expected = ["step %d of %d" % (step, n) for step in range(1, n + 1)]
        equal(messages(completed(handle).logs), expected)


def check_logs_of_a_command_are_shown_as_well():
    handle = fal_client.submit(PLAIN, {"a": 1}, path="some/path")
    answer = handle.get()
    equal((answer["path"], answer["given"]), ("/some/path", {"a": 1}))
    equal(answer["request_id"], handle.request_id)
    equal(messages(completed(handle).logs), ["POST /some/path"])


def check_those_who_wait_know_their_position():
    with busy(SINGLE):
        second = fal_client.submit(SINGLE, {"seconds": 60}, path="patient")
        third = fal_client.submit(SINGLE, {"name": "you"})
        equal([second.status(), third.status()], [Queued(0), Queued(1)])
    until_said(second, "patient work begins")
    equal(third.status(), Queued(0))
    second.cancel()
    equal(third.get(), {"greeting": "hello you"})


def check_low_priority_waits_for_normal():
    calls = Calls()
    given = calls.arguments(0, 200)
    with busy(SINGLE):
        low = fal_client.submit(SINGLE, given, path="flaky", priority="low")
        normal = fal_client.submit(SINGLE, given, path="flaky", priority="normal")
        # It was told so before the other came, and what it is told does not rise.
        equal([normal.status(), low.status()], [Queued(0), Queued(0)])
    equal((normal.get(), low.get()), ({"calls": 1}, {"calls": 2}))
    equal(calls.ids(), [normal.request_id, low.request_id])


def check_subscribe_tells_of_everything():
    enqueued, updates = [], []
    answer = fal_client.subscribe(
        SINGLE,
        {"steps": 3, "seconds": 0.3},
        path="/slow",
        with_logs=True,
        interval=0.02,
        on_enqueue=enqueued.append,
        on_queue_update=updates.append,
    )
    equal(answer, {"steps": 3})
    equal(len(enqueued), 1)
    kinds = [type(update) for update in updates]
    equal(kinds, sorted(kinds, key=[Queued, InProgress, Completed].index))
    assert kinds.count(InProgress) >= 3 and kinds.count(Completed) == 1, kinds
    equal(messages(updates[-1].logs), STEPS)
    assert any(messages(u.logs) == STEPS[:1] for u in updates if isinstance(u, InProgress)), updates
    equal(fal_client.result(SINGLE, enqueued[0]), {"steps": 3})


def check_a_failed_request_is_complete_and_keeps_the_apps_error():
    cases = [
        ({"name": 3}, "", 422, None),
        ({"status": 500, "detail": "höh"}, "fail", 500, "höh"),
        ({"status": 418, "detail": "teapot"}, "fail", 418, "teapot"),
        ({"number": 1}, "raise", 500, "Internal Server Error"),
    ]
    for given, path, code, message in cases:
        handle = fal_client.submit(SINGLE, given, path=path)
        error = http_error(handle.get)
        equal(error.status_code, code)
        equal(error.response_headers["x-fal-request-id"], handle.request_id)
        if message is not None:
            equal(error.message, message)
        status = completed(handle)
        equal(status.error, "Invalid status code: %d" % code)
        assert status.error_type in ("bad_request", "runner_server_error"), status
    (problem,) = http_error(lambda: fal_client.subscribe(APP, {"name": 3})).message
    equal(problem["loc"], ["body", "name"])
    handle = fal_client.submit(SINGLE, {"status": 500}, path="fail")
    equal(messages(completed(handle).logs), ["about to fail with 500"])


def check_a_503_is_tried_again_on_another_runner_and_a_500_is_not():
    calls = Calls()
    handle = fal_client.submit(SINGLE, calls.arguments(1, 503), path="flaky")
    equal(handle.get(), {"calls": 2})
    equal(calls.ids(), [handle.request_id] * 2)

    calls = Calls()
    handle = fal_client.submit(SINGLE, calls.arguments(1, 500), path="flaky")
    equal(http_error(handle.get).message, "call 1 fails")
    equal(len(calls.ids()), 1)

    calls = Calls()
    headers = {"X-Fal-No-Retry": "1"}
    handle = fal_client.submit(SINGLE, calls.arguments(1, 503), path="flaky", headers=headers)
    error = http_error(handle.get)
    equal((error.status_code, error.message), (503, "call 1 fails"))
    equal(len(calls.ids()), 1)


def check_a_start_timeout_ends_the_wait_in_the_queue():
    with busy(SINGLE):
        began = time.monotonic()
        handle = fal_client.submit(SINGLE, {"name": "x"}, start_timeout=1.2)
        equal(handle.status(), Queued(0))
        error = http_error(handle.get)
        assert time.monotonic() - began > 1.1
    equal((error.status_code, error.error_type), (504, "request_timeout"))
    equal(error.response_headers["x-fal-request-timeout-type"], "user")
    equal(error.response_headers["x-fal-error-type"], "request_timeout")
    status = completed(handle)
    equal((status.error, status.error_type), (error.message, "request_timeout"))


def check_a_client_timeout_takes_the_request_back():
    enqueued = []
    with busy(SINGLE):
        try:
            fal_client.subscribe(
                SINGLE,
                {"name": "x"},
                on_enqueue=enqueued.append,
                start_timeout=60,
                client_timeout=1.2,
            )
        except fal_client.client.FalClientTimeoutError as error:
            equal((error.timeout, error.request_id), (1.2, enqueued[0]))
        else:
            raise AssertionError("it should have timed out")
        # The client has taken it back before it told us.
        status = fal_client.status(SINGLE, enqueued[0])
        equal((type(status), status.error_type), (Completed, "client_cancelled"))


def check_large_requests_and_answers_are_kept():
    given = {"text": "ü€🚀" * (LARGE_BYTES // 9)}
    handle = fal_client.submit(APP, given, path="echo")
    equal(handle.get()["body"], given)


def check_many_at_once_get_each_their_own():
    handles = [fal_client.submit(APP, {"name": str(n)}) for n in range(40)]
    equal(len({handle.request_id for handle in handles}), 40)
    equal([handle.get()["greeting"] for handle in handles], ["hello %d" % n for n in range(40)])


run(globals())

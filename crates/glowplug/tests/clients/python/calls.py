"""`fal_client.run`: what goes in, what comes out, and every way to fail."""

import fal_client

from checks import APP, PLAIN, SINGLE, UUID, Calls, busy, equal, http_error, run

LARGE_BYTES = 6 * 1024 * 1024
WORDS = 'Grüße, 世界! 🚀 "\\ \u2028 \x7f'


def check_a_call_answers():
    equal(fal_client.run(APP, {"name": "you"}), {"greeting": "hello you"})
    equal(fal_client.run(APP, {"name": "you", "times": 2}), {"greeting": "hello you, hello you"})


def check_a_path_may_be_given_in_two_ways():
    for answer in [
        fal_client.run(APP + "/echo", {"a": 1}),
        fal_client.run(APP, {"a": 1}, path="echo"),
        fal_client.run(APP, {"a": 1}, path="/echo"),
    ]:
        equal(answer["body"], {"a": 1})
        equal(answer["method"], "POST")
        equal(answer["headers"]["x-fal-endpoint"], "me/app/echo")


def check_every_kind_of_json_comes_through():
    given = {"text": WORDS, "none": None, "number": -1.5e-7, "big": 2**53, "list": [[], {}, True]}
    equal(fal_client.run(APP, given, path="echo")["body"], given)


def check_large_bodies_come_through():
    given = {"text": "ü€" * (LARGE_BYTES // 5)}
    equal(fal_client.run(APP, given, path="echo")["body"], given)


def check_binary_comes_through_as_data():
    data = fal_client.encode(bytes(range(256)) * 64, "application/octet-stream")
    equal(fal_client.run(APP, {"data": data}, path="echo")["body"]["data"], data)


def check_callers_headers_reach_the_app_and_forged_ones_do_not():
    forged = {
        "X-Fal-Request-Id": "forged",
        "X-Fal-Endpoint": "someone/else",
        "X-Fal-Caller-User-Id": "root",
        "X-Fal-Anything": "forged",
        "Connection": "keep-alive, X-Hop",
        "X-Hop": "for the node only",
        "X-Own": "kept",
    }
    answer = fal_client.run(APP, {}, path="echo", headers=forged)
    headers = answer["headers"]
    assert UUID.fullmatch(answer["request_id"]), answer
    equal(headers["x-fal-request-id"], answer["request_id"])
    equal(headers["x-fal-endpoint"], "me/app/echo")
    equal(headers["x-own"], "kept")
    equal(headers["content-type"], "application/json")
    assert headers["user-agent"].startswith("fal-client/1.0.3"), headers
    for name in ["x-fal-caller-user-id", "x-fal-anything", "x-hop", "authorization"]:
        assert name not in headers, (name, headers)


def check_a_command_is_called_like_an_app():
    answer = fal_client.run(PLAIN, {"a": 1}, path="some/path")
    equal((answer["path"], answer["given"]), ("/some/path", {"a": 1}))
    answer = fal_client.run(PLAIN, {}, path="some/path", method="GET")
    equal((answer["path"], answer["given"]), ("/some/path", None))


def check_bad_input_is_the_apps_422():
    error = http_error(lambda: fal_client.run(APP, {"name": 3}))
    equal(error.status_code, 422)
    equal(error.error_type, None)
    (problem,) = error.message
    equal(problem["loc"], ["body", "name"])
    equal(problem["type"], "string_type")
    equal(error.response_headers["x-fal-billable-units"], "0")


def check_errors_of_the_app_come_as_they_are():
    for status in [400, 418, 500]:
        given = {"status": status, "detail": WORDS}
        error = http_error(lambda: fal_client.run(APP, given, path="fail"))
        equal((error.status_code, error.message), (status, WORDS))
    error = http_error(lambda: fal_client.run(APP, {"number": 1}, path="raise"))
    equal((error.status_code, error.message), (500, "Internal Server Error"))
    error = http_error(lambda: fal_client.run(APP, {}, path="nowhere"))
    equal((error.status_code, error.message), (404, "Path /nowhere not found"))


def check_an_unknown_app_is_named_with_the_nearest():
    error = http_error(lambda: fal_client.run("me/singel", {}))
    equal((error.status_code, error.error_type), (404, "app_not_found"))
    equal(error.response_headers["x-fal-error-type"], "app_not_found")
    equal(error.message, "there is no app `me/singel`; did you mean `me/single`?")


def check_a_failed_direct_call_is_not_repeated():
    calls = Calls()
    error = http_error(lambda: fal_client.run(APP, calls.arguments(1, 502), path="flaky"))
    equal((error.status_code, error.message), (502, "call 1 fails"))
    equal(len(calls.ids()), 1)


def check_a_start_timeout_ends_the_wait_and_not_the_work():
    with busy(SINGLE):
        error = http_error(lambda: fal_client.run(SINGLE, {"name": "x"}, start_timeout=1.2))
        equal((error.status_code, error.error_type), (504, "request_timeout"))
        equal(error.response_headers["x-fal-request-timeout-type"], "user")
    # Work that has begun is not ended by it.
    given = {"steps": 1, "seconds": 1.5}
    equal(fal_client.run(APP, given, path="slow", start_timeout=1.1), {"steps": 1})


run(globals())

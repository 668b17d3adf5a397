"""Cancelling: of what waits, of what runs, of what is over."""

import time

import fal_client
from fal_client import Completed, InProgress, Queued

from checks import (
    APP,
    SINGLE,
    Calls,
    busy,
    completed,
    equal,
    http_error,
    messages,
    run,
    until_said,
)

PATIENT = {"seconds": 60}


def check_a_waiting_request_is_taken_out():
    calls = Calls()
    with busy(SINGLE):
        handles = [fal_client.submit(SINGLE, calls.arguments(0, 200), path="flaky") for _ in "ab"]
        equal([handle.status() for handle in handles], [Queued(0), Queued(1)])
        handles[0].cancel()
        equal(handles[1].status(), Queued(0))
        status = handles[0].status(with_logs=True)
        equal((type(status), status.error_type, status.logs), (Completed, "client_cancelled", []))
        error = http_error(handles[0].get)
        equal((error.status_code, error.error_type), (499, "client_cancelled"))
    equal(handles[1].get(), {"calls": 1})
    equal(calls.ids(), [handles[1].request_id])


def check_a_running_request_is_cancelled_by_its_app():
    began = time.monotonic()
    handle = fal_client.submit(SINGLE, PATIENT, path="patient")
    until_said(handle, "patient work begins")
    fal_client.cancel(SINGLE, handle.request_id)
    error = http_error(handle.get)
    assert time.monotonic() - began < PATIENT["seconds"] / 2
    equal(error.status_code, 499)
    equal(messages(completed(handle).logs)[-1:], ["patient work was cancelled"])
    # The runner is free for the next.
    equal(fal_client.run(SINGLE, {"name": "you"}), {"greeting": "hello you"})


def check_only_the_request_meant_is_cancelled():
    handles = [fal_client.submit(APP, {"seconds": s}, path="patient") for s in (3, 60)]
    for handle in handles:
        until_said(handle, "patient work begins")
    handles[1].cancel()
    equal(http_error(handles[1].get).status_code, 499)
    equal(type(handles[0].status()), InProgress)
    equal(handles[0].get(), {"finished": True})


def check_a_cancellation_may_come_at_any_moment():
    """Before the app has the request, or while it takes it in; what is cancelled never succeeds late."""
    for _ in range(20):
        calls = Calls()
        handle = fal_client.submit(SINGLE, calls.arguments(0, 200), path="flaky")
        try:
            handle.cancel()
        except fal_client.client.FalClientHTTPError as error:
            equal(error.response.json()["status"], "ALREADY_COMPLETED")
            equal(completed(handle).error, None)
        status = completed(handle)
        if status.error is None:
            equal((handle.get(), calls.ids()), ({"calls": 1}, [handle.request_id]))
        else:
            equal((status.error_type, calls.ids()), ("client_cancelled", []))


def check_work_that_cannot_be_cancelled_finishes():
    handle = fal_client.submit(SINGLE, {"steps": 2, "seconds": 0.6}, path="slow")
    until_said(handle, "step 1 of 2")
    handle.cancel()
    equal(type(handle.status()), InProgress)
    equal(handle.get(), {"steps": 2})
    equal(type(completed(handle)), Completed)


def check_what_is_complete_cannot_be_cancelled():
    handle = fal_client.submit(APP, {"name": "you"})
    equal(handle.get(), {"greeting": "hello you"})
    error = http_error(handle.cancel)
    equal(error.status_code, 400)
    equal(error.response.json()["status"], "ALREADY_COMPLETED")
    equal(handle.get(), {"greeting": "hello you"})


run(globals())

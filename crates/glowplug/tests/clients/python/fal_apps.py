"""The client inside the package `fal` itself, which writes its addresses in another way."""

import json

import fal.apps
import httpx
from fal.apps import Completed, InProgress, Queued

from checks import APP, SINGLE, equal, run, until

STEPS = ["step %d of 3" % step for step in (1, 2, 3)]


def check_run_and_submit():
    equal(fal.apps.run(APP, {"name": "you"}), {"greeting": "hello you"})
    handle = fal.apps.submit(APP, {"a": 1}, path="echo")
    equal(handle.get()["body"], {"a": 1})
    equal(type(handle.status()), Completed)


def check_status_tells_the_states_apart():
    first = fal.apps.submit(SINGLE, {"steps": 3, "seconds": 0.5}, path="slow")
    until("the start", lambda: isinstance(first.status(), InProgress))
    second = fal.apps.submit(SINGLE, {"name": "you"})
    equal(second.status().position, 0)
    equal(type(second.status()), Queued)
    until("a line", lambda: first.status(logs=True).logs)
    events = list(first.iter_events(logs=True))
    equal({type(event) for event in events}, {InProgress})
    status = first.status(logs=True)
    equal((type(status), [line["message"] for line in status.logs]), (Completed, STEPS))
    equal(second.get(), {"greeting": "hello you"})


def check_cancel():
    first = fal.apps.submit(SINGLE, {"seconds": 60}, path="patient")
    until("the work", lambda: getattr(first.status(logs=True), "logs", None))
    second = fal.apps.submit(SINGLE, {"name": "you"})
    second.cancel()
    first.cancel()
    until("both ends", lambda: all(isinstance(h.status(), Completed) for h in (first, second)))
    for handle in (first, second):
        try:
            handle.get()
        except httpx.HTTPStatusError as error:
            equal(error.response.status_code, 499)
        else:
            raise AssertionError("it should have been cancelled")


def check_stream():
    lines = fal.apps.stream(APP, {"steps": 3, "seconds": 0}, path="/stream")
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line]
    equal([event["step"] for event in events], [1, 2, 3])


run(globals())

"""Runs the checks of a script, and what more than one script needs."""

import asyncio
import contextlib
import datetime
import inspect
import os
import re
import sys
import tempfile
import time
import traceback

import fal_client

# Apps of the node's config: `APP` takes several requests at a time, `SINGLE` one, `PLAIN` is a command.
APP = "me/app"
SINGLE = "me/single"
PLAIN = "me/plain"

WAIT_SECONDS_MAX = 30
POLL_SECONDS = 0.02
TRACE_FRAMES_MAX = 4
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def run(checks):
    """Calls every function named `check_…` in the order of the script, and ends the process."""
    passed = failed = 0
    # One for all checks: the client keeps its connections.
    loop = asyncio.new_event_loop()
    for name, check in list(checks.items()):
        if not name.startswith("check_"):
            continue
        began = time.monotonic()
        try:
            result = check()
            if inspect.isawaitable(result):
                loop.run_until_complete(bounded(result))
        except BaseException:
            failed += 1
            print("FAILED %s" % name)
            traceback.print_exc(limit=-TRACE_FRAMES_MAX, file=sys.stdout)
        else:
            passed += 1
            print("ok %s (%.2f s)" % (name, time.monotonic() - began))
    print("%d passed, %d failed" % (passed, failed))
    sys.exit(1 if failed or not passed else 0)


async def bounded(awaitable):
    return await asyncio.wait_for(awaitable, 2 * WAIT_SECONDS_MAX)


def equal(got, expected):
    assert got == expected, "got %r, expected %r" % (got, expected)


def http_error(call):
    """The error that a call ends with."""
    try:
        result = call()
    except fal_client.client.FalClientHTTPError as error:
        return checked_error(error)
    raise AssertionError("it should have failed, but gave %r" % (result,))


async def http_error_async(awaitable):
    try:
        result = await awaitable
    except fal_client.client.FalClientHTTPError as error:
        return checked_error(error)
    raise AssertionError("it should have failed, but gave %r" % (result,))


def checked_error(error):
    assert UUID.fullmatch(error.response_headers["x-fal-request-id"]), error.response_headers
    return error


def until(what, look):
    """Waits until `look` returns something true."""
    end = time.monotonic() + WAIT_SECONDS_MAX
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(POLL_SECONDS)
    raise AssertionError("waited in vain for " + what)


@contextlib.contextmanager
def busy(app):
    """Keeps an app that takes one request at a time from taking another."""
    handle = fal_client.submit(app, {"seconds": 2 * WAIT_SECONDS_MAX}, path="patient")
    until_said(handle, "patient work begins")
    yield handle
    assert isinstance(handle.status(), fal_client.InProgress), "it was to be left alone"
    handle.cancel()
    completed(handle)


async def until_in_progress_async(handle):
    while not isinstance(await handle.status(), fal_client.InProgress):
        await asyncio.sleep(POLL_SECONDS)


async def until_said_async(handle, message):
    while message not in words(await handle.status(with_logs=True)):
        await asyncio.sleep(POLL_SECONDS)


def completed(handle):
    """The status of a request once it is complete, with its logs."""

    def look():
        status = handle.status(with_logs=True)
        return status if isinstance(status, fal_client.Completed) else None

    return until("the end of " + handle.request_id, look)


def until_said(handle, message):
    """Waits until the app has written this while it works on the request."""
    until(message, lambda: message in words(handle.status(with_logs=True)))


def words(status):
    return messages(getattr(status, "logs", None) or [])


def messages(logs):
    """The words of log lines, after a look at their form."""
    times = []
    for line in logs:
        equal(sorted(line), ["level", "message", "source", "timestamp"])
        equal(line["level"], "STDOUT")
        equal(line["source"], "run")
        assert line["timestamp"].endswith("Z"), line
        times.append(datetime.datetime.fromisoformat(line["timestamp"][:-1]))
    equal(times, sorted(times))
    return [line["message"] for line in logs]


class Calls:
    """Counts how often the app's `/flaky` was called."""

    def __init__(self):
        descriptor, self.path = tempfile.mkstemp(dir=os.environ["SCRATCH"])
        os.close(descriptor)

    def arguments(self, times, status):
        return {"calls": self.path, "times": times, "status": status}

    def ids(self):
        with open(self.path) as file:
            return file.read().split()

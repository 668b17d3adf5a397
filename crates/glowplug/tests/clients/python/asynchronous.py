"""The asynchronous half of `fal_client`."""

import asyncio
import time

import fal_client
from fal_client import Completed, InProgress, Queued

from checks import (
    APP,
    SINGLE,
    equal,
    http_error_async,
    messages,
    run,
    until_in_progress_async,
    until_said_async,
)

STEPS = ["step %d of 3" % step for step in (1, 2, 3)]


async def check_run():
    equal(await fal_client.run_async(APP, {"name": "you"}), {"greeting": "hello you"})
    error = await http_error_async(fal_client.run_async(APP, {"name": 3}))
    equal((error.status_code, error.message[0]["loc"]), (422, ["body", "name"]))
    error = await http_error_async(fal_client.run_async(APP, {"number": 1}, path="raise"))
    equal((error.status_code, error.message), (500, "Internal Server Error"))
    error = await http_error_async(fal_client.run_async("me/nothing", {}))
    equal((error.status_code, error.error_type), (404, "app_not_found"))


async def check_many_run_at_once():
    # Longer than a request takes in all, and shorter than they take one after the other.
    began = time.monotonic()
    given = {"steps": 1, "seconds": 0.5}
    answers = await asyncio.gather(
        *[fal_client.run_async(APP, given, path="slow") for _ in range(8)]
    )
    equal(answers, [{"steps": 1}] * 8)
    assert time.monotonic() - began < 8 * 0.5


async def check_submit_status_result():
    handle = await fal_client.submit_async(SINGLE, {"steps": 3, "seconds": 0.5}, path="slow")
    waiting = await fal_client.submit_async(SINGLE, {"name": "you"}, priority="low")
    await until_in_progress_async(handle)
    equal(await waiting.status(), Queued(0))
    status = await fal_client.status_async(SINGLE, handle.request_id, with_logs=True)
    equal(type(status), InProgress)
    equal(messages(status.logs), STEPS[: len(status.logs)])
    equal(await fal_client.result_async(SINGLE, handle.request_id), {"steps": 3})
    status = await handle.status(with_logs=True)
    equal((type(status), messages(status.logs)), (Completed, STEPS))
    equal(await waiting.get(), {"greeting": "hello you"})


async def check_subscribe():
    enqueued, updates = [], []
    answer = await fal_client.subscribe_async(
        SINGLE,
        {"steps": 3, "seconds": 0.2},
        path="slow",
        with_logs=True,
        on_enqueue=enqueued.append,
        on_queue_update=updates.append,
    )
    equal(answer, {"steps": 3})
    equal((len(enqueued), type(updates[-1])), (1, Completed))
    equal(messages(updates[-1].logs), STEPS)
    assert any(isinstance(update, InProgress) and update.logs for update in updates), updates
    error = await http_error_async(fal_client.subscribe_async(APP, {"status": 500}, path="fail"))
    equal((error.status_code, error.message), (500, "as asked for"))


async def check_timeouts():
    first = await fal_client.submit_async(SINGLE, {"seconds": 60}, path="patient")
    await until_said_async(first, "patient work begins")
    subscribed = fal_client.subscribe_async(SINGLE, {"name": "x"}, start_timeout=1.2)
    error = await http_error_async(subscribed)
    equal((error.status_code, error.error_type), (504, "request_timeout"))
    equal(error.response_headers["x-fal-request-timeout-type"], "user")
    enqueued = []
    try:
        await fal_client.subscribe_async(
            SINGLE, {"name": "x"}, client_timeout=1.05, start_timeout=60, on_enqueue=enqueued.append
        )
    except fal_client.client.FalClientTimeoutError as error:
        equal(error.request_id, enqueued[0])
    else:
        raise AssertionError("it should have timed out")
    error = await http_error_async(fal_client.result_async(SINGLE, enqueued[0]))
    equal((error.status_code, error.error_type), (499, "client_cancelled"))
    equal(type(await first.status()), InProgress)
    await first.cancel()
    equal((await http_error_async(first.get())).status_code, 499)


async def check_cancel():
    handle = await fal_client.submit_async(SINGLE, {"seconds": 60}, path="patient")
    await until_said_async(handle, "patient work begins")
    waiting = await fal_client.submit_async(SINGLE, {"name": "x"})
    await fal_client.cancel_async(SINGLE, waiting.request_id)
    error = await http_error_async(waiting.get())
    equal((error.status_code, error.error_type), (499, "client_cancelled"))
    await handle.cancel()
    equal((await http_error_async(handle.get())).status_code, 499)
    error = await http_error_async(handle.cancel())
    equal((error.status_code, error.response.json()["status"]), (400, "ALREADY_COMPLETED"))


async def check_stream():
    steps = [e["step"] async for e in fal_client.stream_async(APP, {"steps": 3, "seconds": 0.1})]
    equal(steps, [1, 2, 3])


async def check_realtime():
    async with fal_client.realtime_async(APP, use_jwt=False) as connection:
        for number in range(5):
            await connection.send({"number": number})
            equal(await connection.recv(), {"number": number * 2})
    async with fal_client.ws_connect_async(APP, use_jwt=False, path="socket") as socket:
        await socket.send("hello")
        equal(await socket.recv(), "HELLO")


run(globals())

"""Streams and sockets through `fal_client`."""

import time

import fal_client
import httpx_sse

from checks import APP, PLAIN, equal, run

STEPS = [{"step": step, "of": 3, "text": "läuft"} for step in (1, 2, 3)]


def check_events_come_one_by_one():
    events, times = [], []
    for event in fal_client.stream(APP, {"steps": 3, "seconds": 0.4}):
        events.append(event)
        times.append(time.monotonic())
    equal(events, STEPS)
    assert times[2] - times[0] > 0.4, times


def check_a_stream_may_have_another_path_or_none():
    given = {"steps": 3, "seconds": 0}
    equal(list(fal_client.stream(APP, given, path="stream")), STEPS)
    equal(list(fal_client.stream(APP + "/stream", given, path="")), STEPS)


def check_a_stream_may_be_left_early():
    for event in fal_client.stream(APP, {"steps": 50, "seconds": 0.1}):
        equal(event["step"], 1)
        break
    equal(fal_client.run(APP, {"name": "you"}), {"greeting": "hello you"})


def check_an_error_is_not_taken_for_a_stream():
    for app, given in [(APP, {"steps": "many"}), ("me/nothing", {}), (PLAIN, {})]:
        try:
            list(fal_client.stream(app, given))
        except httpx_sse.SSEError as error:
            assert "application/json" in str(error), error
        else:
            raise AssertionError("a stream of " + app)


def check_realtime_answers_frame_by_frame():
    with fal_client.realtime(APP, use_jwt=False) as connection:
        for number in range(20):
            connection.send({"number": number})
            equal(connection.recv(), {"number": number * 2})


def check_realtime_reports_bad_frames():
    with fal_client.realtime(APP, use_jwt=False) as connection:
        connection.send({"number": "one"})
        try:
            answer = connection.recv()
        except fal_client.client.RealtimeError as error:
            assert error.error, error
        else:
            equal(answer.get("status"), "error")


def check_a_plain_socket_stays_open():
    with fal_client.ws_connect(APP, use_jwt=False, path="socket") as socket:
        for text in ["one", "grüße", "x" * 100_000]:
            socket.send(text)
            equal(socket.recv(), text.upper())


run(globals())

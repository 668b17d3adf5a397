"""Sockets: HTTP over a websocket, realtime, and what ends them."""

import json

import fal.apps
import fal_client
from websockets.exceptions import InvalidStatus

from checks import APP, UUID, equal, run

BRIEF = "me/brief"


def check_http_over_a_websocket():
    with fal.apps.ws(APP) as connection:
        for name in ["you", "grüße"]:
            equal(json.loads(connection.run({"name": name})), {"greeting": "hello " + name})
    with fal.apps.ws(APP, path="echo") as connection:
        first, second = (json.loads(connection.run({"n": n})) for n in (1, 2))
        equal((first["body"], second["body"]), ({"n": 1}, {"n": 2}))
        equal(first["headers"]["x-fal-endpoint"], "me/app/echo")
        assert UUID.fullmatch(first["request_id"]), first
        assert first["request_id"] != second["request_id"], "each call is a request"


def check_calls_may_be_sent_ahead():
    with fal.apps.ws(APP, path="echo") as connection:
        for n in range(10):
            connection.send({"n": n})
        equal([json.loads(connection.recv())["body"]["n"] for _ in range(10)], list(range(10)))


def check_streams_and_errors_come_over_a_websocket():
    with fal.apps.ws(APP, path="stream") as connection:
        connection.send({"steps": 3, "seconds": 0.1})
        text = b"".join(connection.stream()).decode()
        steps = [json.loads(line[6:])["step"] for line in text.splitlines() if line]
        equal(steps, [1, 2, 3])
    with fal.apps.ws(APP, path="fail") as connection:
        equal(json.loads(connection.run({"status": 418})), {"detail": "as asked for"})
        equal(json.loads(connection.run({"status": "x"}))["detail"][0]["loc"], ["body", "status"])


def check_realtime_with_few_buffers():
    with fal_client.realtime(APP, use_jwt=False, max_buffering=2) as connection:
        for number in range(20):
            connection.send({"number": number})
            equal(connection.recv(), {"number": number * 2})


def check_realtime_reaches_the_app_by_either_address():
    with fal.apps.ws(APP, path="realtime") as connection:
        connection._ws.send(fal_client.client.msgpack_encode_message({"number": 4}))
        equal(fal_client.client.msgpack_decode_message(connection._ws.recv()), {"number": 8})


def check_a_long_session_is_told_that_its_time_is_over():
    with fal_client.realtime(BRIEF, use_jwt=False) as connection:
        connection.send({"number": 1})
        equal(connection.recv(), {"number": 2})
        try:
            connection.recv()
        except fal_client.client.RealtimeError as error:
            equal(error.error, "REQUEST_TIMEOUT")
            assert "request_timeout of 2 s" in error.reason, error
        else:
            raise AssertionError("it should have ended")


def check_an_unknown_app_opens_no_socket():
    try:
        with fal_client.realtime("me/nothing", use_jwt=False):
            raise AssertionError("it opened")
    except InvalidStatus as error:
        equal(error.response.status_code, 404)


run(globals())

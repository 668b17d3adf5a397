"""A node with keys: `me/app` is private, `me/open` is for everyone."""

import os

import fal_client
import websockets.exceptions

from checks import APP, equal, http_error, http_error_async, run

OPEN = "me/open"
RIGHT = fal_client.SyncClient(key=os.environ["FAL_KEY"])
IDENTITY, SECRET = os.environ["FAL_KEY"].split(":")
WRONG = [IDENTITY + ":wrong", "nobody:" + SECRET, IDENTITY, "any", os.environ["REVOKED_KEY"]]


def refused(call):
    error = http_error(call)
    equal((error.status_code, error.error_type), (401, "unauthorized"))
    equal(error.message, "the key is not one of this node's")


def check_the_right_key_opens_everything():
    equal(fal_client.run(APP, {"name": "you"}), {"greeting": "hello you"})
    handle = fal_client.submit(APP, {"name": "you"})
    equal(handle.get(), {"greeting": "hello you"})
    steps = [e["step"] for e in fal_client.stream(APP, {"steps": 2, "seconds": 0})]
    equal(steps, [1, 2])
    with fal_client.realtime(APP, use_jwt=False) as connection:
        connection.send({"number": 4})
        equal(connection.recv(), {"number": 8})


def check_the_app_learns_who_calls_and_not_the_secret():
    for answer in [
        RIGHT.run(APP, {}, path="echo", headers={"X-Fal-Caller-User-Id": "root"}),
        RIGHT.submit(APP, {}, path="echo", headers={"X-Fal-Caller-User-Id": "root"}).get(),
    ]:
        equal(answer["headers"]["x-fal-caller-user-id"], IDENTITY)
        assert SECRET not in str(answer), answer


def check_a_wrong_key_opens_nothing():
    handle = RIGHT.submit(APP, {"name": "you"})
    equal(handle.get(), {"greeting": "hello you"})
    for key in WRONG:
        client = fal_client.SyncClient(key=key)
        refused(lambda: client.run(APP, {"name": "you"}))
        refused(lambda: client.submit(APP, {"name": "you"}))
        refused(lambda: client.status(APP, handle.request_id))
        refused(lambda: client.get_handle(APP, handle.request_id).get())
        refused(lambda: client.cancel(APP, handle.request_id))
        try:
            with client.realtime(APP, use_jwt=False):
                raise AssertionError("a socket with the key " + key)
        except websockets.exceptions.InvalidStatus as error:
            equal(error.response.status_code, 401)


async def check_a_wrong_key_opens_nothing_asynchronously():
    client = fal_client.AsyncClient(key=WRONG[0])
    error = await http_error_async(client.run(APP, {"name": "you"}))
    equal((error.status_code, error.error_type), (401, "unauthorized"))
    error = await http_error_async(client.submit(APP, {"name": "you"}))
    equal((error.status_code, error.error_type), (401, "unauthorized"))


def check_strangers_learn_nothing_of_other_apps():
    client = fal_client.SyncClient(key=WRONG[0])
    error = http_error(lambda: client.run("me/apq", {}))
    equal((error.status_code, error.message), (404, "there is no app `me/apq`"))
    error = http_error(lambda: RIGHT.run("me/apq", {}))
    equal(error.message, "there is no app `me/apq`; did you mean `me/app`?")


def check_a_public_app_takes_any_key_and_believes_none():
    client = fal_client.SyncClient(key=WRONG[0])
    equal(client.run(OPEN, {"name": "you"}), {"greeting": "hello you"})
    equal(client.subscribe(OPEN, {"name": "you"}), {"greeting": "hello you"})
    answer = client.run(OPEN, {}, path="echo")
    assert "x-fal-caller-user-id" not in answer["headers"], answer
    assert "authorization" not in answer["headers"], answer


run(globals())

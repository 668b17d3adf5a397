"""Uploads of every size, tokens and sockets, with `fal.run` and its like reached through `HTTPS_PROXY`."""

import hashlib
import os
import tempfile
import urllib.error
import urllib.request

import fal_client
import httpx
import websockets.exceptions
from fal_client.client import StorageSettings, _build_realtime_url, _connect_sync_ws

from checks import APP, equal, run

KILOBYTE = bytes(range(256)) * 4
LARGE_BYTES = 5 * 1024 * 1024
# More than a client sends at once: eleven parts.
PARTS_BYTES = 101 * 1024 * 1024


def pattern(length):
    block = hashlib.sha256(b"glowplug").digest() * 4096
    return (block * (length // len(block) + 1))[:length]


def fetch(url, **headers):
    # Straight to the node: the address is plain, so no proxy is asked.
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request) as response:
        return response.status, dict(response.headers), response.read()


def refused(url, **headers):
    try:
        fetch(url, **headers)
    except urllib.error.HTTPError as error:
        return error.code
    raise AssertionError("it should have failed")


def check_small_and_large_files_are_kept():
    for data in [b"", KILOBYTE, pattern(LARGE_BYTES)]:
        url = fal_client.upload(data, "image/png", file_name="../a b.png")
        assert url.startswith("http://127.0.0.1:"), url
        status, headers, got = fetch(url)
        equal((status, headers["content-type"], len(got)), (200, "image/png", len(data)))
        assert got == data
        equal(headers["etag"], '"%s"' % hashlib.sha256(data).hexdigest())
        equal(headers["x-content-type-options"], "nosniff")
        equal(headers["content-disposition"], "inline; filename*=UTF-8''a%20b.png")


def check_ranges_and_conditions():
    url = fal_client.upload(KILOBYTE, "text/html", "page.html")
    status, headers, got = fetch(url, Range="bytes=10-19")
    equal((status, headers["content-range"], got), (206, "bytes 10-19/1024", KILOBYTE[10:20]))
    status, headers, got = fetch(url, Range="bytes=-4")
    equal((status, got), (206, KILOBYTE[-4:]))
    assert headers["content-disposition"].startswith("attachment"), headers
    equal(refused(url, Range="bytes=1024-"), 416)
    equal(refused(url, **{"If-None-Match": headers["etag"]}), 304)
    equal(refused(url.replace("page", "other")), 404)


def check_files_in_parts():
    data = pattern(PARTS_BYTES)
    url = fal_client.upload(data, "video/mp4", "long.mp4")
    _, headers, got = fetch(url)
    assert got == data
    equal(headers["content-type"], "video/mp4")
    with tempfile.NamedTemporaryFile(dir=os.environ["SCRATCH"], suffix=".bin") as file:
        file.write(data)
        file.flush()
        url = fal_client.upload_file(file.name)
    equal(len(fetch(url)[2]), PARTS_BYTES)


async def check_files_in_parts_asynchronously():
    data = pattern(PARTS_BYTES)
    url = await fal_client.upload_async(data, "video/mp4", "long.mp4")
    assert fetch(url)[2] == data


def check_the_older_storage():
    url = fal_client.upload(KILOBYTE, "text/plain", "a.txt", repository="fal")
    equal(fetch(url)[2], KILOBYTE)
    with tempfile.NamedTemporaryFile(dir=os.environ["SCRATCH"], suffix=".txt") as file:
        file.write(KILOBYTE)
        file.flush()
        equal(fetch(fal_client.upload_file(file.name))[2], KILOBYTE)
        assert fal_client.encode_file(file.name).startswith("data:text/plain;base64,")


def check_a_lifecycle_is_kept():
    for lifecycle in [StorageSettings(expires_in="1h"), StorageSettings(expires_in=3600)]:
        url = fal_client.upload(KILOBYTE, "text/plain", lifecycle=lifecycle)
        age = int(fetch(url)[1]["cache-control"].split("max-age=")[1].split(",")[0])
        assert 3500 < age <= 3600, age


def check_calls_and_queue_go_through_the_proxy():
    equal(fal_client.run(APP, {"name": "you"}), {"greeting": "hello you"})
    handle = fal_client.submit(APP, {"name": "you"})
    assert handle.status_url.startswith("https://queue.fal.run/me/app/requests/"), handle
    equal(handle.get(), {"greeting": "hello you"})
    equal(fal_client.subscribe(APP, {"name": "you"}), {"greeting": "hello you"})
    steps = [e["step"] for e in fal_client.stream(APP, {"steps": 2, "seconds": 0})]
    equal(steps, [1, 2])


def check_the_app_may_upload_for_its_caller():
    for answer in [
        fal_client.run(APP, {}, path="echo"),
        fal_client.submit(APP, {}, path="echo").get(),
    ]:
        token = answer["headers"]["x-fal-cdn-token"]
        headers = {"Authorization": "Bearer " + token}
        kept = httpx.post("https://v3.fal.media/files/upload", content=b"made", headers=headers)
        equal(fetch(kept.json()["access_url"])[2], b"made")


def check_sockets_with_tokens():
    with fal_client.realtime(APP) as connection:
        connection.send({"number": 4})
        equal(connection.recv(), {"number": 8})
    with fal_client.realtime(APP, use_jwt=False) as connection:
        connection.send({"number": 5})
        equal(connection.recv(), {"number": 10})


def check_a_token_is_for_the_apps_it_names():
    token = fal_client.SyncClient(key=os.environ["FAL_KEY"])._get_realtime_token("me/single")
    for app, opens in [("me/single", True), (APP, False)]:
        url = _build_realtime_url(app, token, None, path="/realtime")
        equal(socket_opens(url), opens)


def socket_opens(url):
    try:
        with _connect_sync_ws(url):
            return True
    except websockets.exceptions.InvalidStatus as error:
        equal(error.response.status_code, 403)
        return False


def check_only_the_uploader_deletes():
    url = fal_client.upload(KILOBYTE, "text/plain")
    equal(httpx.delete(url).status_code, 401)
    key = {"Authorization": "Key " + os.environ["FAL_KEY"]}
    equal(httpx.delete(url, headers=key).status_code, 204)
    equal(refused(url), 404)


def check_no_other_host_is_reached():
    try:
        httpx.get("https://example.org/")
        raise AssertionError("a tunnel to another host")
    except httpx.ProxyError as error:
        assert "403" in str(error), error


run(globals())

"""Webhooks through `fal_client`, verified with the code of the guide."""

import http.server
import json
import os
import pathlib
import queue
import re
import threading

import fal_client

from checks import APP, PLAIN, WAIT_SECONDS_MAX, equal, run

ROOT = pathlib.Path(__file__).resolve().parents[5]
NODE = "http://" + os.environ["FAL_RUN_HOST"].removesuffix("/run")


def code_of_the_guide():
    text = (ROOT / "docs/guide/webhooks.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names = {}
    exec(compile(code, "webhooks.md", "exec"), names)
    return names["public_keys"], names["is_genuine"]


public_keys, is_genuine = code_of_the_guide()
calls = queue.Queue()


class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        calls.put((self.headers, body))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
threading.Thread(target=server.serve_forever, daemon=True).start()
URL = "http://127.0.0.1:%d/done?x=1" % server.server_port


def call_for(app, arguments, **options):
    handle = fal_client.submit(app, arguments, webhook_url=URL, **options)
    headers, body = calls.get(timeout=WAIT_SECONDS_MAX)
    said = json.loads(body)
    equal(said["request_id"], handle.request_id)
    equal(headers["X-Fal-Webhook-Request-Id"], handle.request_id)
    return headers, body, said


def check_an_answer_is_told_and_signed():
    headers, body, said = call_for(APP, {"name": "you"})
    equal((said["status"], said["payload"]), ("OK", {"greeting": "hello you"}))
    assert "error" not in said and "payload_error" not in said, said
    keys = public_keys(NODE)
    assert is_genuine(headers, body, keys)
    equal(keys, public_keys(NODE))


def check_nothing_can_be_changed():
    headers, body, _ = call_for(APP, {"name": "you"})
    keys = public_keys(NODE)
    assert is_genuine(headers, body, keys)
    assert not is_genuine(headers, body + b" ", keys)
    assert not is_genuine(headers, body, [bytes(32)])
    for name, value in [
        ("Request-Id", "another"),
        ("User-Id", "another"),
        ("Timestamp", str(int(headers["X-Fal-Webhook-Timestamp"]) + 1)),
        ("Timestamp", "1"),
        ("Timestamp", "soon"),
        ("Signature", "00" * 64),
        ("Signature", "words"),
        ("Signature", ""),
    ]:
        changed = {**headers, "X-Fal-Webhook-" + name: value}
        assert not is_genuine(changed, body, keys), (name, value)


def check_a_failure_is_told_too():
    headers, body, said = call_for(APP, {}, path="/no-such-path")
    equal((said["status"], said["error"]), ("ERROR", "Invalid status code: 404"))
    assert is_genuine(headers, body, public_keys(NODE))


def check_what_may_not_be_called_is_refused_at_once():
    for url in ["http://10.0.0.1/", "http://169.254.169.254/", "http://user@127.0.0.1/"]:
        try:
            fal_client.submit(PLAIN, {}, webhook_url=url)
        except fal_client.FalClientHTTPError as error:
            equal(error.status_code, 422)
        else:
            raise AssertionError(url)


run(globals())

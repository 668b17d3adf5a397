"""Echoes what it is sent, as slowly as it is asked to, and notes every request in a file."""

import http.server
import json
import os
import time
import urllib.parse


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0)).decode()
        url = urllib.parse.urlsplit(self.path)
        word = "cancel" if url.path.endswith("/cancel") else "run"
        with open(os.environ["LEDGER"], "a") as ledger:
            ledger.write(f"{word} {self.headers.get('x-fal-request-id')}\n")
        asked = dict(urllib.parse.parse_qsl(url.query))
        time.sleep(float(asked.get("seconds", "0")) if word == "run" else 0)
        answer = json.dumps({"echo": body, "pid": os.getpid()}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *words):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


Server(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()

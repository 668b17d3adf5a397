"""An HTTP server whose every vice can be asked for: at its start by MODE, later by path."""

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.parse

mode = os.environ.get("MODE", "good")


def leave_children():
    """A child in the group, one in a session of its own, and a daemon without a parent."""
    subprocess.Popen(["sleep", "1000"])
    subprocess.Popen(["sleep", "1000"], start_new_session=True)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execvp("sleep", ["sleep", "1000"])
        os._exit(0)
    os.wait()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body, **headers):
        if isinstance(body, dict):
            body = json.dumps(body)
        body = body.encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def raw(self, data):
        self.wfile.write(data)
        self.wfile.flush()
        self.close_connection = True

    def serve(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0)).decode()
        url = urllib.parse.urlsplit(self.path)
        asked = dict(urllib.parse.parse_qsl(url.query))
        if "LEDGER" in os.environ and url.path not in ("/health", "/cancel"):
            with open(os.environ["LEDGER"], "a") as ledger:
                ledger.write(f"{self.headers.get('x-fal-request-id')} {os.getpid()}\n")
        if "seconds" in asked:
            time.sleep(float(asked["seconds"]))
        match url.path:
            case "/health":
                if mode == "slow_health":
                    time.sleep(1)
                self.answer(500 if mode == "unhealthy" else 200, "")
            case "/crash":
                print("the app breaks down", flush=True)
                os._exit(3)
            case "/crash-once":
                try:
                    os.close(os.open(asked["marker"], os.O_CREAT | os.O_EXCL))
                except FileExistsError:
                    self.answer(200, {"survived": True})
                else:
                    os._exit(3)
            case "/garbage":
                self.raw(b"\x00\xffthis is not HTTP\r\n\r\n")
            case "/half":
                self.raw(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
            case "/broken-chunks":
                self.raw(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")
            case "/silent":
                self.raw(b"")
            case "/huge-headers":
                self.answer(200, "", **{"x-huge": "h" * 300_000})
            case "/status":
                self.answer(int(asked["code"]), {"detail": "as asked"})
            case "/children":
                leave_children()
                self.answer(200, {})
            case "/hog":
                held = [bytearray(16 << 20) for _ in range(256)]
                self.answer(200, {"bytes": sum(map(len, held))})
            case "/flood":
                for _ in range(int(asked["lines"])):
                    sys.stdout.write("a flood of words " * 16 + "\n")
                sys.stdout.flush()
                self.answer(200, {})
            case "/env":
                self.answer(200, dict(os.environ))
            case _:
                self.answer(200, {"echo": body, "path": self.path, "pid": os.getpid()})

    do_GET = do_POST = serve

    def log_message(self, *words):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def flood():
    while True:
        sys.stdout.write(("x" * 100_000 + "\n") * 8)
        sys.stderr.write("and more\n")


if mode == "exit":
    print("first words")
    print("no model here", file=sys.stderr)
    sys.exit(7)
if mode == "never":
    time.sleep(1000)
if mode == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if mode == "children":
    leave_children()
if mode == "flood":
    threading.Thread(target=flood, daemon=True).start()
if "FAIL_WHILE" in os.environ and os.path.exists(os.environ["FAIL_WHILE"]):
    sys.exit("told to fail")
time.sleep(float(os.environ.get("SETUP", "0")))
if mode != "no_port":
    Server(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()

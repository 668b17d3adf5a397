"""An HTTP server that does what its paths and queries ask for, and writes down what it was asked."""

import http.server
import json
import os
import socket
import socketserver
import sys
import threading
import time
import urllib.parse

ledger = os.environ["LEDGER"]
cancelled = set()
others = []
changed = threading.Condition()


def write_down(entry):
    with open(ledger, "a") as file:
        file.write(json.dumps(entry) + "\n")


def attempts(request, path):
    """How often a request has come so far, to any runner of the app."""
    with open(ledger) as file:
        entries = map(json.loads, file)
        return sum(entry["id"] == request and entry["path"] == path for entry in entries)


def fill_the_line():
    """Connects until nobody else can, which is when the next one is not there at once."""
    while True:
        others.append(socket.socket())
        others[-1].settimeout(0.5)
        try:
            others[-1].connect(server.server_address)
        except TimeoutError:
            return


def until_cancelled(request, seconds):
    with changed:
        return changed.wait_for(lambda: request in cancelled, seconds)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body, headers=()):
        body = (json.dumps(body) if isinstance(body, (dict, list)) else body).encode()
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def serve(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0)).decode()
        url = urllib.parse.urlsplit(self.path)
        asked = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        request = self.headers.get("x-fal-request-id")
        entry = {"id": request, "method": self.command, "path": url.path, "pid": os.getpid()}
        write_down(entry | {"caller": self.headers.get("x-fal-caller-user-id")})
        fails = attempts(request, url.path) <= int(asked.get("failures", "1000"))
        path = url.path if fails else "/echo"
        match path:
            case "/answer":
                orders = ["needs-retry", "stop-runner", "runner-hints", "billable-units"]
                headers = [(f"x-fal-{order}", asked[order]) for order in orders if order in asked]
                headers += [("location", "/elsewhere")] if asked["status"] == "302" else []
                self.answer(int(asked["status"]), {"status": asked["status"]}, headers)
            case "/headers":
                self.answer(200, {}, [("x-long", "v" * int(asked["bytes"]))])
            case "/die":
                os._exit(3)
            case "/mixed" if attempts(request, url.path) % 2 == 0:
                self.answer(504, {})
            case "/drop" | "/mixed":
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
            case "/half":
                self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
                self.close_connection = True
            case "/garbage":
                self.wfile.write(b"\x00\xffthis is not HTTP\r\n\r\n")
                self.close_connection = True
            case "/deaf":
                # Nobody can connect from now on.
                server.shutdown()
                server.socket.shutdown(socket.SHUT_RDWR)
                server.socket.close()
                self.answer(200, {"pid": os.getpid()}, [("connection", "close")])
                self.close_connection = True
            case "/full":
                # It listens on, and whoever wants to connect from now on waits for an answer.
                server.shutdown()
                server.socket.listen(0)
                fill_the_line()
                self.answer(200, {"pid": os.getpid()}, [("connection", "close")])
                self.close_connection = True
            case "/other-kind":
                # Under the address of its socket is one now that takes no connections.
                os.unlink(os.environ["GLOWPLUG_SOCKET"])
                others.append(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
                others[-1].bind(os.environ["GLOWPLUG_SOCKET"])
                self.answer(200, {"pid": os.getpid()}, [("connection", "close")])
                self.close_connection = True
            case "/job":
                stopped = until_cancelled(request, 60)
                write_down({"id": request, "method": "END", "path": url.path, "pid": os.getpid()})
                self.answer(499 if stopped else 200, {"stopped": stopped})
            case "/job/cancel":
                with changed:
                    cancelled.add(request)
                    changed.notify_all()
                self.answer(200, {})
            case "/gate":
                # Cannot be cancelled, and ends when the test says so.
                while not os.path.exists(asked["file"]):
                    time.sleep(0.01)
                write_down({"id": request, "method": "END", "path": url.path, "pid": os.getpid()})
                hints = [("x-fal-runner-hints", asked["hints"])] if "hints" in asked else []
                self.answer(200, {"passed": True, "pid": os.getpid()}, hints)
            case "/work":
                time.sleep(float(asked["seconds"]))
                self.answer(200, {"pid": os.getpid()})
            case "/say":
                print(asked["words"], flush=True)
                self.answer(200, {"said": asked["words"]})
            case path if path.endswith("/cancel"):
                self.answer(404, {"detail": "nothing here"})
            case _:
                headers = sorted([name.lower(), value] for name, value in self.headers.items())
                seen = entry | {"target": self.path, "headers": headers, "body": body}
                self.answer(200, seen)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = serve

    def log_message(self, *words):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


class UnixServer(Server):
    address_family = socket.AF_UNIX

    def server_bind(self):
        socketserver.TCPServer.server_bind(self)


if "NEVER" in os.environ:
    time.sleep(1000)
if "BROKEN" in os.environ:
    sys.exit("no model here")
if "GLOWPLUG_SOCKET" in os.environ:
    server = UnixServer(os.environ["GLOWPLUG_SOCKET"], Handler)
else:
    server = Server(("127.0.0.1", int(os.environ["PORT"])), Handler)
server.serve_forever()
# It is deaf: what is left is to wait for the end.
time.sleep(1000)

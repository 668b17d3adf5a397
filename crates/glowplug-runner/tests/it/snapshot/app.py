"""A runner's program whose memory is captured: it serves HTTP on a unix socket and holds what it is told to.

    app.py RUNTIME_DIR WORD...

`threads`, `child`, `daemon`, `timer`, `inotify`, `epoll`, `listener`, `connected PORT`, `deleted-file`,
`memory MIB`, `no-control`, `refuses`, `forgets`.
"""

import ctypes
import http.server
import json
import os
import random
import select
import signal
import socket
import socketserver
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import uuid

sys.path.insert(0, sys.argv[1])
import serve_snapshot  # noqa: E402

words = sys.argv[2:]
ticks = [0]
held = []
secret = random.randbytes(16).hex()
told = []


class Hooks:
    def before_snapshot(self):
        if "refuses" in words:
            raise RuntimeError("not now")
        told.append("before")

    def after_restore(self):
        if "forgets" in words:
            raise RuntimeError("everything is gone")
        told.append("after")


def tick(*_):
    ticks[0] += 1


def tick_for_ever():
    while True:
        time.sleep(0.02)
        tick()


def hold(words):
    rest = iter(words)
    for word in rest:
        if word == "threads":
            for _ in range(5):
                threading.Thread(target=tick_for_ever, daemon=True).start()
        elif word == "child":
            held.append(subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        elif word == "daemon":
            subprocess.run(["sh", "-c", "sleep 600 >/dev/null 2>&1 &"], check=True)
        elif word == "timer":
            signal.signal(signal.SIGALRM, tick)
            signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
        elif word == "inotify":
            library = ctypes.CDLL(None)
            watch = library.inotify_init1(0)
            library.inotify_add_watch(watch, os.getcwd().encode(), 0x100)
            held.append(watch)
        elif word == "epoll":
            reader, writer = os.pipe()
            poll = select.epoll()
            poll.register(reader, select.EPOLLIN)
            held.append((poll, reader, writer))
        elif word == "listener":
            held.append(socket.create_server(("127.0.0.1", 0)))
        elif word == "connected":
            held.append(socket.create_connection(("127.0.0.1", int(next(rest)))))
        elif word == "deleted-file":
            file = tempfile.TemporaryFile()
            file.write(b"kept")
            file.flush()
            held.append(file)
        elif word == "memory":
            held.append(random.randbytes(int(next(rest)) << 20))


def works():
    """Whether what is held still does what it is there for."""
    for word, thing in zip([w for w in words if w in ("child", "inotify", "epoll", "listener", "deleted-file")], held):
        if word == "child":
            thing.stdin.write(b"x\n")
            thing.stdin.flush()
            if thing.stdout.readline() != b"x\n":
                return "its child does not answer"
        elif word == "inotify":
            with tempfile.NamedTemporaryFile(dir=os.getcwd()):
                if not select.select([thing], [], [], 5)[0]:
                    return "no event"
        elif word == "epoll":
            os.write(thing[2], b"x")
            if not thing[0].poll(5):
                return "no event"
            os.read(thing[1], 1)
        elif word == "listener":
            socket.create_connection(thing.getsockname()).close()
            thing.accept()[0].close()
        elif word == "deleted-file":
            thing.seek(0)
            if thing.read() != b"kept":
                return "the file has changed"
    before, deadline = ticks[0], time.monotonic() + 5
    while ("threads" in words or "timer" in words) and ticks[0] == before:
        if time.monotonic() > deadline:
            return "no tick"
        time.sleep(0.005)
    return "yes"


def state():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        context.wrap_bio(incoming, outgoing).do_handshake()
    except ssl.SSLWantReadError:
        pass
    hello = outgoing.read()
    return {
        "secret": secret,
        "pid": os.getpid(),
        "told": told,
        "works": works(),
        "runner": os.environ.get("TEST_RUNNER"),
        "fresh": {
            "random": random.random(),
            "uuid1": str(uuid.uuid1()),
            "uuid4": str(uuid.uuid4()),
            "urandom": os.urandom(16).hex(),
            "rand_bytes": ssl.RAND_bytes(16).hex(),
            # The random bytes and the session's id of a first message.
            "tls": hello[11:76].hex(),
            "name": next(tempfile._get_candidate_names()),
        },
    }


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps(state()).encode()
        print("served", flush=True)
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def address_string(self):
        return "-"

    def log_message(self, *_):
        pass


class Server(socketserver.UnixStreamServer):
    def get_request(self):
        request, _ = super().get_request()
        return request, ("-", 0)


# Drawn from once, so that a restored process would go on where this one was.
state()
hold(words)
server = Server(os.environ["GLOWPLUG_SOCKET"], Handler)
if "GLOWPLUG_CONTROL_SOCKET" in os.environ and "no-control" not in words:
    serve_snapshot.Control(os.environ["GLOWPLUG_CONTROL_SOCKET"], Hooks()).start()
print("ready", flush=True)
server.serve_forever()

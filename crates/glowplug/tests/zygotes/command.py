"""A server without any framework that lets its runners be forked: `command.py` serves, `command.py zygote` forks.

All that docs/reference/zygote.md asks for, for one runner after the other. A third argument names what it does wrong.
"""

import array
import http.server
import json
import os
import select
import signal
import socket
import sys

LOADED_BY = os.getpid()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.path == "/exit":
            os._exit(7)
        answer = {"pid": os.getpid(), "loaded_by": LOADED_BY, "greeting": os.environ["GREETING"]}
        answer["user"] = os.geteuid()
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST


def serve():
    print("serving", flush=True)
    http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()


def request_of(connection):
    data, descriptors = b"", array.array("i")
    while not data.endswith(b"\n"):
        chunk, extra, _, _ = connection.recvmsg(65536, socket.CMSG_SPACE(16 * 4))
        for _, _, content in extra:
            descriptors.frombytes(content)
        if not chunk:
            return None, []
        data += chunk
    return json.loads(data), list(descriptors)


def tell(connection, message):
    connection.sendall(json.dumps(message).encode() + b"\n")


def become(connection, request, descriptors):
    os.setsid()
    for door in descriptors[2:]:
        os.write(door, b"0")
    if not connection.recv(64):
        os._exit(0)
    os.dup2(descriptors[0], 1)
    os.dup2(descriptors[1], 2)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    tell(connection, {"started": True})
    connection.close()
    serve()


def zygote():
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.environ["GLOWPLUG_SOCKET"])
    listener.listen()
    fault, waiting = " ".join(sys.argv[2:]), []
    while True:
        connection, _ = listener.accept()
        request, descriptors = request_of(connection)
        if request is None or "argv" not in request:
            connection.close()
            continue
        if fault == "dies":
            os._exit(1)
        if fault == "closes":
            connection.close()
            continue
        if fault == "babbles":
            connection.sendall(b"not a message\n")
        if fault == "names another":
            # A process that is not its child: its own supervisor.
            tell(connection, {"pid": os.getppid()})
        if fault == "says nothing":
            waiting.append(connection)
            continue
        pid = os.fork()
        if pid == 0:
            listener.close()
            if fault == "runner dies":
                os._exit(1)
            become(connection, request, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        tell(connection, {"pid": pid})
        watch(connection, pid)


def watch(connection, pid):
    """Until the runner has ended, or must."""
    runner, gone = os.pidfd_open(pid), select.poll()
    gone.register(connection, 0)
    gone.register(runner, select.POLLIN)
    if any(number == connection.fileno() for number, _ in gone.poll()):
        os.killpg(pid, signal.SIGKILL)
    ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    kind = "code" if ended.si_code == os.CLD_EXITED else "signal"
    try:
        tell(connection, {"exited": {kind: ended.si_status}})
        gone.unregister(runner)
        gone.poll()
    except OSError:
        pass
    os.waitpid(pid, 0)
    os.close(runner)
    connection.close()


if sys.argv[1:2] == ["zygote"]:
    zygote()
else:
    serve()

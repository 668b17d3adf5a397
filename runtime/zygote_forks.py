"""Forks this process for whoever asks on a unix socket. The protocol is told in docs/reference/zygote.md.

One connection is one fork:

```text
supervisor                                zygote                        runner
  {argv, cwd, env} + stdout, stderr,  →   forks  ───────────────────►  enters the groups, waits
                    doors of its groups
                                      ←   {pid}
  {go}                                →                                 takes over env, cwd, outputs
                                      ←                                 {started}
                                      ←   {exited: {code | signal}}     ends
  closes                              →   reaps it; kills it first if it still runs
```

`{retire}` on a connection of its own, and SIGTERM, let the zygote end when its last runner has ended.

The one loop has one thread. It holds a runner's pid until the supervisor has closed the connection, so that no
other process can be mistaken for it. Limits: `CONNECTIONS_MAX`, `REQUEST_BYTES_MAX`, `DESCRIPTORS_MAX`.
"""

import array
import ctypes
import gc
import json
import os
import select
import signal
import socket as sockets
import sys

CONNECTIONS_MAX = 1024
REQUEST_BYTES_MAX = 4 << 20
# Two outputs, and one door for each hierarchy of control groups.
DESCRIPTORS_MAX = 16
READ_BYTES = 256 << 10

PR_SET_PDEATHSIG = 1
CLOSE_ON_EXEC = getattr(sockets, "MSG_CMSG_CLOEXEC", 0x40000000)
# What a runner's supervisor knows as "could not begin"; told before anything of the app has run.
EXIT_NOT_BEGUN = 70


class Connection:
    """One supervisor, from its request to its end."""

    def __init__(self, stream):
        self.stream = stream
        self.input = bytearray()
        self.descriptors = []
        self.pid = None
        # Its end was told, its pid is held.
        self.is_told = False
        # Nobody wants to know of its end: it is reaped when it comes.
        self.is_let_go = False

    def close_descriptors(self):
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors = []

    def tell(self, message):
        try:
            self.stream.send(json.dumps(message).encode() + b"\n")
        except OSError:
            # It is gone, or does not read: its end is seen by the loop.
            pass


class Forks:
    def __init__(self, path, kept):
        self.path = path
        self.kept = kept
        self.pid = os.getpid()
        self.prctl = ctypes.CDLL(None, use_errno=True).prctl
        # Those who may ask: supervisors are run by whom this process's own is.
        self.users = {0, user_of(os.getppid())}
        self.connections = {}
        self.poll = select.poll()
        self.is_retiring = False
        self.wakeup_reader, self.wakeup_writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(self.wakeup_writer, warn_on_full_buffer=False)
        # What the app's modules have set comes back in each runner.
        self.handlers = {
            signal.SIGCHLD: signal.signal(signal.SIGCHLD, lambda *_: None),
            signal.SIGTERM: signal.signal(signal.SIGTERM, lambda *_: self.retire()),
        }
        self.poll.register(self.wakeup_reader, select.POLLIN)
        self.listener = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
        self.listener.setblocking(False)
        self.listener.bind(path)
        self.listener.listen(CONNECTIONS_MAX)
        self.poll.register(self.listener, select.POLLIN)

    def run(self):
        """Returns the request of a runner, in that runner. Ends the process that is the zygote."""
        while not (self.is_retiring and not self.connections):
            for number, events in self.poll.poll():
                if number == self.wakeup_reader:
                    self.reap()
                elif self.listener is not None and number == self.listener.fileno():
                    self.accept()
                elif number in self.connections:
                    request = self.serve(self.connections[number], events)
                    if request is not None:
                        return request
        os._exit(0)

    def retire(self):
        if os.getpid() != self.pid:
            # A signal to a runner that is only just beginning.
            os._exit(EXIT_NOT_BEGUN)
        self.is_retiring = True
        if self.listener is not None:
            self.poll.unregister(self.listener)
            self.listener.close()
            self.listener = None
            try:
                os.unlink(self.path)
            except OSError:
                pass

    def accept(self):
        try:
            stream, _ = self.listener.accept()
        except OSError:
            return
        if len(self.connections) >= CONNECTIONS_MAX or user_of_peer(stream) not in self.users:
            stream.close()
            return
        stream.setblocking(False)
        self.connections[stream.fileno()] = Connection(stream)
        self.poll.register(stream, select.POLLIN)

    def serve(self, connection, events):
        """`None`, or the request of the runner that this process has become."""
        if connection.pid is not None:
            if events & (select.POLLHUP | select.POLLERR):
                self.let_go(connection)
            return None
        try:
            line = self.read_line(connection)
        except (OSError, ValueError):
            self.close(connection)
            return None
        if line is None:
            return None
        try:
            request = json.loads(line)
        except ValueError:
            request = None
        if not isinstance(request, dict):
            self.close(connection)
        elif request.get("retire"):
            connection.tell({"retiring": True})
            self.close(connection)
            self.retire()
        elif self.listener is None or len(connection.descriptors) < 2:
            connection.tell({"failed": "it retires" if self.listener is None else "no outputs were passed"})
            self.close(connection)
        else:
            return self.fork(connection, request)
        return None

    def read_line(self, connection):
        """The request without its end, once it is complete. Raises when the peer is gone or talks nonsense."""
        try:
            size = sockets.CMSG_SPACE(DESCRIPTORS_MAX * array.array("i").itemsize)
            chunk, extra, _, _ = connection.stream.recvmsg(READ_BYTES, size, CLOSE_ON_EXEC)
        except (BlockingIOError, InterruptedError):
            return None
        for level, kind, content in extra:
            if (level, kind) == (sockets.SOL_SOCKET, sockets.SCM_RIGHTS):
                numbers = array.array("i")
                numbers.frombytes(content[: len(content) - len(content) % numbers.itemsize])
                connection.descriptors.extend(numbers)
        too_much = len(connection.input) + len(chunk) > REQUEST_BYTES_MAX
        if not chunk or too_much or len(connection.descriptors) > DESCRIPTORS_MAX:
            raise ValueError("no request")
        connection.input += chunk
        line, newline, _ = connection.input.partition(b"\n")
        return bytes(line) if newline else None

    def fork(self, connection, request):
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            pid = os.fork()
        except OSError as error:
            connection.tell({"failed": "it cannot fork: %s" % error.strerror})
            self.close(connection)
            return None
        if pid == 0:
            return self.begin(connection, request, os.getppid())
        connection.pid = pid
        connection.input = bytearray()
        connection.close_descriptors()
        # What the supervisor says now is for the runner; only its end matters here.
        self.poll.modify(connection.stream, 0)
        connection.tell({"pid": pid})
        return None

    def begin(self, connection, request, zygote):
        """In the runner: becomes what the supervisor wants, or ends."""
        try:
            # Its end is the runner's: nobody else would reap it and know how it ended.
            self.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            os.setsid()
            signal.set_wakeup_fd(-1)
            for signum, handler in self.handlers.items():
                signal.signal(signum, signal.SIG_DFL if handler is None else handler)
            for descriptor in (self.wakeup_reader, self.wakeup_writer):
                os.close(descriptor)
            self.listener.close()
            for other in self.connections.values():
                if other is not connection:
                    other.stream.close()
                    other.close_descriptors()
            for door in connection.descriptors[2:]:
                try:
                    os.write(door, b"0")
                except OSError:
                    # Whoever stays outside is moved by the supervisor.
                    pass
            if not wait_for_go(connection.stream) or os.getppid() != zygote:
                os._exit(EXIT_NOT_BEGUN)
            self.take_over(connection, request)
            connection.tell({"started": True})
            connection.stream.close()
            return request
        except BaseException as error:
            connection.tell({"failed": "%s: %s" % (type(error).__name__, error)})
            os._exit(EXIT_NOT_BEGUN)

    def take_over(self, connection, request):
        stdout, stderr = connection.descriptors[:2]
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        connection.close_descriptors()
        self.kept.restore(request["env"], request["cwd"])

    def reap(self):
        try:
            os.read(self.wakeup_reader, 512)
        except OSError:
            pass
        for connection in list(self.connections.values()):
            if connection.pid is not None:
                self.reap_one(connection)

    def reap_one(self, connection):
        if connection.is_let_go:
            pid, _ = os.waitpid(connection.pid, os.WNOHANG)
            if pid:
                self.close(connection)
        elif not connection.is_told:
            ended = os.waitid(os.P_PID, connection.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is not None:
                connection.is_told = True
                is_code = ended.si_code == os.CLD_EXITED
                connection.tell({"exited": {"code" if is_code else "signal": ended.si_status}})

    def let_go(self, connection):
        """Its supervisor has gone: so does the runner, and only now its pid is free for others."""
        self.poll.unregister(connection.stream)
        connection.is_let_go = True
        if not connection.is_told:
            for kill in (os.killpg, os.kill):
                try:
                    kill(connection.pid, signal.SIGKILL)
                except OSError:
                    # It has no group of its own yet, or has just ended.
                    pass
        self.reap_one(connection)

    def close(self, connection):
        connection.close_descriptors()
        if not connection.is_let_go:
            self.poll.unregister(connection.stream)
        del self.connections[connection.stream.fileno()]
        connection.stream.close()


def user_of_peer(stream):
    """Of `struct ucred`: the process, its user, its group."""
    size = 3 * array.array("I").itemsize
    return array.array("I", stream.getsockopt(sockets.SOL_SOCKET, sockets.SO_PEERCRED, size))[1]


def user_of(pid):
    """The effective user of a process; this one's own where that is hidden."""
    try:
        with open("/proc/%d/status" % pid) as file:
            for line in file:
                if line.startswith("Uid:"):
                    return int(line.split()[2])
    except OSError:
        pass
    return os.geteuid()


def wait_for_go(stream):
    """`False`: the supervisor has changed its mind."""
    waiting = select.poll()
    waiting.register(stream, select.POLLIN)
    said = b""
    while b"\n" not in said:
        waiting.poll()
        try:
            chunk = stream.recv(64)
        except (BlockingIOError, InterruptedError):
            continue
        if not chunk:
            return False
        said += chunk
    return said.startswith(b'{"go"')


def serve(path, kept):
    """Serves forks until the end; returns the request that this process was forked for. `kept`: what imports
    have put into this process, restored in each runner."""
    forks = Forks(path, kept)
    gc.freeze()
    return forks.run()

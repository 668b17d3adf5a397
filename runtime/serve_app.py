"""Serves one pickled fal app on a unix socket or a loopback port.

Runs inside the app's own environment, which holds no `fal`: the app was pickled by value together with
the parts of `fal` that it uses. Standard library only, so that it runs in every environment.

    python -I -c BOOT RUNTIME_DIR --app app.pickle [--first-path DIR]... [--path DIR]...

Where to listen comes from the environment: `GLOWPLUG_SOCKET` (a path; the metrics go to the same path with
`.metrics` added) or `PORT` (always on 127.0.0.1; the metrics server is then off). With `GLOWPLUG_TIMELINE`
(a path) every stage of the start is appended to that file as one JSON line. With `GLOWPLUG_MODULES` (a path)
the modules that serving and `setup()` have imported are written there once the app listens. With `GLOWPLUG_PYTHON`
(`3.11`) another Python refuses to begin: the pickle would mean nothing to it.

What it does not do: it limits no concurrency, watches no health, restarts nothing. The node does.

What it changes in the app's surroundings, always to start sooner or to stay on this machine, and how each
change ends:

* the garbage collector is off until `setup()`;
* `grpc`, which the pickle names but a local app never calls, is imported at its first use;
* fastapi's models of OpenAPI documents compile their validators at their first use;
* fastapi asks whether a class is a model of pydantic's old interface without importing that interface;
* the list of installed packages that fal prints before `setup()` is read without a full parse;
* uvicorn's two servers (the app's and the metrics') listen where we say; only the app's takes signals;
* uvicorn writes no line per request: the node keeps what an app prints during a request as that request's
  log, which its caller reads.

Each change is skipped by itself where a library looks different from what is expected here.
"""

import gc

gc.disable()

import os  # noqa: E402
import sys  # noqa: E402

if "GLOWPLUG_CONTROL_SOCKET" in os.environ:
    import serve_snapshot  # noqa: E402

from serve_faster import hasten_package_list, skip_old_pydantic  # noqa: E402
from serve_load import load  # noqa: E402
from serve_report import (  # noqa: E402
    EXIT_LOAD,
    EXIT_SETUP,
    EXIT_TERMINATED,
    EXIT_USAGE,
    Learning,
    Timeline,
    complain,
)

# Numbers no port can have: should uvicorn ever ignore where we tell it to listen, it fails instead of
# listening on every interface.
APP_PORT = 100_001
METRICS_PORT = 100_002

LOOPBACK = "127.0.0.1"
# `sun_path` holds 108 bytes with its terminating zero.
SOCKET_PATH_BYTES_MAX = 107


class Listen:
    """Where the two servers of a fal app listen."""

    def __init__(self, socket, port):
        self.socket = socket
        self.port = port
        self.metrics_socket = socket + ".metrics" if socket else None

    @classmethod
    def from_environment(cls, environ):
        socket, port = environ.get("GLOWPLUG_SOCKET"), environ.get("PORT")
        if socket:
            if len(os.fsencode(socket + ".metrics")) > SOCKET_PATH_BYTES_MAX:
                complain(
                    "the socket path %s is longer than the %d bytes a unix socket may have; "
                    "choose a shorter data directory" % (socket, SOCKET_PATH_BYTES_MAX)
                )
                sys.exit(EXIT_USAGE)
            return cls(socket, None)
        if port and port.isdigit() and 0 < int(port) < 65536:
            return cls(None, int(port))
        complain("set GLOWPLUG_SOCKET to a path or PORT to a port from 1 to 65535")
        sys.exit(EXIT_USAGE)

    def remove_sockets(self):
        for path in (self.socket, self.metrics_socket):
            if path:
                try:
                    os.unlink(path)
                except OSError:
                    pass


class Serving:
    """Directs uvicorn and watches it: which server is the app's, whether it started."""

    def __init__(self, listen, timeline):
        self.listen = listen
        self.timeline = timeline
        self.learning = Learning(os.environ.get("GLOWPLUG_MODULES"))
        self.app_server = None
        self.signals_taken = False

    def confine(self):
        """Makes uvicorn listen where we say, and only there."""
        import uvicorn

        self.direct_config(uvicorn.Config)
        self.watch_server(uvicorn.Server)

    def direct_config(self, config_class):
        listen = self.listen
        initialise, load = config_class.__init__, config_class.load

        def __init__(config, *args, **kwargs):
            initialise(config, *args, **kwargs)
            config.glowplug_role = {APP_PORT: "app", METRICS_PORT: "metrics"}.get(config.port)
            if config.glowplug_role is None:
                return
            config.host = LOOPBACK
            if config.glowplug_role == "metrics":
                config.uds = listen.metrics_socket
                # It has nothing to set up, and would complain in the log when it is cancelled.
                config.lifespan = "off"
            elif listen.port:
                config.port = listen.port
            else:
                config.uds = listen.socket

        def load_app(config):
            load(config)
            if getattr(config, "glowplug_role", None) != "app":
                return
            silence_access_log()
            if config.uds:
                config.loaded_app = with_client_address(config.loaded_app)

        config_class.__init__ = __init__
        config_class.load = load_app

    def watch_server(self, server_class):
        serve, startup = server_class.serve, server_class.startup

        async def serve_role(server, *args, **kwargs):
            role = getattr(server.config, "glowplug_role", None)
            if role == "metrics":
                import asyncio
                import contextlib

                if self.listen.metrics_socket is None:
                    # The app's task cancels this one when the app's server has ended.
                    await asyncio.Event().wait()
                # Otherwise the metrics server, started last, would take SIGTERM first, and the app would
                # hear of it only after that server has closed.
                server.capture_signals = contextlib.nullcontext
            elif role == "app":
                self.app_server = server
                self.signals_taken = True
            return await serve(server, *args, **kwargs)

        async def startup_marked(server, *args, **kwargs):
            if server is self.app_server:
                self.mark_lifespan(server.lifespan)
            await startup(server, *args, **kwargs)
            if server is self.app_server and server.started:
                self.timeline.mark("listening")
                self.offer_snapshots()
                self.learning.write()

        server_class.serve = serve_role
        server_class.startup = startup_marked

    def offer_snapshots(self):
        """Where this process may be captured, it is told of it."""
        path = os.environ.get("GLOWPLUG_CONTROL_SOCKET")
        if path:
            serve_snapshot.offer(path, self.app_server.config.app, self.timeline)

    def mark_lifespan(self, lifespan):
        startup = lifespan.startup

        async def startup_marked():
            self.timeline.mark("imported")
            # What was made so far lives as long as the process: the collector need not look at it again.
            gc.freeze()
            gc.enable()
            self.timeline.mark("setup_started")
            self.learning.setup_begins()
            await startup()
            if not lifespan.should_exit:
                self.timeline.mark("setup_done")

        lifespan.startup = startup_marked

    def on_signal(self, signum, _frame):
        """uvicorn raises the signal again once it has shut down in good order; then it is done with."""
        if not self.signals_taken:
            sys.exit(EXIT_TERMINATED)


def silence_access_log():
    import logging

    # As uvicorn itself does for `access_log=False`, which it reads before it is told what it serves.
    logger = logging.getLogger("uvicorn.access")
    logger.handlers = []
    logger.propagate = False


def with_client_address(app):
    """A unix socket has no peer address, but apps read `request.client.host`: say it is this machine."""

    def with_address(scope, receive, send):
        if scope.get("client") is None and scope["type"] != "lifespan":
            scope["client"] = (LOOPBACK, 0)
        return app(scope, receive, send)

    return with_address


def serve(function, serving):
    """Runs the app to its end; returns the exit code."""
    import asyncio
    import inspect
    import signal

    serving.confine()
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, serving.on_signal)
    result = function(exposed_port=APP_PORT, exposed_metrics_port=METRICS_PORT)
    if inspect.isawaitable(result):

        async def finish():
            return await result

        asyncio.run(finish())
    server = serving.app_server
    if server is None:
        complain("this is not an app that serves: a `fal.function` needs `serve=True`")
        return EXIT_LOAD
    if not server.started:
        return EXIT_SETUP
    return 0


def parse(arguments):
    app, first, last = None, [], []
    rest = list(arguments)
    while len(rest) >= 2:
        flag, value = rest.pop(0), rest.pop(0)
        if flag == "--app":
            app = value
        elif flag == "--path":
            last.append(value)
        elif flag == "--first-path":
            first.append(value)
        else:
            rest.insert(0, flag)
            break
    if rest or app is None:
        complain("usage: serve_app --app PICKLE [--first-path DIR]... [--path DIR]...")
        sys.exit(EXIT_USAGE)
    return app, first, last


def main(arguments):
    timeline = Timeline(os.environ.get("GLOWPLUG_TIMELINE"))
    timeline.mark("interpreter")
    listen = Listen.from_environment(os.environ)
    function = load_app(arguments)
    timeline.mark("unpickled")
    hasten_package_list()
    skip_old_pydantic()
    sys.exit(run(function, listen, timeline))


def load_app(arguments):
    """Imports the app; ends the process with a reason if that is not possible."""
    app, first, last = parse(arguments)
    wanted, have = os.environ.get("GLOWPLUG_PYTHON"), "%d.%d" % sys.version_info[:2]
    if wanted not in (None, have):
        complain(
            "the image has Python %s, and the app was read with %s, which is no use to it: set the app's "
            "`python_version` to \"%s\", or install Python %s in the image" % (have, wanted, have, wanted)
        )
        sys.exit(EXIT_LOAD)
    os.environ["IS_ISOLATE_AGENT"] = "1"
    sys.path[:] = first + sys.path + last
    return load(app)


def run(function, listen, timeline):
    """Serves the imported app to its end; returns the exit code."""
    serving = Serving(listen, timeline)
    try:
        code = serve(function, serving)
    except SystemExit as error:
        code = error.code
        if code == EXIT_SETUP:
            complain("the app's setup failed; what it raised is printed above")
    except Exception as error:
        import traceback

        traceback.print_exc()
        cause = error.__cause__ or error
        complain("the app could not be started: %s: %s" % (type(cause).__name__, cause))
        code = EXIT_SETUP
    finally:
        listen.remove_sockets()
    return code

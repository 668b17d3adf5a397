"""Lets this process be captured, and takes up what it has missed when it is restored.

It listens on the socket that GLOWPLUG_CONTROL_SOCKET names. Each connection brings one question, a line of
JSON, and gets one answer, `{"done": true}` or `{"failed": "why"}`; then it is closed. What an app has of its
own to do at these moments it does in its methods `before_snapshot` and `after_restore`.
"""

import json
import os
import socket
import sys
import threading

# The longest question; above all the environment.
QUESTION_BYTES_MAX = 8 << 20
# In an answer, of what an app has raised.
FAILURE_CHARS_MAX = 2000
BACKLOG = 4
# Around an app's lifespan.
LAYERS_MAX = 16


class Control:
    """Answers on the control socket, from a thread of its own. `hooks` holds methods of the same names as the
    questions; what they raise is the answer."""

    def __init__(self, path, hooks):
        self.hooks = hooks
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(path)
        self.listener.listen(BACKLOG)

    def start(self):
        threading.Thread(target=self.answer_all, name="glowplug-control", daemon=True).start()

    def answer_all(self):
        while True:
            connection, _ = self.listener.accept()
            with connection:
                try:
                    connection.sendall(json.dumps(self.answer(connection)).encode() + b"\n")
                except OSError:
                    # Whoever asked has gone.
                    pass

    def answer(self, connection):
        try:
            with connection.makefile("rb") as file:
                question = json.loads(file.readline(QUESTION_BYTES_MAX))
            if question["do"] == "before_snapshot":
                self.hooks.before_snapshot()
            elif question["do"] == "after_restore":
                refresh(question["env"])
                self.hooks.after_restore()
            else:
                return {"failed": "there is no such question"}
            return {"done": True}
        except BaseException as error:
            import traceback

            traceback.print_exc()
            return {"failed": ("%s: %s" % (type(error).__name__, error))[:FAILURE_CHARS_MAX]}


def refresh(env):
    """Makes this process another than those that were restored from the same memory."""
    # What the app has set to something else by itself stays.
    unchanged = {name for name, value in BEGAN_WITH.items() if os.environ.get(name) == value}
    for name in unchanged - set(env) - KEPT:
        del os.environ[name]
    for name, value in env.items():
        # Secrets are new.
        if name in unchanged or name not in BEGAN_WITH:
            os.environ[name] = value
    BEGAN_WITH.clear()
    BEGAN_WITH.update(env)
    reseed()


# The environment that this process was started with, or restored with last.
BEGAN_WITH = dict(os.environ)


# What a program has put into its environment by itself, and goes on to need.
KEPT = frozenset(("IS_ISOLATE_AGENT", "FAL_RUNNER_STATE", "LC_CTYPE"))


def reseed():
    """Gives every generator that is known here a state that no other process has."""
    import random

    random.seed()
    numpy = sys.modules.get("numpy.random")
    if numpy is not None:
        numpy.seed(int.from_bytes(os.urandom(4), "little"))
    tempfile = sys.modules.get("tempfile")
    if tempfile is not None:
        tempfile._name_sequence = None
    uuid = sys.modules.get("uuid")
    if uuid is not None:
        # Version 1 counts on from what the library in C remembers: let Python draw the sequence instead.
        uuid._last_timestamp = None
        uuid._generate_time_safe = None
    ssl = sys.modules.get("ssl")
    if ssl is not None:
        # It tells a copied process by its pid, which is the same here.
        ssl.RAND_add(os.urandom(64), 64.0)


class AppHooks:
    """The hooks of a fal app, if it has them."""

    def __init__(self, app, timeline):
        self.app = app
        self.timeline = timeline

    def before_snapshot(self):
        call(self.app, "before_snapshot")
        sys.stdout.flush()
        sys.stderr.flush()
        # The file of this start is not the next one's.
        self.timeline.close()

    def after_restore(self):
        self.timeline.open(os.environ.get("GLOWPLUG_TIMELINE"))
        call(self.app, "after_restore")
        self.timeline.mark("restored")


def app_behind(served):
    """The object whose methods a FastAPI application serves: the one that its lifespan belongs to."""
    context = getattr(getattr(served, "router", None), "lifespan_context", None)
    seen = [context]
    for found in seen:
        owner = getattr(found, "__self__", None)
        if owner is not None and callable(getattr(owner, "setup", None)):
            return owner
        cells = getattr(found, "__closure__", None) or ()
        # What a framework has wrapped around it, a few layers deep at most.
        seen.extend(cell.cell_contents for cell in cells[:LAYERS_MAX] if len(seen) < LAYERS_MAX)
    return None


def call(app, name):
    """Also what is a coroutine; it gets a loop of its own, since the app's may be at work."""
    method = getattr(app, name, None)
    if not callable(method):
        return
    result = method()
    import inspect

    if inspect.isawaitable(result):
        import asyncio

        async def finish():
            return await result

        asyncio.run(finish())


def offer(path, served, timeline):
    """Listens for questions on behalf of the app that is served."""
    Control(path, AppHooks(app_behind(served), timeline)).start()

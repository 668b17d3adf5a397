"""Apps whose starts are forked from zygotes, or cannot be."""

import os
import random
import signal
import sys
import tempfile
import threading
import uuid

import fal
import keeps
import restless
from pydantic import BaseModel


OF_ONE_RUNNER = {
    "FAL_JOB_ID",
    "GLOWPLUG_MODULES",
    "GLOWPLUG_RUNNER",
    "GLOWPLUG_RUNNER_ID",
    "GLOWPLUG_SOCKET",
    "GLOWPLUG_TIMELINE",
}


class Sum(BaseModel):
    total: float


class Chance(fal.App, keep_alive=600, max_concurrency=30):
    requirements = ["numpy==2.2.6"]

    def setup(self):
        # Imported here, as large libraries usually are: a zygote learns of it from the first start.
        import numpy

        self.numpy = numpy
        self.token = os.environ.get("TOKEN")
        print("set up with", os.environ.get("GREETING"), flush=True)

    @fal.endpoint("/")
    def add(self) -> Sum:
        return Sum(total=float(self.numpy.arange(10).sum()))

    @fal.endpoint("/chance")
    def chance(self) -> dict:
        import secrets
        import time

        # Long enough for as many runners as there are calls.
        time.sleep(3)
        with tempfile.NamedTemporaryFile() as file:
            name = file.name
        return {
            "uuid4": str(uuid.uuid4()),
            "urandom": os.urandom(16).hex(),
            "secrets": secrets.token_hex(16),
            "random": repr(random.random()),
            "numpy": repr(float(self.numpy.random.random())),
            "temporary": name,
            "client": str(tempfile.mkdtemp()),
        }

    @fal.endpoint("/surroundings")
    def surroundings(self) -> dict:
        import resource

        return {
            "group": os.getpgrp() == os.getpid(),
            "cwd": os.getcwd(),
            "env": {name: value for name, value in os.environ.items() if name not in OF_ONE_RUNNER},
            "token_at_setup": self.token,
            "argv": sys.argv[2:],
            "child_signal": str(signal.getsignal(signal.SIGCHLD)),
            "outputs": [os.readlink("/proc/self/fd/%d" % fd)[:5] for fd in (1, 2)],
            "open_files": resource.getrlimit(resource.RLIMIT_NOFILE),
            "uid": os.getuid(),
        }

    @fal.endpoint("/hog")
    def hog(self) -> dict:
        return {"bytes": sum(bytearray(b"x") * (1 << 30))}

    @fal.endpoint("/leave")
    def leave(self) -> dict:
        """Leaves children: one in a session of its own, and one that was forked and runs no other program."""
        import subprocess
        import time

        subprocess.Popen(["sleep", "1000"], start_new_session=True)
        if os.fork() == 0:
            os.setsid()
            time.sleep(1000)
        return {"pid": os.getpid()}


class Threads(fal.App, keep_alive=600):
    app_files = ["restless.py"]

    @fal.endpoint("/")
    def threads(self) -> dict:
        return {"threads": threading.active_count(), "worker": restless.worker.is_alive()}


class LateThreads(fal.App, keep_alive=600):
    requirements = ["numpy==2.2.6"]
    app_files = ["restless.py"]

    def setup(self):
        import numpy
        import restless

        self.total = int(numpy.arange(5).sum())
        self.worker = restless.worker

    @fal.endpoint("/")
    def threads(self) -> dict:
        return {"total": self.total, "worker": self.worker.is_alive()}


class Broken(fal.App, keep_alive=600):
    def setup(self):
        if os.path.exists(os.environ["BREAKS"]):
            raise RuntimeError("no model in the shop")

    @fal.endpoint("/")
    def work(self) -> dict:
        return {}


class Keeps(fal.App, keep_alive=600):
    requirements = ["numpy==2.2.6"]
    app_files = ["keeps.py"]

    def setup(self):
        self.keeps = keeps.KEEPS

    @fal.endpoint("/")
    def look(self) -> dict:
        return {"keeps": self.keeps}

    @fal.endpoint("/kept")
    def kept(self) -> dict:
        import numpy

        return {
            "marked": os.environ.get("MARKED"),
            "dropped": os.environ.get("DROPPED"),
            "locale": os.environ.get("LC_CTYPE"),
            "text": keeps.kept.read(20).decode(),
            "cwd": os.getcwd(),
            "child_signal": str(signal.getsignal(signal.SIGCHLD)),
            "random": random.random(),
            "numpy": float(numpy.random.random()),
        }


class Prepares(fal.App, keep_alive=600):
    app_files = ["late.py"]

    def setup(self):
        os.environ["WAY"] = "prepared"
        import late

        self.way = late.WAY

    @fal.endpoint("/")
    def look(self) -> dict:
        return {"way": self.way}


class Shy(fal.App, keep_alive=600):
    """Does not live as a fork."""

    def setup(self):
        with open("/proc/%d/cmdline" % os.getppid(), "rb") as file:
            if b"import zygote" in file.read():
                if os.environ["SHY"] == "hangs":
                    threading.Event().wait()
                raise RuntimeError("forked, of all things")

    @fal.endpoint("/")
    def work(self) -> dict:
        return {"works": True}

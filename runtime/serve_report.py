"""What a start tells: exit codes, complaints for the app's owner, and its stages with their times."""

import json
import os
import sys
import time

EXIT_USAGE = 2
# uvicorn's own code for an app whose start failed.
EXIT_SETUP = 3
EXIT_LOAD = 4
EXIT_TERMINATED = 143

# A zygote is told them in one variable, which may hold 128 KiB.
MODULES_BYTES_MAX = 96 * 1024
# What fal says of a runner, and what libraries set for themselves when they are imported.
SET_BY_LIBRARIES = frozenset(("FAL_RUNNER_STATE", "KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK"))


def complain(message):
    """Says on stderr why the app does not run; the node shows the last lines to the user."""
    sys.stdout.flush()
    sys.stderr.write("glowplug: " + message + "\n")
    sys.stderr.flush()


class Timeline:
    """Appends the stages of this start to a file, if one is named. Never fails the start."""

    def __init__(self, path):
        self.fd = None
        self.open(path)

    def open(self, path):
        if path:
            try:
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
                self.fd = os.open(path, flags, 0o644)
            except OSError as error:
                complain("cannot write the timeline to %s: %s" % (path, error.strerror))

    def mark(self, name):
        if self.fd is None:
            return
        line = json.dumps({"mark": name, "at_us": time.time_ns() // 1000}) + "\n"
        try:
            os.write(self.fd, line.encode())
        except OSError:
            self.fd = None

    def close(self):
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None


class Learning:
    """Writes down which modules are imported from its making until the app listens. Never fails the start."""

    def __init__(self, path):
        self.path = path
        self.before = set(sys.modules) if path else None
        self.modules_before_setup = None
        self.surroundings = None

    def setup_begins(self):
        if self.before is not None:
            self.modules_before_setup = list(sys.modules)
            self.surroundings = surroundings()

    def write(self):
        if self.before is None:
            return
        # Modules are listed in the order in which their imports began: packages before what is in them.
        modules = list(sys.modules)
        if self.surroundings is not None and surroundings() != self.surroundings:
            # An import made before `setup()` would find them otherwise than it did here.
            modules = self.modules_before_setup
            print(
                "glowplug: `setup()` changes os.environ or sys.path, so what it imports is imported by each start",
                flush=True,
            )
        names = [name for name in modules if name not in self.before and name != "__main__"]
        text = ",".join(names)
        if len(text) > MODULES_BYTES_MAX:
            text = ",".join(name for name in names if "." not in name)[:MODULES_BYTES_MAX]
        try:
            with open(self.path, "w", encoding="utf-8") as file:
                file.write(text)
        except OSError:
            pass


def surroundings():
    """What an import may depend on beside the files of its module."""
    variables = {name: value for name, value in os.environ.items() if name not in SET_BY_LIBRARIES}
    return variables, list(sys.path)

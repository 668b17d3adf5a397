"""Whether this process can be forked into runners, judged by what its imports have brought into it.

Only a process with one thread can be forked safely, and only one that holds nothing that two runners must not
share. What was there before the imports is no matter: every runner is given the like by its supervisor.
"""

import fcntl
import os
import shutil
import signal
import stat
import tempfile

GPU_DEVICES = ("/dev/nvidia", "/dev/kfd", "/dev/dri/")
# The beginning of what is said of an app whose imports use a GPU.
USES_GPU = "it uses a GPU"
# What the kernel calls an open file that two processes must not share, and what we call it.
UNSHAREABLE = (
    ("socket:", "a socket"),
    ("pipe:", "a pipe"),
    ("anon_inode:[eventpoll]", "an event queue"),
    ("anon_inode:[inotify]", "a watch on files"),
    ("anon_inode:[io_uring]", "a ring of the kernel's"),
    ("anon_inode:", "an object of the kernel's"),
)
# How a file that is open already may be opened once more.
REOPENED_FLAGS = os.O_ACCMODE | os.O_APPEND | os.O_NONBLOCK | os.O_SYNC | getattr(os, "O_DIRECT", 0)


class Fitness:
    """Made before the imports, asked after them."""

    def __init__(self):
        self.files = open_files()
        self.mappings = shared_mappings()
        # Temporary files and folders that imports have made. Who made them wants to delete them at its end,
        # while others still use them.
        self.temporary = []
        self.is_watching = True
        for name in ("mkdtemp", "_mkstemp_inner"):
            if hasattr(tempfile, name):
                setattr(tempfile, name, self.noting(getattr(tempfile, name)))

    def noting(self, make):
        def noted(*args, **kwargs):
            made = make(*args, **kwargs)
            if self.is_watching:
                self.temporary.append(made[1] if isinstance(made, tuple) else made)
            return made

        return noted

    def end_watch(self):
        """What is made from now on is a runner's own."""
        self.is_watching = False

    def problem(self):
        """Why this process cannot be forked into runners. `None`: it can."""
        new = self.new_files()
        # Before what comes with it: a driver brings threads and much else.
        for target in new.values():
            if target.startswith(GPU_DEVICES):
                return USES_GPU + " (%s) before `setup()`" % target
        if threads() > 1:
            # Some libraries end their threads for a fork and make new ones when they are wanted.
            in_child(lambda: 0)
            if threads() > 1:
                return "it has %d threads before `setup()`" % threads()
        if children():
            return "it has started other processes before `setup()`"
        for number, target in new.items():
            for beginning, name in UNSHAREABLE:
                if target.startswith(beginning):
                    return "it holds %s open before `setup()`" % name
            problem = file_problem(number)
            if problem:
                return "it holds %s %s before `setup()`" % (target, problem)
        for mapping in shared_mappings() - self.mappings:
            return "it shares memory (%s) before `setup()`" % mapping.partition(" ")[2]
        for path in self.temporary:
            if os.path.lexists(path):
                return "it keeps a temporary file (%s) from before `setup()`" % os.fsdecode(path)
        return None

    def new_files(self):
        return {
            number: target
            for number, target in open_files().items()
            if self.files.get(number) != target
        }

    def files_to_reopen(self):
        """Descriptors with a place in a file, which each runner moves on for itself."""
        return [number for number in self.new_files() if is_regular(number)]

    def remove_temporary(self, since=0):
        """For a process that ends without doing it by itself."""
        for path in self.temporary[since:]:
            try:
                os.unlink(path)
            except OSError:
                shutil.rmtree(path, ignore_errors=True)

    def let_go(self):
        """Leaves nothing of the imports to the program that this process becomes next."""
        self.remove_temporary()
        for number in self.new_files():
            os.set_inheritable(number, False)
        for pid in children():
            try:
                os.kill(int(pid), signal.SIGKILL)
                os.waitpid(int(pid), 0)
            except OSError:
                # A library has waited for it.
                pass


def open_files():
    """Descriptors and what they are open on."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink("/proc/self/fd/" + name)
        except OSError:
            # The one that the list itself was read from.
            pass
    return found


def shared_mappings():
    """Memory that a fork would go on to share: each with its inode and what it is of."""
    found = set()
    try:
        with open("/proc/self/maps") as file:
            for line in file:
                fields = line.split(maxsplit=5)
                if "w" in fields[1] and fields[1].endswith("s"):
                    found.add("%s %s" % (fields[4], fields[5].strip() if len(fields) > 5 else "nameless"))
    except OSError:
        pass
    return found


def is_regular(number):
    try:
        return stat.S_ISREG(os.fstat(number).st_mode)
    except OSError:
        return False


def file_problem(number):
    """Why a file that stands open cannot be given to each runner anew."""
    if not is_regular(number):
        return None
    try:
        os.close(opened_again(number))
        with open("/proc/self/fdinfo/%d" % number) as file:
            return "locked" if "\nlock:" in file.read() else None
    except OSError:
        return "open, which cannot be opened again,"


def opened_again(number):
    """The same file, with a place of its own in it."""
    flags = fcntl.fcntl(number, fcntl.F_GETFL) & REOPENED_FLAGS
    own = os.open("/proc/self/fd/%d" % number, flags)
    os.lseek(own, os.lseek(number, 0, os.SEEK_CUR), os.SEEK_SET)
    return own


def threads():
    return len(os.listdir("/proc/self/task"))


def children():
    try:
        with open("/proc/self/task/%d/children" % os.getpid()) as file:
            return file.read().split()
    except OSError:
        return []


def in_child(ask):
    """What `ask` says in a forked copy of this process, a number from 0; 1 if the copy did not survive it."""
    import warnings

    # The app's modules may let the kernel reap all children.
    handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            try:
                os._exit(ask())
            except BaseException:
                os._exit(1)
        _, status = os.waitpid(pid, 0)
    finally:
        if handler is not None:
            signal.signal(signal.SIGCHLD, handler)
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 1

"""What imports have put into this process, so that each runner finds it as if it had imported by itself.

Its variables and working directory come with the request for a runner, its files get a place of their own, and
what must not repeat is made anew.
"""

import errno
import os
import random
import sys

from zygote_fit import opened_again


class Kept:
    """Made before the imports, closed after them, restored in each runner."""

    def __init__(self):
        self.given = initial_environment()
        self.directory = os.getcwd()
        self.chance = Chance()
        self.put = {}
        self.taken = []
        self.files = []

    def close(self, files):
        """The imports are done. `files`: descriptors to open anew."""
        now = dict(os.environ)
        self.put = {name: value for name, value in now.items() if self.given.get(name) != value}
        self.taken = [name for name in self.given if name not in now]
        self.files = files
        self.chance.close()

    def restore(self, env, directory):
        os.environ.clear()
        os.environ.update(env)
        for name in self.taken:
            os.environ.pop(name, None)
        os.environ.update(self.put)
        if os.getcwd() == self.directory:
            os.chdir(directory)
        for number in self.files:
            own = opened_again(number)
            os.dup2(own, number, inheritable=os.get_inheritable(number))
            os.close(own)
        self.chance.refresh()


def initial_environment():
    """As this program was given it. The interpreter itself may have added to it since (LC_CTYPE)."""
    try:
        with open("/proc/self/environ", "rb") as file:
            entries = [entry.partition(b"=") for entry in file.read().split(b"\0")]
    except OSError:
        return dict(os.environ)
    return {os.fsdecode(name): os.fsdecode(value) for name, sign, value in entries if sign}


class Chance:
    """Seeds each runner anew, but leaves a generator alone whose seed the app's modules have chosen.

    Also a finder of modules, for the one moment in which numpy's generator is imported.
    """

    NUMPY = "numpy.random"

    def __init__(self):
        self.is_watching = True
        # Names of modules whose generator has a seed that somebody wanted.
        self.chosen = set()
        self.random_state = None
        self.wrapped = []
        self.watch(random)
        sys.meta_path.insert(0, self)

    def find_spec(self, name, path=None, target=None):
        if name != self.NUMPY:
            return None
        from importlib.machinery import PathFinder

        spec = PathFinder.find_spec(name, path)
        try:
            execute = spec.loader.exec_module
        except AttributeError:
            return spec

        def exec_module(module):
            execute(module)
            self.watch(module)

        spec.loader.exec_module = exec_module
        return spec

    def watch(self, module):
        for name in ("seed", "setstate", "set_state"):
            if hasattr(module, name):
                before, noted = getattr(module, name), self.noting(module, name)
                setattr(module, name, noted)
                self.wrapped.append((module, name, before, noted))

    def noting(self, module, name):
        call = getattr(module, name)

        def noted(*args, **kwargs):
            if self.is_watching:
                # A state that is put back is what somebody had found, not what somebody wanted.
                is_seed = name == "seed" and any(value is not None for value in (*args, *kwargs.values()))
                (self.chosen.add if is_seed else self.chosen.discard)(module.__name__)
            return call(*args, **kwargs)

        return noted

    def close(self):
        self.is_watching = False
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        for module, name, before, noted in self.wrapped:
            if getattr(module, name) is noted:
                setattr(module, name, before)
        if "random" in self.chosen:
            self.random_state = random.getstate()

    def refresh(self):
        """Python's own `random` reseeds itself at every fork; numpy's global generator does not."""
        if self.random_state is not None:
            random.setstate(self.random_state)
        numpy_random = sys.modules.get(self.NUMPY)
        if numpy_random is None or self.NUMPY in self.chosen:
            return
        try:
            numpy_random.seed()
        except Exception as error:
            raise OSError(errno.EIO, "numpy's generator cannot be seeded anew: %s" % error) from error

"""Unpickles the app, which imports what its module imports."""

import sys

from serve_faster import LazyOpenApiModels
from serve_report import EXIT_LOAD, complain


class Placeholder(type(sys)):
    """Stands for a module until something is wanted of it, then imports the real one.

    It is in `sys.modules` only while the app is unpickled, so nothing but the functions of the pickle ever
    sees it, and an `import` in the app's own code finds the real module or the real error.
    """

    def __getattr__(self, name):
        # Asked for by the import system itself while it looks the module up.
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        import importlib

        return getattr(importlib.import_module(self.__name__), name)


class Deferred:
    """Puts placeholders for `names` into `sys.modules` for the time of a `with` block."""

    def __init__(self, names):
        self.names = [name for name in names if name not in sys.modules]

    def __enter__(self):
        for name in self.names:
            sys.modules[name] = Placeholder(name)

    def __exit__(self, *_):
        for name in self.names:
            if isinstance(sys.modules.get(name), Placeholder):
                del sys.modules[name]


def load(path):
    """Unpickles the app; ends the process with a message a user can act on when that fails."""
    sys.meta_path.insert(0, LazyOpenApiModels())
    try:
        import cloudpickle
    except ImportError:
        complain("the environment holds no cloudpickle; remove it and let it be built again")
        sys.exit(EXIT_LOAD)
    try:
        with open(path, "rb") as file:
            pickled = file.read()
        with Deferred(["grpc", "grpc.aio"]):
            return cloudpickle.loads(pickled)
    except ModuleNotFoundError as error:
        missing = (error.name or str(error)).partition(".")[0]
        complain(
            "the app needs the module `%s`, which its environment does not hold: add the package to "
            "`requirements`, or, if it is a module of your own, name it in `local_python_modules`"
            % missing
        )
    except Exception as error:
        import traceback

        traceback.print_exc()
        complain("the pickled app %s cannot be loaded: %s: %s" % (path, type(error).__name__, error))
    sys.exit(EXIT_LOAD)

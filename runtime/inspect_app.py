"""Loads a fal app as fal's own command line does and describes it in JSON.

Runs in a build environment, which holds `fal` itself; the app's own environment later does not. Standard
library only, beside `fal`.

    python -I inspect_app.py --file APP.py [--class NAME] --out DIR

Writes into DIR: `app.json` (the description, or why there is none), `app.pickle` (the very bytes that
`fal deploy` would send), `openapi.json`, and `files/` with the app's `app_files`, if it names any. Exits
with 0 when the app is described and with 1 when `app.json` holds an error; whatever the app's module
prints goes to stdout and stderr untouched.

What it does not do: it installs nothing, calls no network, and starts no app.
"""

import argparse
import ast
import json
import math
import os
import runpy
import sys
import traceback

# -I keeps the neighbours of this file from being looked at; the app must not see them either.
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from inspect_needs import check_environment, container, copy_app_files, requirement_layers  # noqa: E402
from inspect_problem import FORMAT, Problem, nearest  # noqa: E402

del sys.path[0]

# Beyond this many names a "what is there" list helps no one.
LISTED_NAMES_MAX = 20
TRACEBACK_FRAMES_MAX = 20

# fal's host options that are scaling parameters.
SCALING_KEYS = (
    "keep_alive",
    "min_concurrency",
    "max_concurrency",
    "concurrency_buffer",
    "concurrency_buffer_perc",
    "scaling_delay",
    "max_multiplexing",
    "startup_timeout",
    "request_timeout",
    "termination_grace_period_seconds",
)


def read_source(path):
    if os.path.isdir(path):
        raise Problem("file_not_found", "%s is a folder" % path, "name the Python file, as in app.py::MyApp")
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        folder = os.path.dirname(path) or "."
        there = [n for n in os.listdir(folder) if n.endswith(".py")] if os.path.isdir(folder) else []
        near = nearest(os.path.basename(path), there)
        hint = "did you mean %s?" % os.path.join(folder, near) if near else ""
        raise Problem("file_not_found", "there is no file %s" % path, hint)
    except (OSError, UnicodeDecodeError) as error:
        raise Problem("file_unreadable", "cannot read %s: %s" % (path, error))


def parse_source(path, source):
    try:
        return ast.parse(source, path)
    except SyntaxError as error:
        line = (error.text or "").rstrip()
        message = "%s:%s: %s" % (path, error.lineno, error.msg)
        raise Problem("syntax_error", message, "correct this line: %s" % line.strip() if line else "")


def declared_requirements(tree, class_name):
    """The requirements that the source spells out, without running it.

    Used when a module-level import is missing: the file cannot be run before its packages are there.
    """
    constants = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            constants[node.targets[0].id] = node.value

    def literal(node):
        if isinstance(node, ast.Name):
            node = constants.get(node.id)
        try:
            value = ast.literal_eval(node)
        except (ValueError, TypeError, SyntaxError):
            return []
        flat = []
        for item in value if isinstance(value, (list, tuple)) else []:
            flat.extend(item if isinstance(item, (list, tuple)) else [item])
        return [item for item in flat if isinstance(item, str)]

    found = []
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and class_name in (None, node.name):
            for statement in node.body:
                targets = []
                if isinstance(statement, ast.Assign):
                    targets = statement.targets
                elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
                    targets = [statement.target]
                if any(isinstance(t, ast.Name) and t.id == "requirements" for t in targets):
                    found.extend(literal(statement.value))
        decorators = getattr(node, "decorator_list", [])
        if isinstance(node, ast.FunctionDef) and class_name in (None, node.name):
            for decorator in decorators:
                for keyword in getattr(decorator, "keywords", []):
                    if keyword.arg == "requirements":
                        found.extend(literal(keyword.value))
    return found


def import_path(path):
    """Folders from which the app's module may import: its own, its package's parent, and, as with fal,
    the current one, when the file is below it."""
    folder = os.path.dirname(path)
    package = folder
    while os.path.exists(os.path.join(package, "__init__.py")):
        package = os.path.dirname(package)
    current = os.getcwd()
    below = os.path.commonpath([current, folder]) == current and current != os.sep
    wanted = [folder, package] + ([current] if below else [])
    return list(dict.fromkeys(wanted))


def user_traceback(error, path):
    """The part of the traceback from the app's file on; frames of the machinery above it say nothing."""
    frames = traceback.extract_tb(error.__traceback__)
    start = next((at for at, frame in enumerate(frames) if frame.filename == path), None)
    if start is None:
        return "".join(traceback.format_exception_only(type(error), error)).strip()
    kept = frames[start:][-TRACEBACK_FRAMES_MAX:]
    kept = [frame for frame in kept if not frame.filename.startswith("<frozen importlib")]
    lines = traceback.format_list(kept) + traceback.format_exception_only(type(error), error)
    return "".join(lines).strip()


class ModuleCapture:
    """Keeps what running the app's file defined, for saying what is there when a name is not."""

    def __init__(self, path):
        self.path = path
        self.names = None

    def __enter__(self):
        self.run_path = runpy.run_path

        def run_path(path_name, *args, **kwargs):
            names = self.run_path(path_name, *args, **kwargs)
            if os.path.abspath(path_name) == self.path:
                self.names = names
            return names

        runpy.run_path = run_path
        return self

    def __exit__(self, *_):
        runpy.run_path = self.run_path

    def targets(self):
        import fal
        from fal.api import IsolatedFunction

        names = []
        for name, value in (self.names or {}).items():
            is_app = isinstance(value, type) and issubclass(value, fal.App) and value is not fal.App
            if is_app or isinstance(value, IsolatedFunction):
                names.append(name)
        return names


def load(path, class_name, tree):
    """Returns the host, what fal's loader found, and the names the file defines; or raises a `Problem`."""
    from fal.api import FalServerlessHost
    from fal.exceptions import FalServerlessException
    from fal.utils import load_function_from

    # An address that nothing listens on: describing an app calls no one.
    host = FalServerlessHost("127.0.0.1:1", local_file_path=path)
    with ModuleCapture(path) as capture:
        try:
            loaded = load_function_from(host, path, class_name)
            return host, loaded, capture.names
        except ModuleNotFoundError as error:
            missing = (error.name or "").partition(".")[0]
            raise Problem(
                "import_error",
                "%s imports `%s`, which is not installed where apps are read" % (path, missing),
                "import it inside `setup()` and the endpoints, or add its package to `requirements`",
                missing_module=missing,
                requirements=declared_requirements(tree, class_name),
                traceback=user_traceback(error, path),
            )
        except FalServerlessException as error:
            if capture.names is None:
                raise app_failed(error, path)
            raise wrong_target(error, path, class_name, capture.targets())
        except SystemExit as error:
            message = "%s calls exit(%s) when it is imported" % (path, error.code)
            raise Problem("app_failed", message, "put it below `if __name__ == \"__main__\":`")
        except Exception as error:
            raise app_failed(error, path)


def app_failed(error, path):
    return Problem(
        "app_failed",
        "%s cannot be loaded: %s: %s" % (path, type(error).__name__, error),
        "",
        traceback=user_traceback(error, path),
    )


def wrong_target(error, path, class_name, names):
    listed = ", ".join(names[:LISTED_NAMES_MAX])
    if not names:
        message = "%s defines no fal.App and no fal.function" % path
        return Problem("class_not_found", message, "derive a class from fal.App", available=[])
    if class_name is None:
        message = "%s defines several apps: %s" % (path, listed)
        return Problem("class_not_named", message, "name one: %s::%s" % (path, names[0]), available=names)
    if class_name in names:
        return app_failed(error, path)
    near = nearest(class_name, names)
    return Problem(
        "class_not_found",
        "%s has no app `%s`; it has: %s" % (path, class_name, listed),
        "did you mean %s::%s?" % (path, near) if near else "name one of these",
        available=names,
    )


def describe_endpoints(function, target):
    """Paths with what kind of answer they give, from the class where there is one."""
    endpoints = {}
    for name in dir(target) if isinstance(target, type) else []:
        endpoint = getattr(target, name, None)
        signature = getattr(endpoint, "route_signature", None)
        if signature is None:
            continue
        returns = str(getattr(endpoint, "__annotations__", {}).get("return", ""))
        endpoints[signature.path] = {
            "path": signature.path,
            "websocket": bool(signature.is_websocket),
            "stream": "StreamingResponse" in returns
            or "EventSourceResponse" in returns
            or signature.path.rstrip("/").endswith("/stream"),
        }
    if not endpoints:
        routes = getattr(function.func, "_routes", None) or ["/"]
        endpoints = {p: {"path": p, "websocket": False, "stream": False} for p in routes}
    return [endpoints[path] for path in sorted(endpoints)]


def whole_number(settings, key, path):
    """A setting that counts or lasts, rounded up; `None` where it is not set."""
    value = settings.get(key)
    if value is None:
        return None
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value < 0:
        message = "`%s` in %s is %r" % (key, path, value)
        raise Problem("bad_setting", message, "give a number of at least 0")
    return math.ceil(value)


def scaling_settings(settings, path):
    """fal's scaling parameters that are set, as whole numbers."""
    found = {key: whole_number(settings, key, path) for key in SCALING_KEYS}
    return {key: value for key, value in found.items() if value is not None}


def retry_settings(settings, path):
    """What the app says about retries and about waiting for a runner, in one form whatever it was given in."""
    from fal.sdk import RetryConfig, validate_retry_config_dict

    config = settings.get("retry_config")
    try:
        if isinstance(config, RetryConfig):
            config = config.to_dict()
        elif config is not None:
            config = validate_retry_config_dict(config)
    except ValueError as error:
        message = "`retry_config` in %s cannot be used: %s" % (path, error)
        raise Problem("bad_setting", message, "write it as `RetryConfig(server_error=2)`")
    return {
        "retries": config and {condition: entry["retries"] for condition, entry in config.items()},
        "skip": sorted(settings.get("skip_retry_conditions") or []),
        "request_start_timeout": whole_number(settings, "request_start_timeout", path),
    }


def from_class(target, options):
    """Names of the settings that the author gave; the others are fal's own defaults."""
    import fal

    if not (isinstance(target, type) and issubclass(target, fal.App)):
        return sorted(options.host)
    names = set(target._explicit_host_kwargs)
    for base in target.__mro__:
        if base is fal.App:
            break
        names.update(key for key in vars(base) if not key.startswith("__"))
    return sorted(names)


def describe(path, loaded, host, names, out):
    from fal.api.api import _prepare_partial_func
    from isolate.connections.common import serialize_object

    function = loaded.function
    options = function.options
    python_version = check_environment(options, path)
    if not getattr(function.func, "_fal_local_app", False) and not options.gateway.get("serve"):
        message = "%s::%s does not serve requests" % (path, loaded.class_name)
        raise Problem("not_served", message, "give `@fal.function` the option `serve=True`")
    layers, projects = requirement_layers(options, path)
    app_files = copy_app_files(host, options, out)
    try:
        # fal would have it change to `/app` where `app_files` are; the launcher has its own folder for them.
        partial = _prepare_partial_func(function.func)
        pickled = serialize_object("cloudpickle", partial)
    except Exception as error:
        cause = error.__cause__ or error
        message = "%s::%s cannot be pickled: %s" % (path, loaded.class_name, cause)
        raise Problem("not_picklable", message, "create such objects in `setup()`")
    with open(os.path.join(out, "app.pickle"), "wb") as file:
        file.write(pickled)
    metadata = options.host.get("metadata") or {}
    with open(os.path.join(out, "openapi.json"), "w", encoding="utf-8") as file:
        json.dump(metadata.get("openapi"), file)

    target = names.get(loaded.class_name)
    explicit = from_class(target, options)
    settings = options.host
    machine_types = settings.get("machine_type") or []
    health = settings.get("health_check_config")
    scaling = scaling_settings(settings, path)
    retry = retry_settings(settings, path)
    import cloudpickle
    import fal
    import isolate

    return {
        "format": FORMAT,
        "ok": True,
        "name": loaded.app_name,
        "class_name": loaded.class_name,
        "fal_version": fal.__version__,
        "python_version": python_version,
        "auth": loaded.app_auth,
        "requirements": layers,
        "local_projects": projects,
        "support_requirements": [
            "cloudpickle==%s" % cloudpickle.__version__,
            "isolate==%s" % isolate.__version__,
        ],
        "scaling": scaling,
        "retry": retry,
        "set_by_class": [key for key in explicit if key in scaling or key in ("machine_type", "num_gpus")],
        "machine_types": [machine_types] if isinstance(machine_types, str) else list(machine_types),
        "num_gpus": settings.get("num_gpus"),
        "regions": settings.get("regions"),
        "exposed_port": options.get_exposed_port(),
        "data_mounts": settings.get("data_mounts"),
        "secrets": settings.get("secrets"),
        "endpoints": describe_endpoints(function, target),
        "health_check": health and {
            "path": health.path,
            "method": health.method or "POST",
            "start_period_seconds": health.start_period_seconds,
            "timeout_seconds": health.timeout_seconds,
            "failure_threshold": health.failure_threshold,
            "call_regularly": health.call_regularly,
        },
        "app_files": app_files,
        "container": container(options, path, out),
    }


def run(arguments):
    path = os.path.abspath(arguments.file)
    tree = parse_source(path, read_source(path))
    sys.path.extend(import_path(path))
    # Reading an app must not leave bytecode beside the user's files.
    sys.dont_write_bytecode = True
    host, loaded, names = load(path, arguments.class_name, tree)
    return describe(path, loaded, host, names, arguments.out)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--file", required=True)
    parser.add_argument("--class", dest="class_name")
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    try:
        document = run(arguments)
    except Problem as problem:
        document = problem.document
    except Exception as error:
        traceback.print_exc()
        message = "the app cannot be described: %s: %s" % (type(error).__name__, error)
        document = Problem("internal", message, "").document
    target = os.path.join(arguments.out, "app.json")
    with open(target + ".tmp", "w", encoding="utf-8") as file:
        json.dump(document, file)
    os.replace(target + ".tmp", target)
    sys.exit(0 if document["ok"] else 1)


if __name__ == "__main__":
    main()

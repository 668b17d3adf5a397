"""Makes libraries that every fal app needs start sooner.

Each change is skipped by itself where a library looks different from what is expected here.
"""

import os
import sys

# Name and Version stand at the top of a package's METADATA.
METADATA_HEAD_BYTES_MAX = 4096


class LazyOpenApiModels:
    """Import hook for `fastapi.openapi.models`: its some forty pydantic models compile at first use.

    They describe OpenAPI documents and nothing else, and compiling them is a third of `import fastapi`.
    """

    NAME = "fastapi.openapi.models"

    def find_spec(self, name, path=None, target=None):
        if name != self.NAME:
            return None
        sys.meta_path.remove(self)
        from importlib.machinery import PathFinder

        spec = PathFinder.find_spec(name, path)
        try:
            from pydantic import VERSION, BaseModel

            if not VERSION.startswith("2.") or "defer_build" in BaseModel.model_config:
                return spec
            rebuild = BaseModel.__dict__["model_rebuild"]
            execute = spec.loader.exec_module
        except (ImportError, AttributeError, KeyError):
            return spec

        def exec_module(module):
            BaseModel.model_config["defer_build"] = True
            # The module ends by rebuilding the models that refer to each other; the first use will.
            BaseModel.model_rebuild = classmethod(lambda cls, **_: None)
            try:
                execute(module)
            finally:
                BaseModel.model_rebuild = rebuild
                del BaseModel.model_config["defer_build"]

        spec.loader.exec_module = exec_module
        return spec


class InstalledPackage:
    """As much of `importlib.metadata.Distribution` as a list of packages needs."""

    def __init__(self, name, version):
        self.metadata = {"Name": name, "Version": version}
        self.name = name
        self.version = version


def installed_packages():
    for directory in sys.path:
        try:
            entries = sorted(os.listdir(directory))
        except OSError:
            continue
        for entry in entries:
            if not entry.endswith(".dist-info"):
                continue
            try:
                with open(os.path.join(directory, entry, "METADATA"), "rb") as file:
                    head = file.read(METADATA_HEAD_BYTES_MAX).decode("utf-8", "replace")
            except OSError:
                continue
            found = {}
            for line in head.splitlines():
                key, colon, value = line.partition(": ")
                if not colon or len(found) == 2:
                    break
                if key in ("Name", "Version"):
                    found[key] = value.strip()
            if len(found) == 2:
                yield InstalledPackage(found["Name"], found["Version"])


def hasten_package_list():
    """fal prints all installed packages before `setup()`; only that one caller gets the quick list."""
    import importlib.metadata

    distributions = importlib.metadata.distributions

    def quick(**kwargs):
        if sys._getframe(1).f_code.co_name == "_print_python_packages" and not kwargs:
            importlib.metadata.distributions = distributions
            return installed_packages()
        return distributions(**kwargs)

    importlib.metadata.distributions = quick


def skip_old_pydantic():
    """fastapi imports all of `pydantic.v1` to ask whether a class is one of its models.

    While nobody has imported it, no class can be.
    """
    try:
        from fastapi._compat import shared

        ask = shared.is_pydantic_v1_model_class
    except (ImportError, AttributeError):
        return

    def is_pydantic_v1_model_class(cls):
        return "pydantic.v1" in sys.modules and ask(cls)

    shared.is_pydantic_v1_model_class = is_pydantic_v1_model_class

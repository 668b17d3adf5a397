"""What an app needs beside its code: Python, packages, files, a container. Used by `inspect_app.py`.

Copies what is on the user's disk; installs and builds nothing.
"""

import glob
import os
import re
import shutil
import sys

from inspect_problem import Problem


def minor(version):
    return ".".join(str(version).split(".")[:2])


def check_environment(options, path):
    kind = options.environment.get("kind", "virtualenv")
    if kind not in ("virtualenv", "container"):
        raise Problem(
            "unsupported_environment",
            "%s wants a `%s` environment" % (path, kind),
            "Python apps run in virtual environments and containers here: use `requirements` or `image`",
        )
    wanted = options.environment.get("python_version")
    have = "%d.%d" % sys.version_info[:2]
    if wanted is not None and minor(wanted) != have:
        raise Problem(
            "python_version",
            "%s wants Python %s" % (path, wanted),
            "install Python %s" % minor(wanted),
            wanted=minor(wanted),
        )
    return have


def requirement_layers(options, path):
    """Requirements as steps, projects of the user's own disk turned into `name @ file://` references."""
    from fal.api import _sdist

    base = os.path.dirname(path)
    context = os.path.join(base, options.host.get("requirements_context_dir") or ".")
    raw = options.environment.get("requirements") or []
    layers = raw if raw and all(isinstance(item, list) for item in raw) else [raw]
    projects = []

    def resolve(requirement):
        local = _sdist._parse_local_path_requirement(requirement, _sdist.Path(context))
        if local is None:
            return requirement
        name = _sdist._read_package_name(local.path)
        projects.append({"name": name, "path": str(local.path)})
        return "%s%s @ %s" % (name, local.extras, local.path.as_uri())

    return [[resolve(item) for item in layer] for layer in layers if layer], projects


def copy_app_files(host, options, out):
    """Puts the app's `app_files` below `files/`, where fal's runners have `/app`."""
    from fal.app_files import get_app_files_relative_path
    from fal.file_sync import FileSync, FileSyncOptions

    wanted = FileSyncOptions.from_options(options)
    if not wanted.files_list:
        return None
    sync = FileSync(host.local_file_path)
    # fal leaves the app's own file out: it travels in the pickle.
    own = os.path.realpath(host.local_file_path)
    try:
        files = sync.collect_files(
            wanted.files_list,
            files_context_dir=wanted.files_context_dir,
            files_ignore=wanted.files_ignore,
        )
    except Exception as error:
        raise Problem("app_files", "`app_files`: %s" % error, "correct the paths in `app_files`")
    for file in files:
        source = file.absolute_path
        ignored = sync._matches_patterns(file.relative_path, wanted.files_ignore)
        if ignored or os.path.realpath(source) == own:
            continue
        target = os.path.join(out, "files", file.relative_path)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.copy2(source, target)
    relative = get_app_files_relative_path(host.local_file_path, wanted.files_context_dir) or "."
    os.makedirs(os.path.join(out, "files", relative), exist_ok=True)
    paths = {file.absolute_path for file in files}
    # A folder's time changes when a file comes or goes.
    paths |= {os.path.dirname(path) for path in paths}
    inputs = [{"path": path, "mtime_ns": os.stat(path).st_mtime_ns} for path in sorted(paths)]
    return {"working_dir": relative, "inputs": inputs}


def command(value):
    """An entrypoint or command as a list; a plain string is for the shell, as in a Dockerfile."""
    if value is None or isinstance(value, list):
        return value
    return ["/bin/sh", "-c", value]


def container(options, path, out):
    """The container that the app wants to run in, if it does: what to build, with the files for that copied
    below `context/`."""
    if options.environment.get("kind") != "container":
        return None
    image = options.environment.get("image") or {}
    dockerfile = image.get("dockerfile_str")
    if not dockerfile:
        raise Problem(
            "unsupported_environment",
            "%s wants a container without a Dockerfile" % path,
            "give it one with `ContainerImage.from_dockerfile_str(...)`",
        )
    for key, instead in (
        ("registries", "store the credentials with `buildah login` or `docker login` on this machine"),
        ("secrets", "build the image elsewhere and name it with `image = \"...\"` in the config"),
    ):
        if image.get(key):
            message = "%s gives its container `%s`, which is not used here" % (path, key)
            raise Problem("unsupported_environment", message, instead)
    return {
        "dockerfile": dockerfile,
        "build_args": {str(key): str(value) for key, value in (image.get("build_args") or {}).items()},
        "isolated": image.get("use_isolate", True) is not False,
        "entrypoint": command(image.get("entrypoint")),
        "cmd": command(image.get("cmd")),
        "inputs": copy_context(image, path, out),
    }


def matching(context, name):
    """What a name in COPY or ADD stands for; one that is no pattern stands for itself."""
    found = sorted(os.path.relpath(path, context) for path in glob.glob(os.path.join(context, name)))
    if not found:
        message = "the container's Dockerfile copies `%s`, which is not in %s" % (name, context)
        raise Problem("app_files", message, "correct the path, or the `context_dir` of the ContainerImage")
    return found


def folders_of(path, context):
    """The folders that a file of the context is in: their times change when something comes or goes."""
    folder = os.path.dirname(path)
    while True:
        yield folder
        if folder == context or os.path.dirname(folder) == folder:
            return
        folder = os.path.dirname(folder)


def copy_context(image, path, out):
    """Copies what COPY and ADD name. Returns the copied files and their folders with their times."""
    from fal.file_sync import FileSync

    context = os.path.realpath(image.get("docker_context_dir") or os.curdir)
    # What fal takes where none is named, and means the project's folder.
    if context == os.getcwd() and (context == os.sep or os.path.commonpath([context, path]) != context):
        context = os.path.dirname(path)
    target = os.path.join(out, "context")
    os.makedirs(target)
    wanted = [found for name in image.get("docker_files_list") or [] for found in matching(context, name)]
    if not wanted:
        return []
    ignored = [re.compile(pattern) for pattern in image.get("docker_ignore") or []]
    sync = FileSync(path)
    try:
        files = sync.collect_files(wanted, files_context_dir=context, files_ignore=ignored)
    except Exception as error:
        raise Problem("app_files", "the container's files: %s" % error, "correct the paths in its Dockerfile")
    paths = set()
    for file in files:
        if sync._matches_patterns(file.relative_path, ignored):
            continue
        copy = os.path.join(target, file.relative_path)
        os.makedirs(os.path.dirname(copy), exist_ok=True)
        shutil.copy2(file.absolute_path, copy)
        paths.add(file.absolute_path)
        paths.update(folders_of(file.absolute_path, context))
    return [{"path": path, "mtime_ns": os.stat(path).st_mtime_ns} for path in sorted(paths)]

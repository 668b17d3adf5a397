"""Packs the Python that runs this, and the libraries that it needs, for an image without anything else.

    python3 archive.py TARGET.tar
"""

import os
import subprocess
import sys
import sysconfig
import tarfile

SKIPPED = {"test", "tests", "idlelib", "tkinter", "ensurepip", "site-packages", "dist-packages", "__pycache__"}

TAKEN_FOR_GRANTED = {
    "libc.so.6", "libdl.so.2", "libgcc_s.so.1", "libm.so.6", "libpthread.so.0", "librt.so.1", "libstdc++.so.6",
    "libutil.so.1",
}


def libraries(file):
    """The shared libraries that `file` is linked with, the loader among them."""
    done = subprocess.run(["ldd", file], capture_output=True, text=True)
    words = done.stdout.split()
    return {word for word in words if word.startswith("/") and os.path.exists(word)}


def of_any_system():
    """What compiled packages take for granted, whether or not Python itself needs it."""
    listed = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True).stdout
    lines = [line.split() for line in listed.splitlines()]
    return {words[-1] for words in lines if words and words[0] in TAKEN_FOR_GRANTED}


def main(target):
    python = os.path.realpath(sys.executable)
    standard = os.path.realpath(sysconfig.get_path("stdlib"))
    needed = libraries(python) | of_any_system()
    with tarfile.open(target, "w") as archive:
        archive.add(python, "usr/local/bin/python3", recursive=False)
        for folder, folders, files in os.walk(standard):
            folders[:] = sorted(name for name in folders if name not in SKIPPED)
            for name in sorted(files):
                path = os.path.join(folder, name)
                archive.add(os.path.realpath(path), path.lstrip("/"), recursive=False)
                if name.endswith(".so"):
                    needed |= libraries(path)
        for library in sorted(needed):
            archive.add(os.path.realpath(library), library.lstrip("/"), recursive=False)


main(sys.argv[1])

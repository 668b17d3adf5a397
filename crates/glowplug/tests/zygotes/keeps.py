"""Leaves something in the process that imports it: what `KEEPS` names, and a mark in the environment."""

import os
import random
import signal
import tempfile

import multiprocessing

KEEPS = os.environ.get("KEEPS")
os.environ["MARKED"] = "by an import"
os.environ.pop("DROPPED", None)

kept = None
if KEEPS == "lock":
    kept = multiprocessing.Lock()
elif KEEPS == "pipe":
    kept = os.pipe()
elif KEEPS == "pidfd":
    kept = os.pidfd_open(os.getpid())
elif KEEPS == "temporary folder":
    kept = tempfile.TemporaryDirectory()
elif KEEPS == "temporary file":
    kept = tempfile.NamedTemporaryFile()
elif KEEPS == "what can be kept":
    kept = open(__file__, "rb", buffering=0)
    kept.read(3)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    random.seed(7)
    os.chdir("/")

    import numpy

    numpy.random.seed(7)

"""Imports a fal app once and forks a runner of it whenever it is asked to.

    python -I -c BOOT RUNTIME_DIR --app app.pickle [--first-path DIR]... [--path DIR]...

Takes the arguments of `serve_app` and listens on `GLOWPLUG_SOCKET` in the way that `zygote_forks` tells.
`GLOWPLUG_ZYGOTE_IMPORTS` names modules to import beside those of the app itself: what an earlier start has
imported in `setup()`, or what the app declares. Standard library only, as all that runs beside an app.

```text
imports → collects, freezes, advises huge pages → fit? ─ yes ─► listens, forks until it is told to retire
                                                    └── no ──► says why, ends with EXIT_UNFIT
```

Only a process with one thread can be forked safely, and only one that holds nothing that two runners must not
share: no GPU, no socket, no event queue, no child, no lock (`zygote_fit`). What brings such a thing in `setup()` is found by trying and
left to each runner; if the app itself brings it, the zygote is unfit and the app starts plainly.

What it does not do: it never runs `setup()`, decides nothing, restarts nothing.
"""

import gc

gc.disable()

import ctypes  # noqa: E402
import importlib  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402

import serve_app  # noqa: E402
import zygote_forks  # noqa: E402
import zygote_kept  # noqa: E402
from serve_faster import hasten_package_list, skip_old_pydantic  # noqa: E402
from serve_report import EXIT_USAGE, Timeline, complain  # noqa: E402
from zygote_fit import USES_GPU, Fitness, in_child  # noqa: E402

EXIT_UNFIT = 6

# Set in a process that begins again because importing all at once has made it unfit.
CAREFUL_VARIABLE = "GLOWPLUG_ZYGOTE_CAREFUL"
# Children in which imports are tried; what is not tried by then is left out.
TRIALS_MAX = 64
# What a trial ends with.
FITS, FITS_NOT, FITS_NOT_FOR_GPU = 0, 1, 2

MADV_HUGEPAGE = 14
HUGE_PAGE_BYTES = 2 << 20


def main(arguments):
    began = time.monotonic()
    socket = os.environ.get("GLOWPLUG_SOCKET")
    if not socket:
        complain("set GLOWPLUG_SOCKET to the path that the zygote listens on")
        sys.exit(EXIT_USAGE)
    wanted = [name for name in os.environ.get("GLOWPLUG_ZYGOTE_IMPORTS", "").split(",") if name]
    fitness, kept = Fitness(), zygote_kept.Kept()
    is_careful = kept.given.pop(CAREFUL_VARIABLE, None)
    os.environ.pop(CAREFUL_VARIABLE, None)
    function = serve_app.load_app(arguments)
    if is_careful:
        import_carefully(wanted, fitness)
    else:
        import_all(wanted)
        problem = fitness.problem() if wanted else None
        if problem:
            print("glowplug: beginning again, one import after the other: " + problem, flush=True)
            begin_again(kept.given, fitness)
    hasten_package_list()
    skip_old_pydantic()
    gc.collect()
    gc.freeze()
    advise_huge_pages()
    problem = fitness.problem()
    if problem:
        complain("this app cannot be forked: " + problem)
        sys.exit(EXIT_UNFIT)
    print("glowplug: imported in %d ms" % ((time.monotonic() - began) * 1000), flush=True)

    fitness.end_watch()
    kept.close(fitness.files_to_reopen())
    # Returns in each runner, never in the zygote.
    zygote_forks.serve(socket, kept)
    timeline = Timeline(os.environ.get("GLOWPLUG_TIMELINE"))
    timeline.mark("forked")
    listen = serve_app.Listen.from_environment(os.environ)
    sys.exit(serve_app.run(function, listen, timeline))


def import_all(names):
    """Imports what can be imported; what cannot now could not have served the app either."""
    for name in names:
        if name in sys.modules:
            continue
        try:
            importlib.import_module(name)
        except (Exception, SystemExit) as error:
            complain("the zygote goes without %s: %s: %s" % (name, type(error).__name__, error))


def import_carefully(names, fitness):
    """Imports what leaves this process fit, found out in a child for each package, or each part of one.

    A module that is left out is not kept from others: an import that brings it is left out as well. So no
    library ever sees an import fail that would go well in a runner. Once one has used a GPU no more are tried:
    each trial would take up the GPU anew.
    """
    packages = {}
    for name in names:
        packages.setdefault(name.partition(".")[0], []).append(name)
    trials, left_out = 0, []

    def fits(attempt):
        nonlocal trials
        trials += 1
        result = FITS_NOT if trials > TRIALS_MAX else in_child(lambda: try_import(attempt, fitness))
        if result == FITS_NOT_FOR_GPU:
            trials = TRIALS_MAX
        if result != FITS:
            return False
        import_all(attempt)
        return True

    for package, parts in packages.items():
        # With the package all of its parts go: each of them imports it first.
        if fits(parts) or len(parts) == 1 or not fits([package]):
            left_out += [] if package in sys.modules else [package]
            continue
        halves = [parts]
        while halves:
            half = [name for name in halves.pop() if name not in sys.modules]
            if not half or fits(half):
                continue
            middle = len(half) // 2
            if middle == 0 or trials >= TRIALS_MAX:
                left_out += half
            else:
                halves += [half[middle:], half[:middle]]
    if left_out:
        print("glowplug: cannot be shared, left to each runner: " + ", ".join(left_out), flush=True)


def try_import(names, fitness):
    null = os.open("/dev/null", os.O_WRONLY)
    for output in (1, 2):
        os.dup2(null, output)
    os.close(null)
    made_before = len(fitness.temporary)
    import_all(names)
    problem = fitness.problem()
    fitness.remove_temporary(made_before)
    if problem is None:
        return FITS
    return FITS_NOT_FOR_GPU if problem.startswith(USES_GPU) else FITS_NOT


def begin_again(environment, fitness):
    with open("/proc/self/cmdline", "rb") as file:
        command = file.read().split(b"\0")[:-1]
    fitness.let_go()
    os.execve(sys.executable, command, {**environment, CAREFUL_VARIABLE: "1"})


def advise_huge_pages():
    """A fork copies one entry for 2 MiB instead of 512; a write after it still copies 4 KiB."""
    try:
        madvise = ctypes.CDLL(None).madvise
        madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        with open("/proc/self/maps") as file:
            maps = file.read().splitlines()
    except (OSError, AttributeError):
        return
    for line in maps:
        fields = line.split()
        is_anonymous = len(fields) == 5 or fields[5] == "[heap]"
        if not is_anonymous or not fields[1].startswith("rw-p"):
            continue
        start, end = (int(number, 16) for number in fields[0].split("-"))
        if end - start >= HUGE_PAGE_BYTES:
            madvise(start, end - start, MADV_HUGEPAGE)

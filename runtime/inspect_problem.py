"""Why an app cannot be described, for `inspect_app.py` and its parts."""

import difflib

# Of the description, whether of an app or of a problem.
FORMAT = 1


class Problem(Exception):
    """Why an app cannot be described, in words for its author."""

    def __init__(self, kind, message, hint="", **details):
        super().__init__(message)
        self.document = {"format": FORMAT, "ok": False, "kind": kind, "message": message, "hint": hint}
        self.document.update(details)


def nearest(name, names):
    found = difflib.get_close_matches(name, names, n=1, cutoff=0.7)
    return found[0] if found else None

"""Depends on what was prepared before it is imported."""

import os

WAY = os.environ.get("WAY", "none")

"""How many examples properties and models try: enough for each commit, or many times as many (``make test-long``)."""

from __future__ import annotations

import os

FACTOR = int(os.environ.get("CHATEXPORT_TEST_EFFORT", "1"))


def examples(number: int) -> int:
    """Return how many examples a property tries that tries this number for each commit."""
    return number * FACTOR

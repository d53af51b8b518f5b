"""How many examples properties and models try. For each commit they are few; ``make test-long`` multiplies them."""

from __future__ import annotations

import os

FACTOR = int(os.environ.get("CHATEXPORT_TEST_EFFORT", "1"))


def examples(number: int) -> int:
    """Return how many examples a property tries.

    :param number: how many it tries for each commit.
    """
    return number * FACTOR

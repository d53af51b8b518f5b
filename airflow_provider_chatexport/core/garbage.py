"""The garbage collector of Python, where it costs more than it finds."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """Let the garbage collector rest while the context lasts.

    It looks at all objects again and again while many thousands of objects are made that stay.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()

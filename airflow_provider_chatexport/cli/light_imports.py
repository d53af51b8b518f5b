"""Imports that a command does without."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any, cast


@contextlib.contextmanager
def numpy_left_out() -> Iterator[None]:
    """Have pyarrow imported without numpy, which takes a tenth of a second, while the context lasts.

    pyarrow needs numpy for ``to_numpy`` and ``to_pandas`` only, and stays without it. So this is for a process that
    ends with the command, and not for the package: other code in a process may need them.
    """
    if "numpy" in sys.modules or "pyarrow" in sys.modules:
        yield
        return
    modules = cast("dict[str, Any]", sys.modules)
    modules["numpy"] = None  # an import of it fails, as if it was not installed
    try:
        yield
    finally:
        del modules["numpy"]

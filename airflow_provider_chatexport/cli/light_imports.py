"""Faster imports: without numpy, and while the garbage collector pauses."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any, cast

from airflow_provider_chatexport.core.garbage import no_collection


@contextlib.contextmanager
def quick_imports() -> Iterator[None]:
    """Let imports of pyarrow and the lake take three quarters of their time while the context lasts.

    pyarrow needs numpy for ``to_numpy`` and ``to_pandas`` only, and stays without it. So this is for a process that
    ends with the command, and not for the package: other code in a process may need them.
    """
    modules = cast("dict[str, Any]", sys.modules)
    leaves_numpy_out = "numpy" not in modules and "pyarrow" not in modules
    if leaves_numpy_out:
        modules["numpy"] = None  # an import of it fails, as if it was not installed
    try:
        with no_collection():
            yield
    finally:
        if leaves_numpy_out:
            del modules["numpy"]

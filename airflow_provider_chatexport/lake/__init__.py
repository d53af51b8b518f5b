"""Tables at rest. ``Lake`` is the front door; each folder here is a room with one task.

    from airflow_provider_chatexport.lake import Lake

``Lake`` is imported when it is first used. So importing a leaf, such as ``lake.schema.sql``, does not load DuckDB.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from airflow_provider_chatexport.core.options import LoadOptions
    from airflow_provider_chatexport.lake.lake import Lake

__all__ = ["Lake", "LoadOptions"]

_HOMES: Final = {"Lake": f"{__name__}.lake", "LoadOptions": "airflow_provider_chatexport.core.options"}

if not TYPE_CHECKING:  # type checkers see the imports above, and refuse every other name

    def __getattr__(name: str) -> Any:
        if name in _HOMES:
            return getattr(importlib.import_module(_HOMES[name]), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

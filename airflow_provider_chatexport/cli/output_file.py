"""Files that a command writes: whole under their name, or not there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from airflow_provider_chatexport.errors import CallError


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield another name to write to, which becomes ``path`` at the end; after an error, nothing is left of it.

    :raises CallError: it cannot be written.
    """
    part = path.with_name(path.name + ".part")
    try:
        part.touch()
        yield part
        part.replace(path)
    except OSError as error:
        raise CallError(f"cannot write {path}: {error.strerror}; name a file in a folder that can be written") from None
    finally:
        part.unlink(missing_ok=True)

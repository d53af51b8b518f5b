"""Files that a command writes: whole under their name, or not there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from airflow_provider_chatexport.errors import CallError


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield another path to write to. At the end the file gets its name, ``path``; after an error it is deleted.

    A pipe or a device, such as ``/dev/null``, is written as it is: a file must not take its place.

    :raises CallError: the file cannot be written.
    """
    part = path.with_name(path.name + ".part")
    try:
        if path.exists() and not path.is_file():
            yield path
            return
        part.touch()
        yield part
        part.replace(path)
    except OSError as error:
        raise CallError(f"cannot write {path}: {error.strerror}; name a file in a folder that can be written") from None
    finally:
        part.unlink(missing_ok=True)

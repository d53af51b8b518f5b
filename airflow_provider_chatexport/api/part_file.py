"""A file that appears under its name when it is whole, and not before."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from airflow_provider_chatexport.errors import DownloadError


@contextlib.contextmanager
def part_file(target: Path, *, what: str) -> Iterator[BinaryIO]:
    """Open ``target`` + ``.part`` for writing, and rename it to ``target`` at the end. A failure leaves nothing behind.

    :param what: the subject of the sentence "... cannot be written".
    :raises DownloadError: the file cannot be written.
    """
    part = target.with_name(target.name + ".part")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(target)
    except OSError as error:
        raise DownloadError(
            f"{what} cannot be written to {target.parent}: {error.strerror or error}; free some space there, or choose "
            "another directory"
        ) from None
    finally:
        part.unlink(missing_ok=True)

"""What tells a file from all others, and from itself after a change."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from os import stat_result
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Final, Self

from airflow_provider_chatexport.errors import InputError

# Between two chunks Python's lock has to be waited for, if somebody imports modules at that time: so they are few.
CHUNK_BYTES: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """``identity``: what the file system says of it. ``modified_at`` is aware, UTC."""

    sha256: str
    size_bytes: int
    modified_at: datetime
    identity: tuple[int, int, int]

    @classmethod
    def of(cls, path: Path) -> Self:
        """Reads all of a file.

        :raises InputError: it cannot be read, or only once.
        """
        try:
            stat = path.stat()
            if not S_ISREG(stat.st_mode) and not S_ISDIR(stat.st_mode):
                raise InputError(f"{path} is no regular file, and it is read more than once; copy it to one first")
            digest = file_sha256(path)
        except OSError as error:
            raise InputError(
                f"{path} cannot be read: {error.strerror or error}; give the path of an export file"
            ) from None
        return cls(
            sha256=digest,
            size_bytes=stat.st_size,
            modified_at=datetime.fromtimestamp(stat.st_mtime, UTC),
            identity=_identity(stat),
        )

    def is_of(self, path: Path) -> bool:
        """Whether the file at a path is still the one, as far as its file system can tell."""
        try:
            return self.identity == _identity(path.stat())
        except OSError:
            return False


def file_sha256(path: Path) -> str:
    """:raises OSError: the file cannot be read."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as stream:
        room = memoryview(bytearray(min(CHUNK_BYTES, path.stat().st_size + 1)))
        while n_bytes := stream.readinto(room):
            digest.update(room[:n_bytes])
    return digest.hexdigest()


def _identity(stat: stat_result) -> tuple[int, int, int]:
    return stat.st_ino, stat.st_size, stat.st_mtime_ns

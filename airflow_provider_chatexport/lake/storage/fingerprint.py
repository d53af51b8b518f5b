"""The fingerprint of a file: its digest, and what shows that the file has changed since."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from os import stat_result
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Final, Self

from airflow_provider_chatexport.errors import InputError

# After each chunk this thread waits for Python's lock, which other threads hold while they import modules: few chunks.
CHUNK_BYTES: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """What identifies a file.

    :param modified_at: aware, UTC.
    :param identity: what changes in the file system when the file is written or replaced.
    """

    sha256: str
    size_bytes: int
    modified_at: datetime
    identity: tuple[int, int, int]

    @classmethod
    def of(cls, path: Path) -> Self:
        """Read a whole file, and return its fingerprint.

        :raises InputError: the file cannot be read, or it can be read only once.
        """
        try:
            stat = path.stat()
            if S_ISDIR(stat.st_mode):
                raise InputError(f"{path} is a folder; give the export files in it")
            if not S_ISREG(stat.st_mode):
                raise InputError(
                    f"{path} is not a regular file (a pipe?). It has to be read more than once: copy it to a file first"
                )
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
        """Return whether the file at a path has not changed, as far as its file system can tell."""
        try:
            return self.identity == _identity(path.stat())
        except OSError:
            return False


def file_sha256(path: Path) -> str:
    """Return the SHA-256 digest of a file, in hex.

    :raises OSError: the file cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as stream:
        buffer = memoryview(bytearray(min(CHUNK_BYTES, path.stat().st_size + 1)))
        while n_bytes := stream.readinto(buffer):
            digest.update(buffer[:n_bytes])
    return digest.hexdigest()


def _identity(stat: stat_result) -> tuple[int, int, int]:
    return stat.st_ino, stat.st_size, stat.st_mtime_ns

"""The record of a load or a rewrite: its coverage, its files and its counts, as one JSON object."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Final, Self

import orjson

from airflow_provider_chatexport import __version__
from airflow_provider_chatexport.core.times import format_rfc3339, parse_rfc3339
from airflow_provider_chatexport.errors import LakeError
from airflow_provider_chatexport.lake.commits.coverage import CoverageEntry
from airflow_provider_chatexport.lake.schema.tables import SCHEMA_VERSION

RECORD_VERSION: Final = 1
WRITER: Final = f"airflow-provider-chatexport {__version__}"
FOLDER: Final = "_loads"
# Counts that have another name in older records.
_RENAMED_COUNTS: Final = {"not_cast": "cast_failures"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """One export file that went into a load. ``task_id`` is None for a file that a person loaded."""

    name: str
    task_id: str | None
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFile:
    """One Parquet file of a load.

    :param path: relative to the lake.
    :param day: the UTC day of its folder, such as ``2026-01-31``.
    :param n_uncovered: how many of its rows no coverage entry of their own export contains; any newer entry hides them.
    :param n_unplaced: how many of its reactions lie at their own moment, because their load does not have the message.
    :param promoted: its promoted columns, each with its type.
    :param schema_version: it has the columns that the registry had then. Records of version 1 do not say it.
    """

    path: str
    table: str
    day: str
    rows: int
    size_bytes: int
    sha256: str
    n_uncovered: int = 0
    n_unplaced: int = 0
    promoted: tuple[tuple[str, str], ...] = ()
    schema_version: int = 1

    def __post_init__(self) -> None:
        # JSON gives lists, and files are kept in sets.
        object.__setattr__(self, "promoted", tuple((name, kind) for name, kind in self.promoted))

    @property
    def is_loose(self) -> bool:
        """Whether it has loose rows: coverage alone does not say whether another file has newer rows of their keys."""
        return bool(self.n_uncovered or self.n_unplaced)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRecord:
    """What a load covers, its files and its counts. Times are aware, UTC; ``counts`` follow the law of conservation.

    :param keep_superseded: keep files for ``messages_history`` when newer loads hide all of their rows.
    :param late_changes: what this load changed in what the lake knew, by age of the message (``shrink_guard``).
    :param replaces: the records that this one stands for, if it is the record of a rewrite.
    :param has_unique_keys: no two rows of its event tables have one key. Older records of rewrites do not say it.
    :param history: files that only ``messages_history`` reads.
    :param purged: paths of files of any record that nothing may read any more.
    """

    load_id: str
    exported_at: datetime
    committed_at: datetime
    since: datetime | None
    until: datetime | None
    flags: dict[str, Any]
    sources: tuple[SourceFile, ...]
    coverage: tuple[CoverageEntry, ...]
    files: tuple[DataFile, ...]
    counts: dict[str, Any]
    seconds: float = 0.0
    keep_superseded: bool = False
    late_changes: tuple[dict[str, int], ...] = ()
    replaces: tuple[str, ...] = ()
    has_unique_keys: bool = True
    history: tuple[DataFile, ...] = ()
    purged: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    writer: str = WRITER
    schema_version: int = SCHEMA_VERSION

    @property
    def path(self) -> str:
        """Where the record lies, relative to the lake."""
        return f"{FOLDER}/{self.load_id}.json"

    @property
    def is_load(self) -> bool:
        """Whether it is the record of a load, rather than of a rewrite."""
        return bool(self.sources)

    @property
    def bytes_in(self) -> int:
        """The size of the export files, in bytes."""
        return sum(source.size_bytes for source in self.sources)

    def to_bytes(self) -> bytes:
        """Return the record as JSON."""
        value = {
            "v": RECORD_VERSION,
            "load_id": self.load_id,
            "schema_version": self.schema_version,
            "writer": self.writer,
            "exported_at": format_rfc3339(self.exported_at),
            "committed_at": format_rfc3339(self.committed_at),
            "window": {"since": _text(self.since), "until": _text(self.until)},
            "flags": self.flags,
            "sources": [asdict(source) for source in self.sources],
            "coverage": [entry.to_json(self.load_id) for entry in self.coverage],
            "counts": self.counts,
            "files": [asdict(file) for file in self.files],
            "seconds": round(self.seconds, 3),
            "keep_superseded": self.keep_superseded,
            "late_changes": list(self.late_changes),
            "replaces": list(self.replaces),
            "has_unique_keys": self.has_unique_keys,
            "history": [asdict(file) for file in self.history],
            "purged": list(self.purged),
            "facts": self.facts,
        }
        return orjson.dumps(value, option=orjson.OPT_INDENT_2)

    @classmethod
    def from_bytes(cls, content: bytes, where: str) -> Self:
        """Read a record from JSON.

        :param where: its address, for errors.
        :raises LakeError: it is not a record, or its version is unknown.
        """
        try:
            return cls.from_json(orjson.loads(content), where)
        except ValueError:
            raise _not_a_record(where) from None

    @classmethod
    def from_json(cls, value: dict[str, Any], where: str) -> Self:
        """Read a record from a JSON value.

        :param where: its address, for errors.
        :raises LakeError: it is not a record, or its version is unknown.
        """
        try:
            if value["v"] != RECORD_VERSION:
                raise LakeError(
                    f"{where} is a load record of version {value['v']}, and this installation reads version "
                    f"{RECORD_VERSION}; upgrade airflow-provider-chatexport where it reads this lake",
                    retryable=False,
                )
            load_id = value["load_id"]
            return cls(
                load_id=load_id,
                schema_version=value["schema_version"],
                writer=value["writer"],
                exported_at=parse_rfc3339(value["exported_at"]),
                committed_at=parse_rfc3339(value["committed_at"]),
                since=_moment(value["window"]["since"]),
                until=_moment(value["window"]["until"]),
                flags=value["flags"],
                sources=tuple(SourceFile(**source) for source in value["sources"]),
                coverage=tuple(CoverageEntry.from_json(entry, load_id) for entry in value["coverage"]),
                counts={_RENAMED_COUNTS.get(name, name): count for name, count in value["counts"].items()},
                files=tuple(DataFile(**file) for file in value["files"]),
                seconds=value["seconds"],
                keep_superseded=value["keep_superseded"],
                late_changes=tuple(value["late_changes"]),
                replaces=tuple(value["replaces"]),
                has_unique_keys=value.get("has_unique_keys", bool(value["sources"])),
                history=tuple(DataFile(**file) for file in value["history"]),
                purged=tuple(value["purged"]),
                facts=value["facts"],
            )
        except (KeyError, TypeError, ValueError):
            raise _not_a_record(where) from None


def _not_a_record(where: str) -> LakeError:
    return LakeError(
        f"{where} is not a load record; restore it from a backup. Without one, move it out of the lake, which removes "
        "the rows of its load as well, then load or export that window again",
        retryable=False,
    )


def _text(moment: datetime | None) -> str | None:
    return format_rfc3339(moment) if moment else None


def _moment(text: str | None) -> datetime | None:
    return parse_rfc3339(text) if text else None

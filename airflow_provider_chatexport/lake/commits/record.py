"""The record of a load or a rewrite: its coverage, its files and its counts, as one JSON object."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from typing import Any, Final, Self

import msgspec
import orjson

from airflow_provider_chatexport import __version__
from airflow_provider_chatexport.core.times import format_rfc3339, parse_written
from airflow_provider_chatexport.errors import DamagedRecordError, LakeError
from airflow_provider_chatexport.lake.commits import coverage as coverage_entries
from airflow_provider_chatexport.lake.commits.channels import ChannelSet
from airflow_provider_chatexport.lake.commits.coverage import BEGINNING, CoverageEntry, LostSpan, TimeSpan
from airflow_provider_chatexport.lake.commits.read_later import ReadLater
from airflow_provider_chatexport.lake.schema.tables import SCHEMA_VERSION

RECORD_VERSION: Final = 3
# In version 1, files had a day and no span, and there was a coverage entry for each channel. In version 2, the files of
# a lake on an object store lay in the folders of their tables.
_READ_VERSIONS: Final = (1, 2, 3, 4)
# The version of a record that takes files of others: who does not know ``taken`` would show their rows twice.
_TAKING_VERSION: Final = 4
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
    """One Parquet file of a load or a rewrite.

    :param path: relative to the lake.
    :param first_day: the first UTC day of its rows, such as ``2026-01-31``: of an event table by the row's moment, of
        other tables by its export. Some days up to ``last_day`` may have no row.
    :param last_day: the last UTC day.
    :param n_uncovered: how many of its rows no coverage entry of their own export contains; any newer entry hides them.
    :param n_unplaced: how many of its reactions lie at their own moment, because their load does not have the message.
    :param promoted: its promoted columns, each with its type.
    :param schema_version: it has the columns that the registry had then. Records of version 1 may not say it.
    :param bounds: columns with their least and greatest value in the file, as text. Empty where they are not known.
    :param below_files: on every store, its bytes lie below ``_files``. Otherwise they do on a disk only: older versions
        put them at ``path`` on an object store.
    """

    path: str
    table: str
    first_day: str
    last_day: str
    rows: int
    size_bytes: int
    sha256: str
    n_uncovered: int = 0
    n_unplaced: int = 0
    promoted: tuple[tuple[str, str], ...] = ()
    schema_version: int = 1
    bounds: tuple[tuple[str, str, str], ...] = ()
    below_files: bool = False

    @property
    def is_loose(self) -> bool:
        """Whether it has loose rows: coverage alone does not say whether another file has newer rows of their keys."""
        return bool(self.n_uncovered or self.n_unplaced)

    @property
    def span(self) -> TimeSpan:
        """The span from the start of its first UTC day to the end of its last."""
        return TimeSpan.of_days(self.first_day, self.last_day)

    def shares_days(self, other: DataFile) -> bool:
        """Return whether two files have a day in common."""
        return self.first_day <= other.last_day and other.first_day <= self.last_day

    def has_any(self, days: Iterable[str]) -> bool:
        """Return whether one of some days lies within the file."""
        return any(self.first_day <= day <= self.last_day for day in days)

    def to_json(self) -> dict[str, Any]:
        """Return the file as JSON types, without what has its default."""
        return {
            each.name: value
            for each in fields(self)
            if (value := getattr(self, each.name)) != each.default or each.name == "schema_version"
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Read a file from a record. In records of version 1, a file has one day."""
        value = dict(value)
        if day := value.pop("day", None):
            value |= {"first_day": day, "last_day": day}
        # JSON gives lists, and files are kept in sets.
        for name in ("promoted", "bounds"):
            value[name] = tuple(tuple(each) for each in value.get(name, ()))
        return cls(**value)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRecord:
    """What a load covers, its files and its counts. Times are aware, UTC; ``counts`` follow the law of conservation.

    :param keep_superseded: keep files for ``messages_history`` when newer loads hide all of their rows.
    :param late_changes: what this load changed in what the lake knew, by age of the message (``shrink_guard``).
    :param replaces: the records that this one stands for, if it is the record of a rewrite.
    :param taken: by the id of a record that remains, the paths of its files that belong to this record now, or whose
        place this record's files take.
    :param has_unique_keys: no two rows of its event tables have one key. Older records of rewrites do not say it.
    :param history: files that only ``messages_history`` reads.
    :param purged: paths of files of any record that nothing may read any more.
    :param lost: what files that are lost leave uncovered. They are among ``purged``.
    """

    load_id: str
    exported_at: datetime
    committed_at: datetime
    since: datetime | None
    until: datetime | None
    flags: dict[str, Any]
    sources: tuple[SourceFile, ...]
    coverage: Sequence[CoverageEntry]
    files: Sequence[DataFile]
    counts: dict[str, Any]
    seconds: float = 0.0
    keep_superseded: bool = False
    late_changes: tuple[dict[str, int], ...] = ()
    replaces: tuple[str, ...] = ()
    taken: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    has_unique_keys: bool = True
    history: Sequence[DataFile] = ()
    purged: tuple[str, ...] = ()
    lost: tuple[LostSpan, ...] = ()
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
    def n_loads(self) -> int:
        """How many loads it stands for. Older records of rewrites do not say it."""
        if self.is_load:
            return 1
        return int(self.facts.get("n_loads") or max(1, len({entry.load_id for entry in self.coverage})))

    @property
    def unread(self) -> tuple[str, ...]:
        """The ids of records that were damaged when a rewrite was made, so that it does not know them."""
        return tuple(self.facts.get("unread", ()))

    @property
    def as_they_were(self) -> tuple[str, ...]:
        """The paths of files that a rewrite took over without a look at their rows, because they were lost."""
        return tuple(self.facts.get("as_they_were", ()))

    @property
    def has_uncovered(self) -> bool:
        """Whether one of its files has rows that no coverage entry of their own export contains."""
        return _any_has(self.files, "n_uncovered")

    @property
    def has_promoted(self) -> bool:
        """Whether one of its files has promoted columns."""
        return _any_has(self.files, "promoted") or _any_has(self.history, "promoted")

    @property
    def bytes_in(self) -> int:
        """The size of the export files, in bytes."""
        return sum(source.size_bytes for source in self.sources)

    def to_bytes(self) -> bytes:
        """Return the record as JSON."""
        sets: dict[ChannelSet, int] = {}
        # What was read from a checkpoint is its text, in one line. People read records.
        value = orjson.loads(orjson.dumps(self.to_json(sets)))
        value["coverage"] = {"channels": orjson.Fragment(_lines(sets)), "entries": value["coverage"]}
        return orjson.dumps(value, option=orjson.OPT_INDENT_2)

    def to_json(self, sets: dict[ChannelSet, int]) -> dict[str, Any]:
        """Return the record as a JSON value, in which coverage entries have the numbers of their sets of channels.

        :param sets: the number of each set of channels; gets those that it lacks.
        """
        return {
            "v": _TAKING_VERSION if self.taken else RECORD_VERSION,
            "load_id": self.load_id,
            "schema_version": self.schema_version,
            "writer": self.writer,
            "exported_at": format_rfc3339(self.exported_at),
            "committed_at": format_rfc3339(self.committed_at),
            "window": {"since": _text(self.since), "until": _text(self.until)},
            "flags": self.flags,
            "sources": [asdict(source) for source in self.sources],
            "coverage": coverage_entries.to_json(self.coverage, self.load_id, sets),
            "counts": self.counts,
            "files": _files_to_json(self.files),
            "seconds": round(self.seconds, 3),
            "keep_superseded": self.keep_superseded,
            "late_changes": list(self.late_changes),
            "replaces": list(self.replaces),
            **({"taken": {load_id: list(paths) for load_id, paths in self.taken.items()}} if self.taken else {}),
            "has_unique_keys": self.has_unique_keys,
            "history": _files_to_json(self.history),
            "purged": list(self.purged),
            "lost": [span.to_json() for span in self.lost],
            "facts": self.facts,
        }

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
    def from_line(cls, line: bytes, where: str, sets: Sequence[ChannelSet]) -> Self:
        """Read a record from the text of ``to_json``. Its files and its coverage are read when they are asked for.

        :param where: the address of the text, for errors.
        :param sets: the sets of channels by number.
        :raises LakeError: it is not a record, or its version is unknown.
        """
        try:
            value = _LINES.decode(line)
        except msgspec.MsgspecError:
            raise _not_a_record(where) from None
        _check_version(value.v, value.schema_version, where)
        return cls(
            load_id=value.load_id,
            schema_version=value.schema_version,
            writer=value.writer,
            exported_at=value.exported_at,
            committed_at=value.committed_at,
            since=value.window.since,
            until=value.window.until,
            flags=value.flags,
            sources=value.sources,
            coverage=ReadLater(bytes(value.coverage), _read_entries, (where, value.load_id, sets)),
            counts=value.counts,
            files=ReadLater(bytes(value.files), _read_files, where),
            seconds=value.seconds,
            keep_superseded=value.keep_superseded,
            late_changes=value.late_changes,
            replaces=value.replaces,
            taken=value.taken,
            has_unique_keys=value.has_unique_keys,
            history=ReadLater(bytes(value.history), _read_files, where),
            purged=value.purged,
            lost=tuple(map(LostSpan.from_json, value.lost)),
            facts=value.facts,
        )

    @classmethod
    def from_json(cls, value: dict[str, Any], where: str) -> Self:
        """Read a record from a JSON value.

        :param where: its address, for errors.
        :raises LakeError: it is not a record, or its version is unknown.
        """
        try:
            _check_version(value["v"], value["schema_version"], where)
            load_id = value["load_id"]
            return cls(
                load_id=load_id,
                schema_version=value["schema_version"],
                writer=value["writer"],
                exported_at=parse_written(value["exported_at"]),
                committed_at=parse_written(value["committed_at"]),
                since=_moment(value["window"]["since"]),
                until=_moment(value["window"]["until"]),
                flags=value["flags"],
                sources=tuple(SourceFile(**source) for source in value["sources"]),
                coverage=_coverage(value, load_id),
                counts={_RENAMED_COUNTS.get(name, name): count for name, count in value["counts"].items()},
                files=tuple(map(DataFile.from_json, value["files"])),
                seconds=value["seconds"],
                keep_superseded=value["keep_superseded"],
                late_changes=tuple(value["late_changes"]),
                replaces=tuple(value["replaces"]),
                taken={load_id: tuple(paths) for load_id, paths in value.get("taken", {}).items()},
                has_unique_keys=value.get("has_unique_keys", bool(value["sources"])),
                history=tuple(map(DataFile.from_json, value["history"])),
                purged=tuple(value["purged"]),
                lost=tuple(map(LostSpan.from_json, value.get("lost", ()))),
                facts=value["facts"],
            )
        except (KeyError, IndexError, TypeError, ValueError, AttributeError):
            raise _not_a_record(where) from None


def _lines(sets: Iterable[ChannelSet]) -> bytes:
    """Return lists of channels as a JSON array with one line for each list, which may have thousands of channels."""
    lines = io.BytesIO()
    for each in sets:
        lines.write(b",\n" if lines.tell() else b"[\n")
        lines.write(orjson.dumps(each.to_json()))
    return lines.getvalue() + b"\n]" if lines.tell() else b"[]"


class _Window(msgspec.Struct):
    since: datetime | None
    until: datetime | None


class _Entry(msgspec.Struct):
    """A coverage entry of ``coverage.to_json``."""

    channels: int
    since: datetime | None
    until: datetime
    exported_at: datetime
    load_id: str | None = None

    def entry(self, sets: Sequence[ChannelSet], record_id: str) -> CoverageEntry:
        return CoverageEntry(
            channels=sets[self.channels],
            since=self.since or BEGINNING,
            until=self.until,
            exported_at=self.exported_at,
            load_id=self.load_id or record_id,
        )


class _Line(msgspec.Struct):
    """A record of ``LoadRecord.to_json``."""

    v: int
    load_id: str
    schema_version: int
    writer: str
    exported_at: datetime
    committed_at: datetime
    window: _Window
    flags: dict[str, Any]
    sources: tuple[SourceFile, ...]
    coverage: msgspec.Raw
    counts: dict[str, Any]
    files: msgspec.Raw
    seconds: float
    keep_superseded: bool
    late_changes: tuple[dict[str, int], ...]
    replaces: tuple[str, ...]
    has_unique_keys: bool
    history: msgspec.Raw
    purged: tuple[str, ...]
    facts: dict[str, Any]
    lost: tuple[dict[str, Any], ...] = ()
    taken: dict[str, tuple[str, ...]] = {}


_LINES: Final = msgspec.json.Decoder(_Line)
_ENTRIES: Final = msgspec.json.Decoder(list[_Entry])
_FILES: Final = msgspec.json.Decoder(tuple[DataFile, ...])


def _read_entries(raw: bytes, source: tuple[str, str, Sequence[ChannelSet]]) -> tuple[CoverageEntry, ...]:
    """Read the coverage entries of a record.

    :param source: the address of the text, for errors; the record's id; the sets of channels by number.
    """
    where, record_id, sets = source
    with _unreadable(where):
        return tuple(each.entry(sets, record_id) for each in _ENTRIES.decode(raw))


def _read_files(raw: bytes, where: str) -> tuple[DataFile, ...]:
    """Read the files of a record."""
    with _unreadable(where):
        return _FILES.decode(raw)


def _files_to_json(files: Sequence[DataFile]) -> list[dict[str, Any]] | orjson.Fragment:
    """Return files as JSON, as it was read if it has not been asked for."""
    return orjson.Fragment(files.raw) if isinstance(files, ReadLater) else [file.to_json() for file in files]


@contextlib.contextmanager
def _unreadable(where: str) -> Iterator[None]:
    """Raise errors of JSON that has another shape than a record as those of a damaged record."""
    try:
        yield
    except (msgspec.MsgspecError, IndexError):
        raise _not_a_record(where) from None


def _check_version(version: int, schema_version: int, where: str) -> None:
    """Raise unless this installation knows the version of a record and of its files' tables.

    :raises LakeError: it does not.
    """
    if version not in _READ_VERSIONS:
        raise LakeError(
            f"{where} is a load record of version {version}, and this installation reads versions "
            f"up to {RECORD_VERSION}; upgrade airflow-provider-chatexport where it reads this lake",
            retryable=False,
        )
    if schema_version > SCHEMA_VERSION:
        raise LakeError(
            f"{where} is of a newer version: its files have tables of version {schema_version}, and "
            f"this installation knows version {SCHEMA_VERSION}; upgrade airflow-provider-chatexport where it "
            "reads this lake",
            retryable=False,
        )


def _any_has(files: Sequence[DataFile], name: str) -> bool:
    """Return whether one of some files has a field with another value than its default. Those are not written."""
    if isinstance(files, ReadLater) and not files.mentions(name):
        return False
    return any(getattr(file, name) for file in files)


def _coverage(value: dict[str, Any], load_id: str) -> tuple[CoverageEntry, ...]:
    coverage = value["coverage"]
    if isinstance(coverage, list):
        return coverage_entries.from_json_per_channel(coverage, load_id)
    sets = [ChannelSet.from_json(each) for each in coverage["channels"]]
    return coverage_entries.from_json(coverage["entries"], load_id, sets)


def _not_a_record(where: str) -> DamagedRecordError:
    return DamagedRecordError(
        f"{where} is not a load record; restore it from a backup, or run chatexport repair, which goes on without it, "
        "then load or export that window again"
    )


def _text(moment: datetime | None) -> str | None:
    return format_rfc3339(moment) if moment else None


def _moment(text: str | None) -> datetime | None:
    return parse_written(text) if text else None

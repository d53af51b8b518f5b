"""The record of a load or a rewrite: its coverage, its files and its counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from airflow_provider_chatexport import __version__
from airflow_provider_chatexport.lake.commits.coverage import CoverageEntry, TimeSpan
from airflow_provider_chatexport.lake.commits.lost_coverage import LostSpan
from airflow_provider_chatexport.lake.commits.read_later import ReadLater
from airflow_provider_chatexport.lake.schema.tables import SCHEMA_VERSION

WRITER: Final = f"airflow-provider-chatexport {__version__}"
FOLDER: Final = "_loads"


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
    flags: Mapping[str, Any]
    sources: Sequence[SourceFile]
    coverage: Sequence[CoverageEntry]
    files: Sequence[DataFile]
    counts: Mapping[str, Any]
    seconds: float = 0.0
    keep_superseded: bool = False
    late_changes: tuple[dict[str, int], ...] = ()
    replaces: tuple[str, ...] = ()
    taken: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    has_unique_keys: bool = True
    history: Sequence[DataFile] = ()
    purged: tuple[str, ...] = ()
    lost: tuple[LostSpan, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
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
    def extent(self) -> tuple[int, int]:
        """The number of its coverage entries, and of their channels. This reads nothing."""
        if type(self.coverage) is ReadLater:  # isinstance of a class that is a Sequence takes ten times as long
            n_entries, n_channels = self.coverage.known
            return n_entries, n_channels
        return len(self.coverage), sum(len(entry.channels) for entry in self.coverage)

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


def _any_has(files: Sequence[DataFile], name: str) -> bool:
    """Return whether one of some files has a field with another value than its default."""
    if type(files) is ReadLater:
        return name in files.known
    return any(getattr(file, name) for file in files)

"""What all records together say: which files are live, and which of those hold rows that newer exports hide.

Pure. The catalog, the table folders, compaction and the clean-up all act on this, so they agree.
"""

from __future__ import annotations

import enum
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from airflow_provider_chatexport.lake.commits.coverage import CoverageEntry, NewerCoverage, TimeSpan
from airflow_provider_chatexport.lake.commits.record import DataFile, LoadRecord
from airflow_provider_chatexport.lake.schema import promoted
from airflow_provider_chatexport.lake.schema.tables import MESSAGES, TABLE_BY_NAME
from airflow_provider_chatexport.lake.schema.types import Placement, Table


class FileStatus(enum.Enum):
    """What became of a file."""

    WHOLE = "whole"  # all its rows are visible, by the truth rule
    PARTLY_HIDDEN = "partly hidden"
    DEAD = "dead"  # none is, or another record took the file's place
    HISTORY = "history"  # dead, and kept for ``messages_history``
    PURGED = "purged"  # nothing may read it


@dataclass(frozen=True, slots=True, kw_only=True)
class FileState:
    """A file of a record, and what became of it. ``dead_since``: when the record that ended it was committed."""

    file: DataFile
    record: LoadRecord
    status: FileStatus
    dead_since: datetime | None = None

    @property
    def is_live(self) -> bool:
        return self.status in (FileStatus.WHOLE, FileStatus.PARTLY_HIDDEN)

    @property
    def is_history(self) -> bool:
        """Read by ``messages_history`` alone."""
        return self.status is FileStatus.HISTORY

    @property
    def is_readable(self) -> bool:
        """By the views or by ``messages_history``."""
        return self.is_live or self.is_history

    @property
    def day(self) -> TimeSpan:
        """The UTC day of its folder."""
        return TimeSpan.of_day(self.file.day)


class Snapshot:
    """:param records: all of a lake, in any order."""

    def __init__(self, records: Sequence[LoadRecord]) -> None:
        self.records = records
        self._replaced_by = {load_id: record for record in records for load_id in record.replaces}
        self._purged_by = {path: record for record in records for path in record.purged}
        self.current = [record for record in records if record.load_id not in self._replaced_by]
        self._owner = {entry: record for record in self.current for entry in record.coverage}
        self._newer = NewerCoverage(self._owner)
        self.superseded = {
            record.load_id
            for record in self.current
            if not any(file.n_uncovered for file in record.files) and self._newer.are_fully_hidden(record.coverage)
        }

    @cached_property
    def coverage(self) -> list[CoverageEntry]:
        """The claims that decide what is visible."""
        return [entry for record in self.current if record.load_id not in self.superseded for entry in record.coverage]

    @cached_property
    def masking_coverage(self) -> set[CoverageEntry]:
        """Those claims that hide rows of files which are still read."""
        masking_coverage = {
            newer
            for record in self.current
            if record.load_id not in self.superseded
            for entry in record.coverage
            for newer in self._newer.than(entry)
            if not self._applied(entry, newer)
        }
        return masking_coverage | self._over_uncovered(self.coverage)

    def _over_uncovered(self, entries: Iterable[CoverageEntry]) -> set[CoverageEntry]:
        """Rows that no claim of their own export covers may be hidden by any other: those of their days."""
        uncovered = {file.day for record in self.current for file in record.files if file.n_uncovered}
        days = [TimeSpan.of_day(day) for day in sorted(uncovered)]
        ends = [day.until for day in days]
        found = set()
        for entry in entries:
            first = bisect_right(ends, entry.since)  # of the days that end within it or later
            if first < len(days) and entry.overlaps(days[first].since, days[first].until):
                found.add(entry)
        return found

    @cached_property
    def promoted(self) -> dict[str, dict[str, str]]:
        """Which columns the lake has promoted, by table, with their types: of the file that was first to have it."""
        found: dict[str, dict[str, str]] = {}
        for record in sorted(self.records, key=lambda record: (record.committed_at, record.load_id)):
            for file in (*record.files, *record.history):
                for name, kind in file.promoted:
                    found.setdefault(file.table, {}).setdefault(name, kind)
        return found

    @property
    def tables(self) -> tuple[Table, ...]:
        """The registry's tables, with the columns that the lake has promoted."""
        return promoted.tables_with(self.promoted)

    @cached_property
    def expired_loads(self) -> set[str]:
        """Loads whose rejects and entities without a table go: of what those files tell, newer loads have all.

        Of users no claim tells, so what came with an export of theirs stays.
        """
        of_users = {
            record.load_id
            for record in self.current
            if any(TABLE_BY_NAME[file.table].owned_by for file in record.files)
        }
        return self.superseded - of_users

    @cached_property
    def file_states(self) -> list[FileState]:
        """Every file of every record, once; one that a later record took over stands with that record."""
        found: dict[str, FileState] = {}
        for record in self.records:
            for file in record.files:
                found[file.path] = _latest(found.get(file.path), self._judge(record, file))
            for file in record.history:
                purged = file.path in self._purged_by
                found[file.path] = FileState(
                    file=file,
                    record=record,
                    status=FileStatus.PURGED if purged else FileStatus.HISTORY,
                    dead_since=record.committed_at,
                )
        return list(found.values())

    def live(self, table: Table) -> Iterator[FileState]:
        return (each for each in self._by_table[table.name] if each.is_live)

    def of(self, table: Table) -> Sequence[FileState]:
        return self._by_table[table.name]

    @cached_property
    def recheck_coverage(self) -> set[CoverageEntry]:
        """Claims of moments that an older export had told of as well, and so what can have found a message gone."""
        newer, owner = self._of_loads
        return {each for entry in owner for each in newer.than(entry)} | self._over_uncovered(owner)

    @cached_property
    def readable(self) -> set[CoverageEntry]:
        """Claims of exports of whose messages every row can still be read: what they do not tell was not there."""
        statuses = {each.file.path: each.status for each in self._by_table[MESSAGES.name]}
        lost = {path for path, status in statuses.items() if status in (FileStatus.DEAD, FileStatus.PURGED)}
        return {
            entry
            for record in self.records
            if record.is_load and lost.isdisjoint(file.path for file in record.files)
            for entry in record.coverage
        }

    def retired_at(self, record: LoadRecord) -> datetime | None:
        """When newer loads had superseded all of a load; None while anything of it can be visible.

        Whatever became of its files: a rewrite shows what the loads did that went into it.
        """
        newer, owner = self._of_loads
        if any(file.n_uncovered for file in record.files) or not newer.are_fully_hidden(record.coverage):
            return None
        moments = (
            newer.hidden_since(entry, None, lambda other: owner[other].committed_at) for entry in record.coverage
        )
        return max((moment for moment in moments if moment is not None), default=None)

    def rewritten_into(self, record: LoadRecord) -> str | None:
        """The record that stands for it now."""
        replacing = self._replaced_by.get(record.load_id)
        return replacing.load_id if replacing else None

    @cached_property
    def _of_loads(self) -> tuple[NewerCoverage, dict[CoverageEntry, LoadRecord]]:
        """The claims as loads made them, and whose each is."""
        if not self._replaced_by:
            return self._newer, self._owner
        owner = {entry: record for record in self.records if record.is_load for entry in record.coverage}
        return NewerCoverage(owner), owner

    @cached_property
    def _by_table(self) -> dict[str, list[FileState]]:
        grouped: dict[str, list[FileState]] = defaultdict(list)
        for each in self.file_states:
            grouped[each.file.table].append(each)
        return grouped

    def _judge(self, record: LoadRecord, file: DataFile) -> FileState:
        status, since = self._status(record, file)
        if status is FileStatus.DEAD and record.keep_superseded and file.table == MESSAGES.name:
            status = FileStatus.HISTORY
        if file.path in self._purged_by:
            status, since = FileStatus.PURGED, self._purged_by[file.path].committed_at
        return FileState(file=file, record=record, status=status, dead_since=since)

    def _status(self, record: LoadRecord, file: DataFile) -> tuple[FileStatus, datetime | None]:
        replacing = self._replaced_by.get(record.load_id)
        if replacing is not None:
            return FileStatus.DEAD, replacing.committed_at
        match TABLE_BY_NAME[file.table].placement:
            case Placement.SNAPSHOT:
                # Who was once seen in a channel is not known to be gone from the app.
                return FileStatus.WHOLE, None
            case Placement.LOG:
                if record.load_id not in self.expired_loads:
                    return FileStatus.WHOLE, None
                return FileStatus.DEAD, max(self._hidden_since(record.coverage, None), default=None)
            case Placement.EVENT:
                return self._status_of_event_file(record, file)

    def _status_of_event_file(self, record: LoadRecord, file: DataFile) -> tuple[FileStatus, datetime | None]:
        day = TimeSpan.of_day(file.day)
        if file.n_uncovered:
            return FileStatus.PARTLY_HIDDEN, None
        is_touched, all_hidden = False, True
        for entry in record.coverage:
            if entry.overlaps(day.since, day.until):
                is_touched |= any(not self._applied(entry, newer) for newer in self._newer.than(entry, day))
                all_hidden = all_hidden and self._newer.is_fully_hidden(entry, day)
        if not is_touched:
            return FileStatus.WHOLE, None
        if all_hidden:
            return FileStatus.DEAD, max(self._hidden_since(record.coverage, day), default=None)
        return FileStatus.PARTLY_HIDDEN, None

    def _hidden_since(self, entries: Iterable[CoverageEntry], span: TimeSpan | None) -> Iterator[datetime]:
        """When newer claims first hid all that each of the entries tells about a span."""
        for entry in entries:
            since = self._newer.hidden_since(entry, span, lambda newer: self._owner[newer].committed_at)
            if since is not None:
                yield since

    def _applied(self, entry: CoverageEntry, newer: CoverageEntry) -> bool:
        """Whether what the newer claim hides was left out when the files were written: both went into one rewrite."""
        owner = self._owner[entry]
        return owner is self._owner[newer] and not owner.is_load


def _latest(one: FileState | None, other: FileState) -> FileState:
    """Of two judgements of a file that was taken over: it lives where one record says so, and died with the last."""
    if one is None or other.dead_since is None:
        return other
    return one if one.dead_since is None or one.dead_since >= other.dead_since else other

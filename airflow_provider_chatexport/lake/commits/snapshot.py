"""The snapshot of a lake: from all of its records to the state of each of its files.

How it works
------------
Records are added and never changed, so a record cannot say what becomes of its files. That follows from all records
together, and this module works it out. So loads, compactions and removals of people need no lock: whatever order their
records arrive in, all readers of the records come to the same states.

1. A record is current unless another one ``replaces`` it. Every file that only replaced records list is dead.
2. The state of a file of a current record depends on the kind of its table. In an event table, newer coverage entries
   of the file's channels hide none of its rows (whole), some (partly hidden) or all (dead). In a snapshot table files
   stay whole, because a newer export that does not name a person does not say that the person is gone. Rejects and
   other entities live as long as any row of their load can be visible.
3. Coverage does not decide about loose rows: those that no entry of their own export contains, and reactions that lie
   at their own moment, because their load does not have their message. Of the rows of one key, the newest is right. So
   a live file is contested, and may have hidden rows, if a file of another record may have the same keys and one of the
   two has loose rows. Two files of one record never have the same key: a load keeps one row per key, and so does a
   rewrite.
4. A rewrite applies the truth rule while it writes: the rows of several loads go into one file, without those that are
   hidden. So two entries of one rewrite do not hide each other's rows any more. They do in the files that it took over
   as they were because they were lost: such a file may be restored (``as_they_were``).
5. A dead file of messages is history instead if its load keeps what newer loads supersede (``keep_superseded``).
   Nothing may read a file that a record purged.
6. A file that a rewrite took over is listed by several records. It is alive if one of them says so. A rewrite may also
   take single files of a record that remains (``taken``). It then has copies of all coverage entries that overlap these
   files, and has applied them: an entry may be in several records.
7. A record of ``repair`` purges files that are lost, and says what they leave uncovered (``lost``). Until there is one,
   who finds a file missing or damaged works with ``without`` it.

An example. A and B are loads of one channel, R is a compaction of both, and C is Monday, loaded again::

                       Mon            Tue
    A  exported Tue    [==============)                  file A.mon
    B  exported Wed              [=================)     files B.mon, B.tue
    R  compaction of A and B                             files R.mon and B.tue, which it takes over
    C  exported Thu    [==============)                  file C.mon

    records    A.mon          B.mon    B.tue    R.mon    C.mon
    A          whole
    A B        partly hidden  whole    whole
    A B R      dead           dead     whole    whole
    A B R C    dead           dead     whole    dead     whole

A.mon and B.mon are dead since R was committed, and R.mon since C was (``dead_since``). Readers may have a catalog from
before that moment open, so vacuum spares their files for a while.

Pure: the module decides, and others act. The catalog lists whole files, and reads partly hidden ones through the truth
rule (``visibility``); ``messages_history`` also reads files of history. The table folders show whole and partly hidden
files. Compaction rewrites partly hidden files. Vacuum deletes dead and purged ones.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cached_property

from airflow_provider_chatexport.lake.commits.contested import contested
from airflow_provider_chatexport.lake.commits.coverage import (
    CoverageEntry,
    EntriesByTime,
    NewerCoverage,
    TimeSpan,
    merged_spans,
    overlapping,
    overlaps_any,
)
from airflow_provider_chatexport.lake.commits.file_state import FileState, FileStatus, lost_spans
from airflow_provider_chatexport.lake.commits.lost_coverage import LostSpan, without_lost
from airflow_provider_chatexport.lake.commits.record import DataFile, LoadRecord
from airflow_provider_chatexport.lake.schema import promoted
from airflow_provider_chatexport.lake.schema.tables import MESSAGES, TABLE_BY_NAME
from airflow_provider_chatexport.lake.schema.types import Placement, Table


class Snapshot:
    """What all records of a lake say together.

    :param records: all of them, in any order.
    :param unreadable: paths of files that are missing or damaged.
    :param damaged: paths of further records, which are damaged.
    """

    def __init__(
        self, records: Sequence[LoadRecord], unreadable: Collection[str] = (), damaged: Collection[str] = ()
    ) -> None:
        self.records = records
        self.damaged = frozenset(damaged)
        self.unreadable = frozenset(unreadable)
        self._replaced_by, self._taken_by = _replacements(records)
        self._purged_by = {path: record for record in records for path in record.purged}
        self.current = [record for record in records if record.load_id not in self._replaced_by]
        # The first record that has an entry. Rewrites that take single files have copies of entries of others.
        self._owner: dict[CoverageEntry, LoadRecord] = {}
        self._copies: dict[CoverageEntry, list[LoadRecord]] = defaultdict(list)
        for record in sorted(self.current, key=lambda each: each.committed_at):
            for entry in record.coverage:
                if self._owner.setdefault(entry, record) is not record:
                    self._copies[entry].append(record)
        self._newer = NewerCoverage(self._owner)
        self._entries_by_time: dict[str, EntriesByTime] = {}
        self.superseded = {
            record.load_id
            for record in self.current
            if not record.has_uncovered and self._newer.are_fully_hidden(record.coverage)
        }

    def without(self, paths: Collection[str]) -> Snapshot:
        """Return the snapshot as it is without files that are missing or damaged."""
        return Snapshot(self.records, self.unreadable | set(paths), self.damaged) if paths else self

    # Coverage

    @cached_property
    def covered(self) -> list[CoverageEntry]:
        """What the lake covers: the entries that decide what is visible, without what stood on lost files."""
        return without_lost(self.coverage, self.lost)

    @cached_property
    def lost(self) -> list[LostSpan]:
        """What files that are lost leave uncovered."""
        recorded = [span for record in self.records for span in record.lost]
        return recorded + lost_spans(each for each in self.readable_states if each.status is FileStatus.LOST)

    @cached_property
    def coverage(self) -> list[CoverageEntry]:
        """The entries that decide what is visible."""
        deciding = (record for record in self.current if record.load_id not in self.superseded)
        return list(dict.fromkeys(entry for record in deciding for entry in record.coverage))

    @cached_property
    def masking_coverage(self) -> set[CoverageEntry]:
        """Those entries that may hide rows of live files."""
        masked = merged_spans(each.span for each in self.readable_states if each.is_live and each.is_masked)
        masking = {
            newer
            for record in self.current
            if record.load_id not in self.superseded
            for entry in record.coverage
            for newer in self._newer.than(entry)
            if (not self._is_applied(record, newer) or record.as_they_were) and overlaps_any(newer, masked)
        }
        return masking | self._over_uncovered

    @cached_property
    def recheck_coverage(self) -> set[CoverageEntry]:
        """Entries of loads that cover a moment which an older load covers too. They may have found a message gone."""
        newer, owner = self._of_loads
        readable = (each.file for each in self.readable_files_of(MESSAGES))
        loose = merged_spans(file.span for file in readable if file.n_uncovered)
        return {each for entry in owner for each in newer.than(entry)} | set(overlapping(owner, loose))

    @cached_property
    def readable_recheck_coverage(self) -> set[CoverageEntry]:
        """Those of which the messages can still be read, every row of them: a message not among them was gone."""
        _, owner = self._of_loads
        readable = {each.file.path for each in self.readable_files_of(MESSAGES)}

        def is_lost(path: str) -> bool:
            return path not in readable and (path not in self._rewritten or any(map(is_lost, self._rewritten[path])))

        records = {owner[entry].load_id: owner[entry] for entry in self.recheck_coverage}
        lost = {
            load_id
            for load_id, record in records.items()
            if any(is_lost(file.path) for file in record.files if file.table == MESSAGES.name)
        }
        return {entry for entry in self.recheck_coverage if owner[entry].load_id not in lost}

    @cached_property
    def _rewritten(self) -> dict[str, list[str]]:
        """By path of a file of messages, the paths of the files that rewrites put all of its rows into.

        The removal of a person leaves out the rows of that person.
        """
        return {old: new for each in self.records for old, new in each.facts.get("rewritten", {}).items()}

    # Loads

    @cached_property
    def expired_loads(self) -> set[str]:
        """Loads whose rejects and other entities go, because newer loads have all that those files say.

        Exports of users have no coverage, so what came with them stays.
        """
        of_users = {
            record.load_id
            for record in self.current
            if any(TABLE_BY_NAME[file.table].owned_by for file in record.files)
        }
        return self.superseded - of_users

    @cached_property
    def with_losses(self) -> set[str]:
        """Records of which files are lost, and no record says so yet."""
        return {each.record.load_id for each in self.readable_states if each.status is FileStatus.LOST}

    @cached_property
    def lost_loads(self) -> set[str]:
        """Loads of which files were lost: their exports can be loaded once more."""
        return {load_id for record in self.records for load_id in record.facts.get("lost_loads", ())}

    def retired_at(self, record: LoadRecord) -> datetime | None:
        """Return when newer loads had superseded all of a load; None while any of its rows can be visible.

        A rewrite of its files changes nothing about that.
        """
        if record.has_uncovered or not record.coverage or record.load_id in self._visible_loads:
            return None
        newer, owner = self._of_loads
        moments = (
            newer.hidden_since(entry, None, lambda other: owner[other].committed_at) for entry in record.coverage
        )
        return max((moment for moment in moments if moment is not None), default=None)

    def rewritten_into(self, record: LoadRecord) -> str | None:
        """Return the id of the rewrite that replaces a record; None if none does."""
        replacing = self._replaced_by.get(record.load_id)
        return replacing.load_id if replacing else None

    # Tables and files

    @cached_property
    def promoted_types(self) -> dict[str, dict[str, str]]:
        """The type of every promoted column of the lake, by table and name: that of the first file to have it."""
        types: dict[str, dict[str, str]] = {}
        found = (
            (record.committed_at, record.load_id, file)
            for record in self.records
            if record.has_promoted
            for file in (*record.files, *record.history)
            if file.promoted
        )
        for _, _, file in sorted(found, key=lambda each: each[:2]):
            for name, kind in file.promoted:
                types.setdefault(file.table, {}).setdefault(name, kind)
        return types

    @property
    def tables(self) -> tuple[Table, ...]:
        """The registry's tables, with the columns that the lake has promoted."""
        return promoted.tables_with(self.promoted_types)

    @cached_property
    def file_states(self) -> list[FileState]:
        """The state of every file of every record; of a file that a rewrite took over, that with the later record."""
        return self._states(self.records)

    @cached_property
    def readable_states(self) -> list[FileState]:
        """The states of the files that views or ``messages_history`` read, and of those that are lost.

        Records that were replaced have no such files, unless something is kept for history. So a load does not read
        what they list.
        """
        has_history = any(record.keep_superseded or record.history for record in self.records)
        states = self.file_states if has_history else self._states(self.current)
        return [each for each in states if each.is_readable or each.status is FileStatus.LOST]

    def states_since(self, moment: datetime) -> list[FileState]:
        """Return the states of the files that may have ceased to be live at a moment or later, and of live ones."""
        if any(record.keep_superseded or record.history for record in self.records):
            return self.file_states
        return self._states(
            record
            for record in self.records
            if (by := self._replaced_by.get(record.load_id)) is None or by.committed_at >= moment
        )

    def _states(self, records: Iterable[LoadRecord]) -> list[FileState]:
        states: dict[str, FileState] = {}
        for record in records:
            for file in record.files:
                states[file.path] = _latest(states.get(file.path), self._judge(record, file))
            for file in record.history:
                purged = file.path in self._purged_by
                states[file.path] = FileState(
                    file=file,
                    record=record,
                    status=FileStatus.PURGED if purged else FileStatus.HISTORY,
                    dead_since=record.committed_at,
                )
        for path in self.unreadable & states.keys():
            if states[path].is_readable:
                states[path] = replace(states[path], status=FileStatus.LOST)
        for each in contested(each for each in states.values() if each.is_live):
            states[each.file.path] = replace(each, status=FileStatus.PARTLY_HIDDEN, is_contested=True)
        return list(states.values())

    def files_of(self, table: Table) -> Sequence[FileState]:
        """Return the state of every file of a table."""
        return [each for each in self.file_states if each.file.table == table.name]

    def readable_files_of(self, table: Table) -> list[FileState]:
        """Return the state of every file of a table that views or ``messages_history`` read."""
        return [each for each in self._readable_by_table[table.name] if each.is_readable]

    def live_files_of(self, table: Table) -> Iterator[FileState]:
        """Yield the live files of a table."""
        return (each for each in self._readable_by_table[table.name] if each.is_live)

    @cached_property
    def _readable_by_table(self) -> dict[str, list[FileState]]:
        grouped: dict[str, list[FileState]] = defaultdict(list)
        for each in self.readable_states:
            grouped[each.file.table].append(each)
        return grouped

    @cached_property
    def _visible_loads(self) -> set[str]:
        """Loads of which newer entries do not hide some moment.

        A rewrite drops entries that newer ones hide, and no others. So this reads no record of a replaced load.
        """
        return {entry.load_id for entry in self._owner if not self._newer.is_fully_hidden(entry)}

    @cached_property
    def _of_loads(self) -> tuple[NewerCoverage, dict[CoverageEntry, LoadRecord]]:
        """The coverage as it was before any rewrite, and the load that each entry belongs to.

        Rewrites take entries over as they are, or drop them. So it reads the records of loads of which one was dropped.
        """
        loads = {record.load_id: record for record in self.records if record.is_load}
        owner = {entry: loads[entry.load_id] for entry in self._owner if entry.load_id in loads}
        kept: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
        for entry in owner:
            n_entries, n_channels = kept[entry.load_id]
            kept[entry.load_id] = n_entries + 1, n_channels + len(entry.channels)
        dropped = {
            entry: record
            for record in loads.values()
            if record.extent != kept[record.load_id]
            for entry in record.coverage
        }
        if not dropped and len(owner) == len(self._owner):
            return self._newer, owner
        return NewerCoverage(owner | dropped), owner | dropped

    @cached_property
    def _over_uncovered(self) -> set[CoverageEntry]:
        """The entries over files with uncovered rows: any newer entry of its channel hides such a row.

        Without the entries of a rewrite over its own files: it has applied those.
        """
        spans: dict[str, set[TimeSpan]] = defaultdict(set)
        for record in self.current:
            for file in record.files:
                if file.n_uncovered:
                    spans[record.load_id].add(file.span)
        if not spans:
            return set()
        of_all = merged_spans(set().union(*spans.values()))
        entries: dict[str, list[CoverageEntry]] = defaultdict(list)
        for entry in self.coverage:
            entries[self._owner[entry].load_id].append(entry)
        rewrites = {record.load_id for record in self.current if not record.is_load}
        return {
            entry
            for load_id, of_record in entries.items()
            for entry in overlapping(
                of_record,
                merged_spans(set().union(*(of_one for owner, of_one in spans.items() if owner != load_id)))
                if load_id in rewrites
                else of_all,
            )
        }

    @cached_property
    def _spans_over_uncovered(self) -> list[TimeSpan]:
        """What those entries contain together."""
        return merged_spans(self._over_uncovered)

    def _judge(self, record: LoadRecord, file: DataFile) -> FileState:
        status, since = self._status(record, file)
        is_masked = status is FileStatus.PARTLY_HIDDEN
        is_kept = record.keep_superseded and file.table == MESSAGES.name and file.path not in self._rewritten
        if status is FileStatus.DEAD and is_kept:
            status = FileStatus.HISTORY
        if file.path in self._purged_by:
            status, since = FileStatus.PURGED, self._purged_by[file.path].committed_at
        return FileState(file=file, record=record, status=status, dead_since=since, is_masked=is_masked)

    def _status(self, record: LoadRecord, file: DataFile) -> tuple[FileStatus, datetime | None]:
        """Return whether coverage leaves a file whole, partly hidden or dead, and since when it is dead."""
        replacing = self._taken_by.get((record.load_id, file.path)) or self._replaced_by.get(record.load_id)
        if replacing is not None:
            return FileStatus.DEAD, replacing.committed_at
        match TABLE_BY_NAME[file.table].placement:
            case Placement.SNAPSHOT:
                return FileStatus.WHOLE, None
            case Placement.LOG:
                if record.load_id not in self.expired_loads:
                    return FileStatus.WHOLE, None
                return FileStatus.DEAD, max(self._hidden_since(record.coverage, None), default=None)
            case Placement.EVENT:
                return self._status_of_event_file(record, file)

    def _status_of_event_file(self, record: LoadRecord, file: DataFile) -> tuple[FileStatus, datetime | None]:
        if record.load_id not in self._overlapped and not file.n_uncovered:
            return FileStatus.WHOLE, None
        span = file.span
        is_touched = bool(file.n_uncovered) and overlaps_any(span, self._spans_over_uncovered)
        all_hidden = not file.n_uncovered
        is_rewritten = file.path not in record.as_they_were
        entries = list(self._by_time(record).overlapping(span))
        for entry in entries:
            newer_entries = self._newer.than(entry, span)
            is_touched |= any(not (is_rewritten and self._is_applied(record, each)) for each in newer_entries)
            all_hidden = all_hidden and self._newer.is_fully_hidden(entry, span)
        if not is_touched:
            return FileStatus.WHOLE, None
        if all_hidden:
            return FileStatus.DEAD, max(self._hidden_since(entries, span), default=None)
        return FileStatus.PARTLY_HIDDEN, None

    @cached_property
    def _overlapped(self) -> set[str]:
        """Records of which newer entries may hide rows: those that a rewrite applied hide none, but in lost files."""
        found: set[str] = set()
        for entry in self._newer.older():
            for record in self._holders(entry):
                if record.load_id not in found and (
                    record.as_they_were or not all(self._is_applied(record, newer) for newer in self._newer.than(entry))
                ):
                    found.add(record.load_id)
        return found

    def _by_time(self, record: LoadRecord) -> EntriesByTime:
        """Return the entries of a record, to find those of a file."""
        if record.load_id not in self._entries_by_time:
            self._entries_by_time[record.load_id] = EntriesByTime(record.coverage)
        return self._entries_by_time[record.load_id]

    def _hidden_since(self, entries: Iterable[CoverageEntry], span: TimeSpan | None) -> Iterator[datetime]:
        """Yield when newer entries first hid each of the entries, or its part in a span."""
        for entry in entries:
            since = self._newer.hidden_since(entry, span, lambda newer: self._owner[newer].committed_at)
            if since is not None:
                yield since

    def _is_applied(self, record: LoadRecord, newer: CoverageEntry) -> bool:
        """Return whether a record is of a rewrite that left out the rows of its files that an entry hides."""
        return not record.is_load and any(each is record for each in self._holders(newer))

    def _holders(self, entry: CoverageEntry) -> Sequence[LoadRecord]:
        """Return the current records that have an entry."""
        return (self._owner[entry], *self._copies.get(entry, ()))


def _replacements(
    records: Iterable[LoadRecord],
) -> tuple[dict[str, LoadRecord], dict[tuple[str, str], LoadRecord]]:
    """Return which rewrite replaces each record, by the record's id; and which took a file, by record's id and path.

    If the record of a rewrite is damaged, the next rewrite replaces the same records. If the first one is restored
    later, its rows would be there twice. So the later rewrite counts, and replaces the earlier one as well.
    """
    replaced_by: dict[str, LoadRecord] = {}
    taken_by: dict[tuple[str, str], LoadRecord] = {}
    rewrites = (each for each in records if each.replaces or each.taken)
    for rewrite in sorted(rewrites, key=lambda each: each.load_id, reverse=True):
        taken = [(load_id, path) for load_id, paths in rewrite.taken.items() for path in paths]
        rivals = [
            *(replaced_by[load_id] for load_id in rewrite.replaces if load_id in replaced_by),
            *(taken_by[each] for each in taken if each in taken_by),
            # A later rewrite of a record is mostly one of its other files, unless it did not know of this one.
            *(
                later
                for load_id in rewrite.taken
                if (later := replaced_by.get(load_id)) is not None and rewrite.load_id in later.unread
            ),
        ]
        if rivals:
            replaced_by.setdefault(rewrite.load_id, rivals[0])
        else:
            replaced_by |= dict.fromkeys(rewrite.replaces, rewrite)
            taken_by |= dict.fromkeys(taken, rewrite)
    return replaced_by, taken_by


def _latest(one: FileState | None, other: FileState) -> FileState:
    """Return the state of a file that two records list: it lives where one says so, or else died with the later."""
    if one is None or other.dead_since is None:
        return other
    return one if one.dead_since is None or one.dead_since >= other.dead_since else other

"""Verify: compare a lake with its records, and the records with each other. Changes nothing.

A finding is either a fault, or a note: nothing is wrong with the data, but someone may want to know.
"""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import duckdb

from airflow_provider_chatexport.core.times import format_rfc3339
from airflow_provider_chatexport.errors import LakeError, MovedLakeError
from airflow_provider_chatexport.lake.catalog import catalog_file, folders
from airflow_provider_chatexport.lake.commits import log as commit_log
from airflow_provider_chatexport.lake.commits import visibility
from airflow_provider_chatexport.lake.commits.contested import unsettled_groups
from airflow_provider_chatexport.lake.commits.coverage import CoverageEntry, overlapping_pairs
from airflow_provider_chatexport.lake.commits.file_state import FileState
from airflow_provider_chatexport.lake.commits.gaps import uncovered_spans
from airflow_provider_chatexport.lake.commits.losses import CURE, fault_of_content
from airflow_provider_chatexport.lake.commits.record import LoadRecord
from airflow_provider_chatexport.lake.commits.snapshot import Snapshot
from airflow_provider_chatexport.lake.maintenance.forget import unchecked_loads
from airflow_provider_chatexport.lake.printing import Report
from airflow_provider_chatexport.lake.privacy import suppression_list
from airflow_provider_chatexport.lake.schema import sql
from airflow_provider_chatexport.lake.schema.tables import ENTITY_TABLES, TABLES
from airflow_provider_chatexport.lake.schema.types import Placement, Table
from airflow_provider_chatexport.lake.storage.local_store import LocalStore
from airflow_provider_chatexport.lake.storage.store import LakeStore
from airflow_provider_chatexport.lake.storage.workdir import UNKNOWN_AFTER

# How many rows are compared by key at a time: some 100 MB.
_ROWS_AT_A_TIME: Final = 1_000_000
_NOTES: Final = ("catalog", "unknown", "flags", "replies")
_NO_LINK: Final = "run chatexport catalog, which restores the links in the table folders"
# How long to wait for a link that another process may be putting into its folder.
_PAUSES_S: Final = (0.1, 0.4, 1.0, 2.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing found.

    :param kind: a fault: gap, missing, altered, unaccounted, damaged, forgotten, doubled, moved; or a note: catalog,
        unknown, flags, replies.
    :param what: a sentence: what is wrong, where, and what to do.
    :param record_id: of the record that lists the file, if the finding is about a file.
    """

    kind: str
    what: str
    record_id: str | None = None

    @property
    def is_fault(self) -> bool:
        """Whether something is wrong with the data."""
        return self.kind not in _NOTES

    def to_json(self) -> dict[str, Any]:
        """Return the finding as JSON types."""
        return {"kind": self.kind, "fault": self.is_fault, "what": self.what}


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport(Report):
    """All findings, and how much was checked."""

    findings: tuple[Finding, ...]
    n_loads: int
    n_files: int

    @property
    def ok(self) -> bool:
        """Whether there is no fault."""
        return not any(finding.is_fault for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON types."""
        return {
            "ok": self.ok,
            "loads": self.n_loads,
            "files": self.n_files,
            "findings": [finding.to_json() for finding in self.findings],
        }


def verify(store: LakeStore, *, now: datetime) -> VerifyReport:
    """Check the whole lake.

    It reads every record from its own file, all bytes of every file that readers need, and the catalog. Rows it reads
    only where the files of several records share a day.

    :param now: aware. A file that is in no record may belong to a load under way, unless it is older than a day.
    :raises LakeError: the lake cannot be read, or a file among the records is not a record.
    """
    catalog_file.require_lake(store)
    snapshot = commit_log.read_snapshot(store, afresh=True)
    loads = [record for record in snapshot.records if record.is_load]
    findings = [
        *_gaps(snapshot),
        *_flags(loads, snapshot.coverage),
        *_damaged(store),
        *_unaccounted(snapshot.records),
        *_unsearched(store, snapshot),
        *_files(store, snapshot),
        *_unknown_files(store, snapshot, now),
        # Last, so that a load that was committed before the records were read has had time to write it.
        *_catalog(store, snapshot),
        *_doubled(store, snapshot),
        *_replies(store),
    ]
    n_files = sum(each.is_live for each in snapshot.file_states)
    return VerifyReport(findings=tuple(findings), n_loads=len(loads), n_files=n_files)


def _catalog(store: LakeStore, snapshot: Snapshot) -> Iterator[Finding]:
    """Check that the catalog knows every record: people query the catalog, and see no other load."""
    try:
        what = catalog_file.fault(store, snapshot)
    except MovedLakeError as error:
        yield Finding(kind="moved", what=error.message)
        return
    if what:
        yield Finding(kind="catalog", what=what)


def _doubled(store: LakeStore, snapshot: Snapshot) -> Iterator[Finding]:
    """Check that no view shows two rows of one key on a day, as of a message that moved to another channel.

    The files of one record have one row per key. So only days with files of several records are read.
    """
    for table in TABLES:
        if table.placement is not Placement.EVENT:
            continue
        key = ", ".join(map(sql.name, (table.date_column, *table.key)))
        n_keys = 0
        with contextlib.suppress(LakeError, duckdb.Error), contextlib.closing(catalog_file.connect(store)) as con:
            for spans in _unsettled_days(snapshot, table):
                among = " OR ".join(
                    f"{table.date_column} BETWEEN DATE {sql.quoted(first)} AND DATE {sql.quoted(last)}"
                    for first, last in spans
                )
                n_keys += con.execute(
                    f"""
                    SELECT count(*) FROM (
                        SELECT 1 FROM {table.name} WHERE {among}
                        GROUP BY {key} HAVING count(*) > 1
                    )
                    """
                ).fetchall()[0][0]
        if n_keys:
            yield Finding(
                kind="doubled",
                what=f"{table.name} shows more than one row for {n_keys} of its keys ({', '.join(table.key)}), as of "
                "messages that are in two channels by two exports; run chatexport compact, which keeps the newest",
            )


def _unsettled_days(snapshot: Snapshot, table: Table) -> Iterator[list[tuple[str, str]]]:
    """Yield first and last days of spans with live files of several records: as many as are compared in memory."""
    spans: list[tuple[str, str]] = []
    n_rows = 0
    for files in unsettled_groups(snapshot.live_files_of(table)):
        spans.append((files[0].file.first_day, max(each.file.last_day for each in files)))
        n_rows += sum(each.file.rows for each in files)
        if n_rows >= _ROWS_AT_A_TIME:
            yield spans
            spans, n_rows = [], 0
    if spans:
        yield spans


def _replies(store: LakeStore) -> Iterator[Finding]:
    """Note how many replies are not in the lake, as far as its messages know of them."""
    # A catalog or a file that cannot be read has a finding of its own, and an older catalog does not have the macro.
    with contextlib.suppress(LakeError, duckdb.Error), contextlib.closing(catalog_file.connect(store)) as con:
        n_channels, n_missing = con.execute("SELECT count(*), sum(missing) FROM missing_replies()").fetchall()[0]
        if n_channels:
            yield Finding(
                kind="replies",
                what=f"{n_missing} replies in {n_channels} channels are not in the lake, by the reply counts of its "
                "messages; the exports do not contain them, or they lie outside of what is loaded: chatexport sql "
                '"FROM missing_replies()" lists the channels',
            )


def _gaps(snapshot: Snapshot) -> Iterator[Finding]:
    """Check that every moment of a channel is covered, from the first moment to the last that an export covered."""
    for cid, spans in sorted(uncovered_spans(snapshot.coverage, snapshot.lost).items()):
        for gap in spans:
            yield Finding(
                kind="gap",
                what=f"{cid} is not covered from {format_rfc3339(gap.since)} to {format_rfc3339(gap.until)}; "
                "export that window",
            )


def _flags(loads: Iterable[LoadRecord], entries: Iterable[CoverageEntry]) -> Iterator[Finding]:
    """Check that loads that overlap were exported with the same options: the newer one's decide what is visible."""
    flags = {record.load_id: record.flags for record in loads}
    reported: set[tuple[str, str]] = set()
    for older, newer in overlapping_pairs(entries):
        pair = (older.load_id, newer.load_id)
        if pair not in reported and flags[pair[0]] != flags[pair[1]]:
            reported.add(pair)
            yield Finding(
                kind="flags",
                what=f"load {newer.load_id} was exported with other options than load {older.load_id}, which it "
                f"overlaps in {_common(older, newer)}: there, what the newer one left out is hidden",
            )


def _common(one: CoverageEntry, other: CoverageEntry) -> str:
    """Return the first channel that two entries share."""
    return min(set(one.channels.names).intersection(other.channels.names))


def _damaged(store: LakeStore) -> Iterator[Finding]:
    """Check that every record can be read from its own file."""
    for path, record in commit_log.damaged_records(store).items():
        cure = "restores it from the checkpoint" if record else "goes on without it; then export its window again"
        yield Finding(
            kind="damaged",
            what=f"{store.url(path)} is not a load record; restore it from a backup, or run chatexport repair, which "
            f"{cure}",
        )


def _unaccounted(records: Iterable[LoadRecord]) -> Iterator[Finding]:
    """Check the law of conservation, and that the files hold the rows that the record counts."""
    for record in records:
        if record.is_load:
            yield from _entities(record)
        n_written: dict[str, int] = defaultdict(int)
        for file in record.files:
            n_written[file.table] += file.rows
        for table, n_rows in record.counts["rows"].items():
            if n_written[table] != n_rows:
                yield Finding(
                    kind="unaccounted",
                    what=f"load {record.load_id} counts {n_rows} rows of {table} and its files hold {n_written[table]}",
                )


def _entities(record: LoadRecord) -> Iterator[Finding]:
    """Check that every entity of a load is a row, or is counted as something else."""
    counts = record.counts
    n_in = sum(counts["entities"].values()) + counts["rejected_lines"]
    n_rows = sum(counts["rows"].get(table.name, 0) - counts["drawn"].get(table.name, 0) for table in ENTITY_TABLES)
    n_forgotten = sum(counts["forgotten"].get(table.name, 0) for table in ENTITY_TABLES)
    others = ("duplicates", "out_of_window", "other_entities", "rejected")
    n_out = n_rows + n_forgotten + sum(counts[name] for name in others)
    if n_in != n_out or counts["lines"] > n_in:
        yield Finding(
            kind="unaccounted",
            what=f"load {record.load_id} took in {counts['lines']} lines with {n_in} entities and accounts for "
            f"{n_out}; load its exports again, and report it",
        )


def _unsearched(store: LakeStore, snapshot: Snapshot) -> Iterator[Finding]:
    """Check that no load may contain people who were removed while it was under way, and that the list is whole."""
    try:
        listed = suppression_list.read(store)
        unsearched = unchecked_loads(store, snapshot)
    except LakeError as error:
        yield Finding(kind="forgotten", what=error.message)
        return
    for address in suppression_list.missing(store, listed):
        yield Finding(
            kind="forgotten",
            what=f"{address} of the suppression list is gone, and loads may bring the person back; restore it from a "
            "backup, or run forget-user again for the person",
        )
    for load_id in sorted(unsearched):
        yield Finding(
            kind="forgotten",
            what=f"load {load_id} may contain people who were removed from the lake; run chatexport vacuum, which "
            "finishes their removal",
        )


def _files(store: LakeStore, snapshot: Snapshot) -> Iterator[Finding]:
    """Check that every file that readers need is there, and has the recorded digest.

    Others may be at work. So what has a fault is looked at again, if the latest records still need it. A load puts its
    links into the table folders after its commit. Then it writes the catalog. So a link is missing only if the catalog
    knows the record of its file, and not for a moment only: two loads may exchange a folder at the same time.
    """
    findings = _faults(store, snapshot.file_states)
    for pause_s in (0, *_PAUSES_S):
        time.sleep(pause_s)
        findings = _look_again(store, findings)
        if not any(finding.what.endswith(_NO_LINK) for finding in findings.values()):
            break
    yield from findings.values()


def _look_again(store: LakeStore, findings: Mapping[str, Finding]) -> dict[str, Finding]:
    """Return those of the faults that the latest records still have."""
    while findings:
        latest = commit_log.read_snapshot(store)
        shown = catalog_file.records_shown(store)
        findings = {
            path: finding
            for path, finding in _faults(store, (f for f in latest.file_states if f.file.path in findings)).items()
            if not finding.what.endswith(_NO_LINK) or finding.record_id in shown
        }
        if commit_log.is_latest(store, latest):
            break
    return dict(findings)


def _faults(store: LakeStore, files: Iterable[FileState]) -> dict[str, Finding]:
    return {each.file.path: finding for each in files if each.is_readable and (finding := _file(store, each))}


def _file(store: LakeStore, each: FileState) -> Finding | None:
    """Check a file that readers need, under all of its names."""
    # Last the link, which goes with a damaged file.
    paths = [visibility.path_in(store, each)]
    if isinstance(store, LocalStore) and each.is_live:
        paths = store.data_copies(each.file.path)[::-1]
    for path in paths:
        try:
            why = fault_of_content(store, path, each.file.sha256)
        except LakeError as error:
            return Finding(kind="missing", what=f"{each.file.path} cannot be read: {error.message}")
        if why is not None:
            is_link = path != visibility.path_in(store, each) and store.has_data(each.file.path)
            return Finding(
                kind="missing" if "sha256" not in why else "altered",
                what=f"{each.file.path} of load {each.record.load_id} {why} ({path}); {_NO_LINK if is_link else CURE}",
                record_id=each.record.load_id,
            )
    return None


def _unknown_files(store: LakeStore, snapshot: Snapshot, now: datetime) -> Iterator[Finding]:
    """Check for old files that are in no record, and for files in the table folders that are not live."""
    for path in commit_log.unknown_files(store, snapshot, before=now - UNKNOWN_AFTER):
        yield Finding(
            kind="unknown",
            what=f"{path} is in no record: a load that was broken off left it; chatexport vacuum removes it",
        )
    if isinstance(store, LocalStore):
        live = {each.file.path for each in snapshot.file_states if each.is_live}
        for path in sorted(folders.shown(store) - live):
            with contextlib.suppress(FileNotFoundError):  # another process has just deleted it
                modified_at = datetime.fromtimestamp(store.local_path(path).stat().st_mtime, UTC)
                if now - modified_at > UNKNOWN_AFTER:
                    yield Finding(
                        kind="unknown",
                        what=f"{path} is not live, and a glob finds it; run chatexport catalog to repair the folders",
                    )

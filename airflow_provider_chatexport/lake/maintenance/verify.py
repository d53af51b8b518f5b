"""Is the lake what its records say, and do the records say that nothing is missing?

Looks at every record and every file, and changes nothing. What it finds is either a fault (the answer is no) or a note
(nothing is wrong, but someone may want to know).
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Final

from airflow_provider_chatexport.core.times import format_rfc3339
from airflow_provider_chatexport.lake.catalog import catalog_file, folders
from airflow_provider_chatexport.lake.commits import log as commit_log
from airflow_provider_chatexport.lake.commits import visibility
from airflow_provider_chatexport.lake.commits.coverage import CoverageEntry, covered_spans, hiding
from airflow_provider_chatexport.lake.commits.log import unknown_files
from airflow_provider_chatexport.lake.commits.record import LoadRecord
from airflow_provider_chatexport.lake.commits.snapshot import Snapshot
from airflow_provider_chatexport.lake.printing import Report
from airflow_provider_chatexport.lake.schema.tables import ENTITY_TABLES
from airflow_provider_chatexport.lake.storage.local_store import LocalStore
from airflow_provider_chatexport.lake.storage.store import LakeStore
from airflow_provider_chatexport.lake.storage.workdir import UNKNOWN_AFTER


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing found. ``kind``: gap, missing, altered, unaccounted, catalog, unknown or flags; the last three
    are notes, of what is no fault of the data."""

    kind: str
    what: str

    @property
    def is_fault(self) -> bool:
        return self.kind not in ("catalog", "unknown", "flags")

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "fault": self.is_fault, "what": self.what}


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport(Report):
    """All findings, and how much was looked at."""

    findings: tuple[Finding, ...]
    n_loads: int
    n_files: int

    @property
    def ok(self) -> bool:
        return not any(finding.is_fault for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "loads": self.n_loads,
            "files": self.n_files,
            "findings": [finding.to_json() for finding in self.findings],
        }


def verify(store: LakeStore, *, now: datetime) -> VerifyReport:
    """Looks at the whole lake.

    :param now: aware; what is younger than a day and in no record may belong to a load under way.
    :raises LakeError: the lake cannot be read, or a record is none.
    """
    catalog_file.require_lake(store)
    snapshot = Snapshot(commit_log.all_loads(store, known={}))
    loaded = [record for record in snapshot.records if record.is_load]
    findings = [
        *_gaps(snapshot.coverage),
        *_flags(loaded, snapshot.coverage),
        *_unaccounted(snapshot.records),
        *_files(store, snapshot),
        *_unknown_files(store, snapshot, now),
        # Last, so that a load that was committed when the records were read has had time to write it.
        *_catalog(store, snapshot),
    ]
    n_files = sum(each.is_live for each in snapshot.file_states)
    return VerifyReport(findings=tuple(findings), n_loads=len(loaded), n_files=n_files)


def _catalog(store: LakeStore, snapshot: Snapshot) -> Iterator[Finding]:
    """People query the catalog: a load that it does not know is not there for them."""
    if what := catalog_file.fault(store, snapshot):
        yield Finding(kind="catalog", what=what)


def _gaps(entries: Iterable[CoverageEntry]) -> Iterator[Finding]:
    """Between the first and the last moment that is covered of a channel, every moment should be."""
    for cid, spans in sorted(covered_spans(entries).items()):
        for before, after in pairwise(spans):
            yield Finding(
                kind="gap",
                what=f"{cid} is not covered from {format_rfc3339(before.until)} to {format_rfc3339(after.since)}; "
                "export that window",
            )


def _flags(loaded: Iterable[LoadRecord], entries: Iterable[CoverageEntry]) -> Iterator[Finding]:
    """Where loads overlap that were exported with different options, the newer one's options decide what is seen."""
    flags = {record.load_id: record.flags for record in loaded}
    told: set[tuple[str, str]] = set()
    for older, newer in hiding(entries):
        pair = (older.load_id, newer.load_id)
        if pair not in told and flags[pair[0]] != flags[pair[1]]:
            told.add(pair)
            yield Finding(
                kind="flags",
                what=f"load {newer.load_id} was exported with other options than load {older.load_id}, which it "
                f"overlaps in {newer.cid}: there, what the newer one left out is hidden",
            )


def _unaccounted(records: Iterable[LoadRecord]) -> Iterator[Finding]:
    """Every entity that came in is a row, or counted as what it is instead; and the files hold the rows counted."""
    for record in records:
        if record.is_load:
            yield from _entities_of(record)
        written: dict[str, int] = defaultdict(int)
        for file in record.files:
            written[file.table] += file.rows
        for table, n_rows in record.counts["rows"].items():
            if written[table] != n_rows:
                yield Finding(
                    kind="unaccounted",
                    what=f"load {record.load_id} counts {n_rows} rows of {table} and its files hold {written[table]}",
                )


def _entities_of(record: LoadRecord) -> Iterator[Finding]:
    counts = record.counts
    came_in = sum(counts["entities"].values()) + counts["rejected_lines"]
    own_rows = sum(counts["rows"].get(table.name, 0) - counts["drawn"].get(table.name, 0) for table in ENTITY_TABLES)
    others = ("duplicates", "out_of_window", "other_entities", "rejected")
    forgotten = sum(counts["forgotten"].get(table.name, 0) for table in ENTITY_TABLES)
    went_out = own_rows + forgotten + sum(counts[name] for name in others)
    if came_in != went_out or counts["lines"] > came_in:
        yield Finding(
            kind="unaccounted",
            what=f"load {record.load_id} took in {counts['lines']} lines with {came_in} entities and accounts for "
            f"{went_out}; load its exports again, and report it",
        )


def _files(store: LakeStore, snapshot: Snapshot) -> Iterator[Finding]:
    for each in snapshot.file_states:
        if not each.is_readable:
            continue
        where = f"{each.file.path} of load {each.record.load_id}"
        for path in store.data_copies(each.file.path) if each.is_live else [visibility.path_in(store, each)]:
            try:
                digest = hashlib.sha256()
                for chunk in store.chunks(path):
                    digest.update(chunk)
            except OSError as error:
                what = "is gone" if isinstance(error, FileNotFoundError) else f"cannot be read, {error.strerror}"
                yield Finding(kind="missing", what=f"{where} {what} ({path}); {_CURE}")
                break
            if digest.hexdigest() != each.file.sha256:
                yield Finding(kind="altered", what=f"{where} is not what was written; export its window again")
                break


_CURE: Final = "run chatexport catalog, which mends what can be mended, or export its window again"


def _unknown_files(store: LakeStore, snapshot: Snapshot, now: datetime) -> Iterator[Finding]:
    for path in unknown_files(store, snapshot, before=now - UNKNOWN_AFTER):
        yield Finding(
            kind="unknown",
            what=f"{path} is in no record: a load that was broken off left it; chatexport vacuum removes it",
        )
    if isinstance(store, LocalStore):
        live = {each.file.path for each in snapshot.file_states if each.is_live}
        for path in sorted(folders.shown(store) - live):
            modified_at = datetime.fromtimestamp(store.local_path(path).stat().st_mtime, UTC)
            if now - modified_at > UNKNOWN_AFTER:
                yield Finding(
                    kind="unknown",
                    what=f"{path} is not live, and a glob finds it; chatexport catalog puts the folders in order",
                )

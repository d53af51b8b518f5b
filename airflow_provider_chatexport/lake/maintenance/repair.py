"""Repair: rebuild what can be rebuilt, and record what is lost, so that everything else goes on.

A lake can rebuild its catalog, its table folders, its checkpoint and its empty files. It cannot rebuild data files that
are missing or damaged. A record says that they are lost: no view names them any more, and what they stood for is not
covered. So ``sync`` exports it again, the same exports can be loaded again, and of snapshot tables the next newest rows
stand. The record is numbered like that of a rewrite: if a compaction was faster, the repair starts again.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any, Final

from airflow_provider_chatexport.core.times import format_rfc3339
from airflow_provider_chatexport.lake.catalog import catalog_file
from airflow_provider_chatexport.lake.catalog.refresh import refresh
from airflow_provider_chatexport.lake.commits import log as commit_log
from airflow_provider_chatexport.lake.commits import record_json
from airflow_provider_chatexport.lake.commits.coverage import TimeSpan
from airflow_provider_chatexport.lake.commits.file_state import lost_spans
from airflow_provider_chatexport.lake.commits.gaps import uncovered_spans
from airflow_provider_chatexport.lake.commits.losses import LostFile, find_lost, loads_of
from airflow_provider_chatexport.lake.commits.record import LoadRecord
from airflow_provider_chatexport.lake.commits.snapshot import Snapshot
from airflow_provider_chatexport.lake.maintenance.rewrite import Rewrite, commit_rewrite
from airflow_provider_chatexport.lake.printing import Report
from airflow_provider_chatexport.lake.storage.store import LakeStore

log = logging.getLogger(__name__)

KIND: Final = "loss"


@dataclass(frozen=True, slots=True, kw_only=True)
class LostWindow:
    """A window that is not covered any more, and its channels."""

    span: TimeSpan
    cids: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the window as JSON types."""
        since, until = format_rfc3339(self.span.since), format_rfc3339(self.span.until)
        return {"since": since, "until": until, "channels": list(self.cids)}


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairReport(Report):
    """What is lost, and what to export or load again.

    :param record_id: of the record that says so; None if nothing is lost, or after a dry run.
    :param lost: the files that are missing or damaged.
    :param windows: what is not covered without them.
    :param records: paths of damaged records, and whether each could be restored from the checkpoint.
    :param exports: names of the export files or tasks whose rows were in lost files: loading them again brings these
        back.
    """

    record_id: str | None = None
    lost: tuple[LostFile, ...] = ()
    windows: tuple[LostWindow, ...] = ()
    records: tuple[tuple[str, bool], ...] = ()
    exports: tuple[str, ...] = ()
    dry_run: bool = False

    @property
    def rows(self) -> Counter[str]:
        """The number of rows in lost files, by table."""
        counts: Counter[str] = Counter()
        for each in self.lost:
            counts[each.state.file.table] += each.state.file.rows
        return counts

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON types."""
        return {
            "record": self.record_id,
            "dry_run": self.dry_run,
            "rows_lost": dict(self.rows),
            "lost": [
                {"file": each.path, "table": each.state.file.table, "rows": each.state.file.rows, "why": each.why}
                for each in self.lost
            ],
            "damaged_records": [{"record": path, "restored": is_known} for path, is_known in self.records],
            "export_again": [window.to_json() for window in self.windows],
            "load_again": list(self.exports),
        }


def repair(store: LakeStore, *, full: bool = False, dry_run: bool = False) -> RepairReport:
    """Record which files are lost, and rebuild what can be rebuilt.

    It reads all records and lists all files; with ``full``, it reads all files.

    :param full: compare the content of every file with its recorded sha256; by default only the sizes.
    :param dry_run: change nothing, and report what a repair would record.
    :raises LakeError: there is no lake, or it cannot be read or written.
    """
    catalog_file.require_lake(store)
    commit_log.read_snapshot(store, afresh=True)  # refuses to go on without a record that must not be put aside
    records = commit_log.damaged_records(store)
    windows = [*_windows_shown(store, records)]
    if not dry_run:
        for path, record in records.items():
            _put_right(store, path, record)
    report = _record_losses(store, full=full, dry_run=dry_run)
    if not dry_run:
        refresh(store, full=True)
    return replace(
        report,
        records=tuple((path, record is not None) for path, record in records.items()),
        windows=(*report.windows, *windows),
    )


def _put_right(store: LakeStore, path: str, record: LoadRecord | None) -> None:
    """Restore a damaged record, or put it where it is no record."""
    if record is not None:
        store.replace(path, record_json.to_bytes(record))
        return
    store.put_new(f"{path}.damaged", store.read(path))
    store.delete([path])
    log.warning("damaged record put aside path=%s.damaged", path)


def _record_losses(store: LakeStore, *, full: bool, dry_run: bool) -> RepairReport:
    """Find the files that are lost, and commit a record that says so."""
    while True:
        snapshot = commit_log.read_snapshot(store, afresh=True)
        lost = find_lost(store, snapshot, content_of=None if full else ())
        if not dry_run:
            lost = [each for each in lost if not store.restore_data(each.path, each.state.file.sha256)]
        if not commit_log.is_latest(store, snapshot):
            continue  # what is gone may have been deleted, because newer records do not need it
        if not lost or dry_run:
            return _report(snapshot, lost, dry_run=dry_run)
        states = [each.state for each in lost]
        facts = {"kind": KIND, "files": len(lost), "lost_loads": sorted(loads_of(snapshot, states))}
        rewrite = Rewrite(
            gone=(), written={}, purged={each.path for each in lost}, lost=lost_spans(states), facts=facts
        )
        if record := commit_rewrite(store, snapshot, rewrite, seconds=0.0):
            log.warning("files recorded as lost record=%s files=%d", record.load_id, len(lost))
            return _report(snapshot, lost, record_id=record.load_id)


def _report(snapshot: Snapshot, lost: Sequence[LostFile], **facts: Any) -> RepairReport:
    loads = loads_of(snapshot, (each.state for each in lost))
    return RepairReport(
        lost=tuple(lost),
        windows=tuple(_windows(snapshot, snapshot.without({each.path for each in lost}))) if lost else (),
        exports=tuple(
            source.task_id or source.name
            for record in snapshot.records
            if record.load_id in loads
            for source in record.sources
        ),
        **facts,
    )


def _windows(before: Snapshot, after: Snapshot) -> Iterator[LostWindow]:
    """Yield what the second snapshot does not cover and the first one does, in order of time."""
    known = uncovered_spans(before.coverage, before.lost)
    cids: dict[tuple[datetime, datetime], list[str]] = defaultdict(list)
    for cid, spans in uncovered_spans(after.coverage, after.lost).items():
        for span in spans:
            if span not in known.get(cid, ()):
                cids[span.since, span.until].append(cid)
    for (since, until), names in sorted(cids.items()):
        yield LostWindow(span=TimeSpan(since=since, until=until), cids=tuple(sorted(names)))


def _windows_shown(store: LakeStore, records: Mapping[str, LoadRecord | None]) -> Iterator[LostWindow]:
    """Yield what damaged records cover, as far as the catalog says it: it may be older than the damage."""
    ids = [PurePosixPath(path).stem for path, record in records.items() if record is None]
    cids: dict[tuple[datetime, datetime], list[str]] = defaultdict(list)
    for cid, since, until in catalog_file.coverage_shown(store, ids) if ids else ():
        cids[since, until].append(cid)
    for (since, until), names in sorted(cids.items()):
        yield LostWindow(span=TimeSpan(since=since, until=until), cids=tuple(sorted(names)))

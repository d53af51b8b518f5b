"""Removing people from every file of a lake, and keeping them out.

1. The person's hash goes on the suppression list. From then on, no load brings them in.
2. Every file that names them is rewritten without them, and so are files of history.
3. The old files are deleted at once, although a reader may have a catalog open that names them.
4. What broken-off work left behind is deleted, as ``vacuum`` does it.

If the process dies on the way, running it again continues from there.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from airflow_provider_chatexport.core.progress import REWRITE, SEARCH, Progress, silent
from airflow_provider_chatexport.errors import CallError, LakeError
from airflow_provider_chatexport.lake.catalog import catalog_file
from airflow_provider_chatexport.lake.catalog.refresh import refresh
from airflow_provider_chatexport.lake.commits import log as commit_log
from airflow_provider_chatexport.lake.commits import visibility
from airflow_provider_chatexport.lake.commits.log import DEFAULT_KEEP
from airflow_provider_chatexport.lake.commits.record import DataFile, LoadRecord
from airflow_provider_chatexport.lake.commits.snapshot import FileState, FileStatus, Snapshot
from airflow_provider_chatexport.lake.duckdb_session import Database, lake_errors
from airflow_provider_chatexport.lake.maintenance.rewrite import (
    MASKING,
    MEMORY_LIMIT,
    Rewrite,
    Rewriter,
    RowsOfDay,
    commit_rewrite,
)
from airflow_provider_chatexport.lake.maintenance.vacuum import vacuum
from airflow_provider_chatexport.lake.parquet import write_table
from airflow_provider_chatexport.lake.printing import Report
from airflow_provider_chatexport.lake.privacy import suppression_list
from airflow_provider_chatexport.lake.privacy.people import known_people, listed_in_json, user_ids
from airflow_provider_chatexport.lake.privacy.pseudonyms import pseudonym
from airflow_provider_chatexport.lake.privacy.redaction import RedactionCounts, Redactor, in_parts
from airflow_provider_chatexport.lake.schema.tables import MESSAGES, TABLE_BY_NAME, TABLES
from airflow_provider_chatexport.lake.schema.types import Placement, Table
from airflow_provider_chatexport.lake.storage.store import LakeStore
from airflow_provider_chatexport.lake.storage.workdir import work_folder

log = logging.getLogger(__name__)

_ATTEMPTS: Final = 20


@dataclass(slots=True, kw_only=True)
class ForgetReport(Report):
    """What a removal did. It does not say whom it removed.

    :param removed: rows that were removed, by table.
    :param blanked: rows that stayed without the person, by table.
    :param files: the old paths of the files that were rewritten.
    :param deleted: how many superseded files were deleted.
    :param leftovers: how many files and folders of broken-off work were deleted.
    :param records: the ids of the removal's records.
    """

    removed: Counter[str] = field(default_factory=Counter)
    blanked: Counter[str] = field(default_factory=Counter)
    files: list[str] = field(default_factory=list)
    deleted: int = 0
    leftovers: int = 0
    records: list[str] = field(default_factory=list)
    keep_messages: bool = False
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON types."""
        return {
            "removed": dict(self.removed),
            "blanked": dict(self.blanked),
            "files": self.files,
            "superseded_files_deleted": self.deleted,
            "leftovers_deleted": self.leftovers,
            "records": self.records,
            "keep_messages": self.keep_messages,
            "seconds": round(self.seconds, 3),
        }


def forget_user(
    store: LakeStore,
    user_id: str,
    *,
    now: datetime,
    keep_messages: bool = False,
    pseudonym_key: str | None = None,
    work_dir: Path | None = None,
    progress: Progress = silent,
) -> ForgetReport:
    """Remove a person, and put a hash of their id on the suppression list.

    :param now: aware.
    :param keep_messages: keep what they sent as rows without author and text, so that threads and counts hold.
    :param pseudonym_key: the key of loads with ``hash_users``; the person's pseudonym is then removed as well.
    :param work_dir: where to work until the commit; by default on the lake's own disk.
    :raises CallError: the user id is empty.
    :raises LakeError: the lake cannot be read or written.
    """
    if not user_id.strip():
        raise CallError("there is no user id to forget; give the id that the service knows the person by")
    catalog_file.require_lake(store)
    ids = [user_id, *([pseudonym(user_id, pseudonym_key)] if pseudonym_key else [])]
    for each in ids:
        suppression_list.add(store, each, keep_messages=keep_messages, now=now)
    report = forget_people(store, dict.fromkeys(ids, keep_messages), now=now, work_dir=work_dir, progress=progress)
    report.keep_messages = keep_messages
    return report


def forget_people(
    store: LakeStore,
    people: Mapping[str, bool],
    *,
    now: datetime,
    work_dir: Path | None = None,
    progress: Progress = silent,
) -> ForgetReport:
    """Remove people who are on the suppression list already.

    :param people: whether their messages are kept as rows, by user id.
    :param now: aware.
    :param work_dir: where to work until the commit; by default on the lake's own disk.
    :raises LakeError: the lake cannot be read or written.
    """
    started = time.monotonic()
    report = ForgetReport()
    for part in in_parts(people):
        _remove(store, part, report, work_dir, progress)
    refresh(store)
    vacuumed = vacuum(store, keep=DEFAULT_KEEP, now=now)
    report.deleted = len(vacuumed.superseded)
    report.leftovers = len(vacuumed.unknown) + vacuumed.n_leftovers
    report.seconds = time.monotonic() - started
    log.info("people removed files=%d rows=%d", len(report.files), sum(report.removed.values()))
    return report


def forget_listed(store: LakeStore, record: LoadRecord, *, now: datetime) -> None:
    """Remove people on the suppression list whom a load brought in, because it died before it read the list again.

    :param record: of the load.
    :param now: aware.
    :raises LakeError: the lake cannot be read or written.
    """
    listed = suppression_list.read(store)
    if listed.digest in ("", record.facts.get("suppression_list")):
        return
    days = {(file.table, file.day) for file in record.files}
    with (
        _lake_errors(store),
        work_folder(store) as folder,
        closing(Database(folder, memory_limit=MEMORY_LIMIT)) as database,
    ):
        con = database.connection
        store.let_read(con)
        snapshot = commit_log.read_snapshot(store)
        relations = {
            table.name: visibility.scan_files(store, table, files)
            for table in TABLES
            if (files := [each for each in _readable(snapshot, table) if (table.name, each.file.day) in days])
        }
        ids = user_ids(con, relations) | listed_in_json(con, relations, listed)
    if people := listed.among(ids):
        forget_people(store, people, now=now)


def _lake_errors(store: LakeStore) -> AbstractContextManager[None]:
    return lake_errors(
        f"removal is incomplete: the lake at {store.uri} could not be read or written",
        hint="run chatexport verify, then run forget-user again",
    )


def _readable(snapshot: Snapshot, table: Table) -> list[FileState]:
    return [each for each in snapshot.files_of(table) if each.is_readable]


def _remove(
    store: LakeStore, people: Mapping[str, bool], report: ForgetReport, work_dir: Path | None, progress: Progress
) -> None:
    # A load that read the list before the people were on it may be committed at any time, so this looks again until it
    # finds nothing. The last process to commit may have died before it put files where its record says that they are.
    for _ in range(_ATTEMPTS):
        refresh(store)
        if not commit_log.on_latest(store, lambda: _attempt(store, people, report, work_dir, progress)):
            return
    raise LakeError(f"the lake at {store.uri} changes faster than a person can be removed; run this again later")


def _attempt(
    store: LakeStore, people: Mapping[str, bool], report: ForgetReport, work_dir: Path | None, progress: Progress
) -> bool:
    """Remove people from the lake as its records are now. Return whether anything of them was found."""
    started = time.monotonic()
    snapshot = commit_log.read_snapshot(store)
    dead = {
        each.file.path
        for each in snapshot.file_states
        if each.status is FileStatus.DEAD and store.has_data(each.file.path)
    }
    with work_folder(store, work_dir) as folder:
        with _lake_errors(store), _Remover(store, snapshot, folder) as remover:
            remover.prepare(people)
            files = remover.files_to_rewrite(progress)
            if not files and not dead:
                return False
            written: dict[DataFile, Path] = {}
            history: list[DataFile] = []
            for number, each in enumerate(files):
                progress(REWRITE, number, len(files))
                if each.is_live:
                    visible, counts = remover.write_visible_rows(each)
                    written.update(visible)
                    report.removed[each.file.table] += counts.removed
                    report.blanked[each.file.table] += counts.blanked
                if each.status is FileStatus.HISTORY or _holds_history(each):
                    versions = remover.write_all_rows(each)
                    written.update(versions)
                    history += versions
        record = commit_rewrite(
            store,
            snapshot,
            Rewrite(
                gone={each.file.path for each in files if each.is_live},
                written=written,
                history=history,
                purged=dead | {each.file.path for each in files},
                facts={"kind": "removal of a person", "files": len(files)},
            ),
            seconds=time.monotonic() - started,
        )
    if record is not None:
        report.files += [each.file.path for each in files]
        report.records.append(record.load_id)
    return True


def _holds_history(each: FileState) -> bool:
    """Return whether a live file has rows that newer exports hide and that ``messages_history`` shows."""
    return each.status is FileStatus.PARTLY_HIDDEN and each.record.keep_superseded and each.file.table == MESSAGES.name


class _Remover(Rewriter):
    """Finds people's rows in files, and writes the files without them."""

    def __init__(self, store: LakeStore, snapshot: Snapshot, folder: Path) -> None:
        super().__init__(store, snapshot, folder)
        self._n_written = 0
        self._with_promoted = {table.name: table for table in snapshot.tables}

    def prepare(self, people: Mapping[str, bool]) -> None:
        """Read the people's names and messages from the lake."""
        relations = {
            table.name: visibility.scan_files(self._store, table, files)
            for table in TABLES
            if (files := _readable(self._snapshot, table))
        }
        con = self._database.connection
        self._redactor = Redactor(con, known_people(con, relations, people), relations)

    def files_to_rewrite(self, progress: Progress) -> list[FileState]:
        """Return the files that name one of the people, and those that have to be rewritten together with them.

        The record of a rewrite means that the truth rule was applied among its own entries. So if one live file of a
        record is rewritten, every file of it with hidden rows has to be rewritten, too.
        """
        states = [(table, each) for table in TABLES for each in _readable(self._snapshot, table)]
        named = []
        for number, (table, each) in enumerate(states):
            progress(SEARCH, number, len(states))
            if self._redactor.search(table, self._scan(table, each)):
                named.append(each)
        owners = {each.record.load_id for each in named if each.is_live}
        paths = {each.file.path for each in named}
        return named + [
            each
            for _, each in states
            if each.status is FileStatus.PARTLY_HIDDEN and each.record.load_id in owners and each.file.path not in paths
        ]

    def write_visible_rows(self, each: FileState) -> tuple[dict[DataFile, Path], RedactionCounts]:
        """Write a file without the people, and without the rows that newer exports hide."""
        table = TABLE_BY_NAME[each.file.table]
        counts = self._redactor.search(table, self._scan(table, each))
        is_event = table.placement is Placement.EVENT
        return self._write(each, table, f"NOT {visibility.hidden(table, MASKING)}" if is_event else "true"), counts

    def write_all_rows(self, each: FileState) -> dict[DataFile, Path]:
        """Write a file without the people, but with hidden rows, which ``messages_history`` shows."""
        table = TABLE_BY_NAME[each.file.table]
        self._redactor.search(table, self._scan(table, each))
        return self._write(each, table, "true")

    def _write(self, each: FileState, table: Table, condition: str) -> dict[DataFile, Path]:
        self._n_written += 1
        redacted = self._redactor.query(table, self._scan(table, each))
        self._database.execute(f"CREATE OR REPLACE TABLE redacted AS {redacted}")
        files = write_table(
            RowsOfDay(self._database, each.file.day, f"SELECT * FROM redacted rows WHERE {condition}"),
            self._with_promoted[table.name],
            self._files_folder,
            stem=f"{self._stem}-{self._n_written}",
            metadata=self._metadata,
        )
        return {replace(file, n_uncovered=min(file.rows, each.file.n_uncovered)): local for file, local in files}

    def _scan(self, table: Table, each: FileState) -> str:
        return visibility.scan_files(self._store, table, [each])

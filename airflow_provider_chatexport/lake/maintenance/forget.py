"""Removing people from every file of a lake, and keeping them out.

The list comes first (``forgotten``): from then on no load brings them in. Then every file that they occur in is written
anew without them, those that only history reads too, and what was superseded is deleted at once, whoever may have an
older catalog open. Last goes what work that was broken off left behind, as ``vacuum`` knows it. If the process dies on
the way, running it again goes on from there.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import duckdb

from airflow_provider_chatexport.core.progress import REWRITE, SEARCH, Progress, silent
from airflow_provider_chatexport.errors import CallError, LakeError
from airflow_provider_chatexport.lake.catalog import catalog_file
from airflow_provider_chatexport.lake.catalog.refresh import refresh
from airflow_provider_chatexport.lake.commits import log as commit_log
from airflow_provider_chatexport.lake.commits import visibility
from airflow_provider_chatexport.lake.commits.log import DEFAULT_KEEP
from airflow_provider_chatexport.lake.commits.record import WRITER, DataFile, LoadRecord
from airflow_provider_chatexport.lake.commits.snapshot import FileState, FileStatus, Snapshot
from airflow_provider_chatexport.lake.maintenance.rewrite import (
    MEMORY_LIMIT,
    Rewrite,
    Rewriter,
    RowsOfDay,
    commit_rewrite,
    number_of_next,
)
from airflow_provider_chatexport.lake.maintenance.vacuum import vacuum
from airflow_provider_chatexport.lake.parquet import write_table
from airflow_provider_chatexport.lake.printing import Report
from airflow_provider_chatexport.lake.privacy import suppression_list
from airflow_provider_chatexport.lake.privacy.people import known_people, listed_in_json, user_ids
from airflow_provider_chatexport.lake.privacy.pseudonyms import pseudonym
from airflow_provider_chatexport.lake.privacy.redaction import Redactor, in_parts
from airflow_provider_chatexport.lake.schema.tables import MESSAGES, TABLE_BY_NAME, TABLES
from airflow_provider_chatexport.lake.schema.types import Placement, Table
from airflow_provider_chatexport.lake.storage.store import LakeStore
from airflow_provider_chatexport.lake.storage.workdir import work_folder

log = logging.getLogger(__name__)

_ATTEMPTS: Final = 20


@dataclass(slots=True, kw_only=True)
class ForgetReport(Report):
    """What was done, without a word of whom. ``removed`` and ``blanked`` count rows by table.

    :param files: those that were written anew, by their old paths.
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
    """Removes a person, and puts a hash of their id on the list of those who stay out.

    :param keep_messages: keep what they sent as rows, without author and text, so that threads and counts hold.
    :param pseudonym_key: the one that loads with ``hash_users`` were given: then the person's pseudonym goes as well.
    :param now: aware.
    :raises CallError: there is no user id.
    :raises LakeError: the lake cannot be read or written.
    """
    if not user_id.strip():
        raise CallError("there is no user id to forget; give the id that the service knows the person by")
    catalog_file.require_lake(store)
    ids = [user_id, *([pseudonym(user_id, pseudonym_key)] if pseudonym_key else [])]
    for each in ids:
        suppression_list.add(store, each, keep_messages=keep_messages, now=now)
    receipt = forget_people(store, dict.fromkeys(ids, keep_messages), now=now, work_dir=work_dir, progress=progress)
    receipt.keep_messages = keep_messages
    return receipt


def forget_people(
    store: LakeStore,
    people: Mapping[str, bool],
    *,
    now: datetime,
    work_dir: Path | None = None,
    progress: Progress = silent,
) -> ForgetReport:
    """Removes people who are on the list already.

    :param people: by their ids, whether their messages are kept as rows.
    :param now: aware.
    :raises LakeError: the lake cannot be read or written.
    """
    began = time.monotonic()
    receipt = ForgetReport()
    for some in in_parts(people):
        _remove(store, some, receipt, work_dir, progress)
    refresh(store)
    swept = vacuum(store, keep=DEFAULT_KEEP, now=now)
    receipt.deleted, receipt.leftovers = len(swept.superseded), len(swept.unknown) + swept.n_leftovers
    receipt.seconds = time.monotonic() - began
    log.info("people removed files=%d rows=%d", len(receipt.files), sum(receipt.removed.values()))
    return receipt


def _remove(
    store: LakeStore, people: Mapping[str, bool], receipt: ForgetReport, work_dir: Path | None, progress: Progress
) -> None:
    # Loads may be committed meanwhile that were converted before the list said so: until nothing is found. Whoever
    # committed last may not have lived to put files where the records say that they are.
    for _ in range(_ATTEMPTS):
        refresh(store)
        if not commit_log.on_latest(store, lambda: _attempt(store, people, receipt, work_dir, progress)):
            return
    raise LakeError(f"the lake at {store.uri} changes faster than a person can be removed; run this again later")


def forget_listed(store: LakeStore, record: LoadRecord, *, now: datetime) -> None:
    """Removes those who are on the list and came in with a load that died before it could look at the list again.

    :param now: aware.
    :raises LakeError: the lake cannot be read or written.
    """
    listed = suppression_list.read(store)
    if listed.digest in ("", record.facts.get("suppression_list")):
        return
    days = {(file.table, file.day) for file in record.files}
    with _explained(store), duckdb.connect(config={"memory_limit": MEMORY_LIMIT}) as con:
        store.let_read(con)
        snapshot = Snapshot(commit_log.all_loads(store))
        relations = {
            table.name: visibility.scan_files(store, table, files)
            for table in TABLES
            if (files := [each for each in _readable(snapshot, table) if (table.name, each.file.day) in days])
        }
        found = user_ids(con, relations) | listed_in_json(con, relations, listed)
    if people := listed.among(found):
        forget_people(store, people, now=now)


def _readable(snapshot: Snapshot, table: Table) -> list[FileState]:
    return [each for each in snapshot.of(table) if each.is_readable]


def _attempt(
    store: LakeStore, people: Mapping[str, bool], receipt: ForgetReport, work_dir: Path | None, tell: Progress
) -> bool:
    """Whether anything was found, so that it is worth another look."""
    began = time.monotonic()
    snapshot = Snapshot(commit_log.all_loads(store))
    dead = {
        each.file.path
        for each in snapshot.file_states
        if each.status is FileStatus.DEAD and store.has_data(each.file.path)
    }
    with work_folder(store, work_dir) as folder:
        with _explained(store), _Removal(store, snapshot, folder) as removal:
            removal.prepare(people)
            touched = removal.touched(tell)
            if not touched and not dead:
                return False
            written: dict[DataFile, Path] = {}
            history: list[DataFile] = []
            for number, each in enumerate(touched):
                tell(REWRITE, number, len(touched))
                if each.is_live:
                    written.update(removal.write(each, receipt))
                if each.status is FileStatus.HISTORY or _may_be_history(each):
                    versions = removal.write_history(each)
                    history += versions
                    written.update(versions)
        record = commit_rewrite(
            store,
            snapshot,
            Rewrite(
                gone={each.file.path for each in touched if each.is_live},
                written=written,
                history=history,
                purged=dead | {each.file.path for each in touched},
                facts={"kind": "removal of a person", "files": len(touched)},
            ),
            seconds=time.monotonic() - began,
        )
    if record is not None:
        receipt.files += [each.file.path for each in touched]
        receipt.records.append(record.load_id)
    return True


def _may_be_history(each: FileState) -> bool:
    """Rows that newer exports hide, and that ``messages_history`` still tells."""
    return each.status is FileStatus.PARTLY_HIDDEN and each.record.keep_superseded and each.file.table == MESSAGES.name


class _Removal(Rewriter):
    """Finds people's rows in files, and writes files without them."""

    def __init__(self, store: LakeStore, snapshot: Snapshot, folder: Path) -> None:
        super().__init__(store, snapshot, folder)
        self._n_written = 0
        self._with_promoted = {table.name: table for table in snapshot.tables}

    def prepare(self, people: Mapping[str, bool]) -> None:
        """Learns their names and messages from the lake."""
        relations = {
            table.name: visibility.scan_files(self._store, table, files)
            for table in TABLES
            if (files := self._read(table))
        }
        self._eraser = Redactor(self._con, known_people(self._con, relations, people), relations)

    def touched(self, tell: Progress) -> list[FileState]:
        """Files that they occur in, and those that have to be written with them.

        A record that stands for several others has their rows apart by the truth rule already, so all files of which
        a newer one of them hides rows are written too.
        """
        tables = [(table, each) for table in TABLES for each in self._read(table)]
        found = []
        for number, (table, each) in enumerate(tables):
            tell(SEARCH, number, len(tables))
            if self._eraser.look(table, visibility.scan_files(self._store, table, [each])):
                found.append(each)
        owners = {each.record.load_id for each in found if each.is_live}
        paths = {each.file.path for each in found}
        return found + [
            each
            for _, each in tables
            if each.status is FileStatus.PARTLY_HIDDEN and each.record.load_id in owners and each.file.path not in paths
        ]

    def write(self, each: FileState, receipt: ForgetReport) -> dict[DataFile, Path]:
        """The file without them, and without the rows that newer exports hide."""
        table = TABLE_BY_NAME[each.file.table]
        touch = self._eraser.look(table, visibility.scan_files(self._store, table, [each]))
        receipt.removed[table.name] += touch.removed
        receipt.blanked[table.name] += touch.blanked
        shown = f"NOT {visibility.hidden(table, 'hiding')}" if table.placement is Placement.EVENT else "true"
        return self._written(each, table, shown)

    def write_history(self, each: FileState) -> dict[DataFile, Path]:
        """The same with the rows that newer exports hide: ``messages_history`` tells them."""
        table = TABLE_BY_NAME[each.file.table]
        self._eraser.look(table, visibility.scan_files(self._store, table, [each]))
        return self._written(each, table, "true")

    def _written(self, each: FileState, table: Table, condition: str) -> dict[DataFile, Path]:
        self._n_written += 1
        left = self._eraser.query(table, visibility.scan_files(self._store, table, [each]))
        self._con.execute(f"CREATE OR REPLACE TEMP TABLE rows_left AS {left}")
        files = write_table(
            RowsOfDay(self._con, each.file.day, f"SELECT * FROM rows_left rows WHERE {condition}"),
            self._with_promoted[table.name],
            self._folder / "files",
            stem=f"{self._stem}-{self._n_written}",
            metadata={"chatexport.load_id": number_of_next(self._snapshot), "chatexport.writer": WRITER},
        )
        return {replace(file, n_uncovered=min(file.rows, each.file.n_uncovered)): local for file, local in files}

    def _read(self, table: Table) -> list[FileState]:
        return _readable(self._snapshot, table)


@contextlib.contextmanager
def _explained(store: LakeStore) -> Iterator[None]:
    """DuckDB's messages may quote a value, which may be the person's: only their kind is passed on."""
    try:
        yield
    except duckdb.Error as error:
        raise LakeError(
            f"the lake at {store.uri} cannot be searched or written ({type(error).__name__}); the person is not wholly "
            "removed. Run chatexport verify, then run this again"
        ) from None

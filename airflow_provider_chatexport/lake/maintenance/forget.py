"""Removing people from every file of a lake, and keeping them out.

1. The person's hash goes on the suppression list. From then on, no load brings them in.
2. Their names are looked up, and go on the list as hashes.
3. Every file that names them is rewritten without them, and so are files of history.
4. The old files are deleted at once, although a reader may have a catalog open that names them.
5. What broken-off work left behind is deleted, as ``vacuum`` does it.
6. The lake remembers which loads were searched (``suppression_list.unchecked``).

If the process dies on the way, running it again continues from there. If a load dies between its record and its last
look at the list, the next load or maintenance finds it among the unchecked ones (``finish_removals``).
"""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import duckdb

from airflow_provider_chatexport.core.progress import REWRITE, SEARCH, Progress, silent
from airflow_provider_chatexport.errors import CallError, LakeError, UnknownUserError
from airflow_provider_chatexport.lake.catalog import catalog_file
from airflow_provider_chatexport.lake.catalog.refresh import refresh
from airflow_provider_chatexport.lake.commits import log as commit_log
from airflow_provider_chatexport.lake.commits import visibility
from airflow_provider_chatexport.lake.commits.log import DEFAULT_KEEP
from airflow_provider_chatexport.lake.commits.record import DataFile
from airflow_provider_chatexport.lake.commits.snapshot import FileState, FileStatus, Snapshot
from airflow_provider_chatexport.lake.duckdb_session import Database, lake_errors
from airflow_provider_chatexport.lake.maintenance.cleanup import delete_unneeded
from airflow_provider_chatexport.lake.maintenance.rewrite import (
    MEMORY_LIMIT,
    Rewrite,
    Rewriter,
    RowsOfDay,
    commit_rewrite,
)
from airflow_provider_chatexport.lake.parquet import write_table
from airflow_provider_chatexport.lake.printing import Report
from airflow_provider_chatexport.lake.privacy import matching, suppression_list
from airflow_provider_chatexport.lake.privacy.listed import named_in_texts, people_of
from airflow_provider_chatexport.lake.privacy.people import Person, has_id, has_like_id, with_known_names
from airflow_provider_chatexport.lake.privacy.pseudonyms import pseudonym
from airflow_provider_chatexport.lake.privacy.redaction import RedactionCounts, Redactor, in_parts
from airflow_provider_chatexport.lake.privacy.suppression_list import SuppressionList
from airflow_provider_chatexport.lake.schema.tables import MESSAGES, TABLE_BY_NAME, TABLES
from airflow_provider_chatexport.lake.schema.types import Table
from airflow_provider_chatexport.lake.storage.store import LakeStore
from airflow_provider_chatexport.lake.storage.workdir import work_folder

log = logging.getLogger(__name__)

_ATTEMPTS: Final = 20
# How many places a dry run names, give or take the columns of one file.
_PLACES: Final = 20


@dataclass(slots=True, kw_only=True)
class ForgetReport(Report):
    """What a removal did. It does not say whom it removed.

    :param removed: rows that were removed, by table.
    :param blanked: rows that stayed without the person, by table.
    :param files: the old paths of the files that were rewritten.
    :param deleted: how many superseded files were deleted.
    :param leftovers: how many files and folders of broken-off work were deleted.
    :param records: the ids of the removal's records.
    :param dry_run: nothing was changed; the other fields say what a removal would do.
    :param is_known: the lake knows the id. If not, the id is on the suppression list, and nothing else was done.
    :param places: some of the places that name the person: table, day, file, column and number of rows. Without a
        column, whole rows.
    :param texts: what texts of others lose: whether the id everywhere or only where it is mentioned, and how many full
        names and names of one word.
    """

    removed: Counter[str] = field(default_factory=Counter)
    blanked: Counter[str] = field(default_factory=Counter)
    files: list[str] = field(default_factory=list)
    deleted: int = 0
    leftovers: int = 0
    records: list[str] = field(default_factory=list)
    keep_messages: bool = False
    dry_run: bool = False
    is_known: bool = True
    places: list[dict[str, Any]] = field(default_factory=list)
    texts: dict[str, Any] = field(default_factory=dict)
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
            "dry_run": self.dry_run,
            "is_known": self.is_known,
            "texts": self.texts,
            "places": self.places,
            "seconds": round(self.seconds, 3),
        }


def forget_user(
    store: LakeStore,
    user_id: str,
    *,
    now: datetime,
    keep_messages: bool = False,
    names: bool = False,
    even_if_unknown: bool = False,
    dry_run: bool = False,
    pseudonym_key: str | None = None,
    work_dir: Path | None = None,
    progress: Progress = silent,
) -> ForgetReport:
    """Remove a person, and put a hash of their id on the suppression list.

    :param now: aware.
    :param keep_messages: keep what they sent as rows without author and text, so that threads and counts hold.
    :param names: texts of others lose names of one word as well, and the id even if it is an ordinary word.
    :param even_if_unknown: put an id that the lake does not know on the list, and do nothing else.
    :param dry_run: change nothing, and report what a removal would do.
    :param pseudonym_key: the key of loads with ``hash_users``; the person's pseudonym is then removed as well.
    :param work_dir: where to work until the commit; by default on the lake's own disk.
    :raises CallError: the user id is empty.
    :raises UnknownUserError: the lake does not know the id.
    :raises LakeError: the lake cannot be read or written.
    """
    if not user_id.strip():
        raise CallError("there is no user id to forget; give the id that the service knows the person by")
    catalog_file.require_lake(store)
    started = time.monotonic()
    ids = [user_id, *([pseudonym(user_id, pseudonym_key)] if pseudonym_key else [])]
    before = suppression_list.read(store)
    listed = before.among(ids)
    people = [Person(user_id=each, keep_messages=keep_messages, any_word=names) for each in ids]
    report = ForgetReport(keep_messages=keep_messages, dry_run=dry_run)
    loads = _loads_of(commit_log.read_snapshot(store))
    # A removal that broke off may have left the id in texts only. Someone has said that it is right.
    report.is_known = bool(listed) or commit_log.on_latest(store, lambda: _is_known(store, people, work_dir))
    if not report.is_known and not even_if_unknown:
        raise UnknownUserError(commit_log.on_latest(store, lambda: _unknown(store, user_id, work_dir)))
    if dry_run:
        if report.is_known:
            commit_log.on_latest(store, lambda: _survey(store, people, report, work_dir, progress))
        report.seconds = time.monotonic() - started
        return report
    remember = functools.partial(_remember, store, ids, now=now)
    remember(people)
    states = {before.digest, suppression_list.read(store).digest}
    if report.is_known:
        if listed and names:  # their rows are gone, and their names are known as hashes only
            people += commit_log.on_latest(store, lambda: _named_in_texts(store, ids, work_dir))
        loads = _remove_all(store, people, report, work_dir, progress, remember)
        _clean_up(store, report, now)
    _mark_searched(store, before, ids, states, loads)
    finish_removals(store, now=now, work_dir=work_dir)
    report.seconds = time.monotonic() - started
    log.info("people removed files=%d rows=%d", len(report.files), sum(report.removed.values()))
    return report


def forget_people(
    store: LakeStore, people: Sequence[Person], *, now: datetime, work_dir: Path | None = None
) -> ForgetReport:
    """Remove people who are on the suppression list already.

    :param now: aware.
    :param work_dir: where to work until the commit; by default on the lake's own disk.
    :raises LakeError: the lake cannot be read or written.
    """
    report = ForgetReport()
    _remove_all(store, people, report, work_dir, silent, None)
    _clean_up(store, report, now)
    log.info("people removed files=%d rows=%d", len(report.files), sum(report.removed.values()))
    return report


def finish_removals(store: LakeStore, *, now: datetime, work_dir: Path | None = None, is_load: bool = False) -> None:
    """Remove people on the suppression list from loads that no removal has searched for them.

    Such a load read the list before they were on it, and died before it read the list again.

    :param now: aware.
    :param work_dir: where to work until the commit; by default on the lake's own disk.
    :param is_load: a load calls: it does not search a whole lake whose list an older version wrote.
    :raises LakeError: the lake cannot be read or written.
    """
    listed = suppression_list.read(store)
    if not listed.entries or (is_load and suppression_list.is_of_older_version(store, listed)):
        return
    snapshot = commit_log.read_snapshot(store)
    loads = _loads_of(snapshot)
    stale = suppression_list.unchecked(store, listed, loads.items())
    if not stale:
        return
    days = {(file.table, file.day) for each in snapshot.records if each.load_id in stale for file in each.files}

    def find() -> list[Person]:
        latest = commit_log.read_snapshot(store)
        with _search(store, work_dir) as con:
            return people_of(con, _relations(store, latest, days), listed)

    if people := commit_log.on_latest(store, find):
        log.warning("loads contain people who were removed from the lake; removing them loads=%d", len(stale))
        forget_people(store, people, now=now, work_dir=work_dir)
    if suppression_list.read(store).digest == listed.digest:
        suppression_list.mark_checked(store, listed, loads)


def unchecked_loads(store: LakeStore, snapshot: Snapshot) -> set[str]:
    """Return the loads that may contain people on the suppression list.

    :raises LakeError: the list cannot be read.
    """
    return suppression_list.unchecked(store, suppression_list.read(store), _loads_of(snapshot).items())


def _loads_of(snapshot: Snapshot) -> dict[str, str]:
    """Return the ids of all loads, each with the state of the suppression list that it was written under."""
    return {each.load_id: each.facts.get("suppression_list", "") for each in snapshot.records if each.is_load}


def _mark_searched(
    store: LakeStore,
    before: SuppressionList,
    ids: Sequence[str],
    states: Collection[str],
    loads: Mapping[str, str],
) -> None:
    """Record that loads were searched for these people, unless the list has changed otherwise meanwhile.

    :param before: the list as it was before these people were on it.
    :param states: digests of the list from then on.
    :param loads: the loads that were searched.
    """
    after = suppression_list.read(store)
    ours = after.among(ids).values()
    others = {digest: entry for digest, entry in after.entries.items() if entry not in ours}
    if others != {digest: entry for digest, entry in before.entries.items() if digest in others}:
        return
    earlier = suppression_list.checked(store, before.digest)
    states = {*states, after.digest}
    ids_searched = [load_id for load_id, digest in loads.items() if digest in states or load_id in earlier]
    suppression_list.mark_checked(store, after, ids_searched)


def _remember(store: LakeStore, ids: Sequence[str], people: Sequence[Person], *, now: datetime) -> None:
    """Put a person on the suppression list under each of their ids, with all of their names."""
    names = sorted({name for person in people for name in person.names})
    for each in ids:
        suppression_list.add(
            store, each, keep_messages=people[0].keep_messages, any_word=people[0].any_word, names=names, now=now
        )


@contextlib.contextmanager
def _search(store: LakeStore, work_dir: Path | None) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a database to search the lake's files in."""
    with (
        _lake_errors(store),
        work_folder(store, work_dir) as folder,
        closing(Database(folder, memory_limit=MEMORY_LIMIT)) as database,
    ):
        store.let_read(database.connection)
        yield database.connection


def _relations(store: LakeStore, snapshot: Snapshot, days: Collection[tuple[str, str]] | None = None) -> dict[str, str]:
    """Return the readable files of each table as a relation.

    :param days: tables and days to choose; by default all.
    """
    return {
        table.name: visibility.scan_files(store, table, files)
        for table in TABLES
        if (
            files := [
                each for each in _readable(snapshot, table) if days is None or (table.name, each.file.day) in days
            ]
        )
    }


def _is_known(store: LakeStore, people: Sequence[Person], work_dir: Path | None) -> bool:
    """Return whether the lake has a person's id in a column of ids, in a message id, or as a user in JSON."""
    with _search(store, work_dir) as con:
        relations = _relations(store, commit_log.read_snapshot(store))
        if has_id(con, relations, [each for person in people for each in person.ids]):
            return True
        redactor = Redactor(con, people, {})
        return any(redactor.names_user(table, relations[table.name]) for table in TABLES if table.name in relations)


def _unknown(store: LakeStore, user_id: str, work_dir: Path | None) -> str:
    """Return the sentence that refuses an id. It names nobody."""
    with _search(store, work_dir) as con:
        is_like = has_like_id(con, _relations(store, commit_log.read_snapshot(store)), user_id)
    hint = (
        " It has an id that differs only in upper and lower case, or in how characters are encoded." if is_like else ""
    )
    return (
        f"the lake at {store.uri} does not know this user id, and nothing was changed.{hint} Check the id; to keep the "
        "person out of later loads all the same, give even_if_unknown"
    )


def _named_in_texts(store: LakeStore, ids: Sequence[str], work_dir: Path | None) -> list[Person]:
    """Return the names that the suppression list has for a person, as texts of the lake write them."""
    listed = suppression_list.read(store)
    ours = replace(listed, entries={entry.user_id: entry for entry in listed.among(ids).values()})
    with _search(store, work_dir) as con:
        return named_in_texts(con, _relations(store, commit_log.read_snapshot(store)), ours)


def _survey(
    store: LakeStore, people: Sequence[Person], report: ForgetReport, work_dir: Path | None, progress: Progress
) -> None:
    """Count what a removal would change, and note some of the places."""
    report.removed.clear()
    report.blanked.clear()
    report.places.clear()
    snapshot = commit_log.read_snapshot(store)
    with (
        work_folder(store, work_dir) as folder,
        _lake_errors(store),
        _Remover(store, snapshot, folder) as remover,
    ):
        report.texts = _texts_lose(remover.prepare(people))
        report.files = [each.file.path for each in remover.files_to_rewrite(progress, report)]


def _texts_lose(people: Sequence[Person]) -> dict[str, Any]:
    """Return what texts of others lose, without saying who the people are."""
    names = {name for person in people for name in person.names}
    any_word = any(person.any_word for person in people)
    is_everywhere = any_word or not all(matching.is_ordinary(each) for each in people[0].ids)
    return {
        "id": "everywhere" if is_everywhere else "where it is mentioned (@)",
        "full_names": sum(map(matching.is_full_name, names)),
        "names_of_one_word": sum(not matching.is_full_name(name) for name in names) if any_word else 0,
        "names_of_one_word_that_stay": 0 if any_word else sum(not matching.is_full_name(name) for name in names),
    }


def _remove_all(
    store: LakeStore,
    people: Sequence[Person],
    report: ForgetReport,
    work_dir: Path | None,
    progress: Progress,
    remember: Callable[[Sequence[Person]], None] | None,
) -> dict[str, str]:
    """Remove people from the lake, and return the loads that were searched, as ``_loads_of`` does."""
    searched = [_remove(store, part, report, work_dir, progress, remember) for part in in_parts(people)]
    refresh(store)
    return searched[0] if searched else {}


def _clean_up(store: LakeStore, report: ForgetReport, now: datetime) -> None:
    deleted = delete_unneeded(store, keep=DEFAULT_KEEP, now=now)
    report.deleted = len(deleted.superseded)
    report.leftovers = len(deleted.unknown) + deleted.n_leftovers


def _lake_errors(store: LakeStore) -> AbstractContextManager[None]:
    return lake_errors(
        f"removal is incomplete: the lake at {store.uri} could not be read or written",
        hint="run chatexport verify, then run forget-user again",
    )


def _readable(snapshot: Snapshot, table: Table) -> list[FileState]:
    return [each for each in snapshot.files_of(table) if each.is_readable]


def _remove(
    store: LakeStore,
    people: Sequence[Person],
    report: ForgetReport,
    work_dir: Path | None,
    progress: Progress,
    remember: Callable[[Sequence[Person]], None] | None,
) -> dict[str, str]:
    # A load that read the list before the people were on it may be committed at any time, so this looks again until it
    # finds nothing. The last process to commit may have died before it put files where its record says that they are.
    for _ in range(_ATTEMPTS):
        refresh(store)
        searched = commit_log.on_latest(store, lambda: _attempt(store, people, report, work_dir, progress, remember))
        if searched is not None:
            return searched
    raise LakeError(f"the lake at {store.uri} changes faster than a person can be removed; run this again later")


def _attempt(
    store: LakeStore,
    people: Sequence[Person],
    report: ForgetReport,
    work_dir: Path | None,
    progress: Progress,
    remember: Callable[[Sequence[Person]], None] | None,
) -> dict[str, str] | None:
    """Remove people from the lake as its records are now.

    Return None if anything of them was found, or else the loads that were searched.
    """
    started = time.monotonic()
    snapshot = commit_log.read_snapshot(store)
    dead = {
        each.file.path
        for each in snapshot.file_states
        if each.status is FileStatus.DEAD and store.has_data(each.file.path)
    }
    with work_folder(store, work_dir) as folder:
        with _lake_errors(store), _Remover(store, snapshot, folder) as remover:
            named = remover.prepare(people)
            report.texts = report.texts or _texts_lose(named)
            if remember is not None:
                remember(named)  # before their names are gone
            files = remover.files_to_rewrite(progress)
            if not files and not dead:
                return _loads_of(snapshot)
            written: dict[DataFile, Path] = {}
            history: list[DataFile] = []
            rewritten: dict[str, list[str]] = {}
            for number, each in enumerate(files):
                progress(REWRITE, number, len(files))
                if each.is_live:
                    visible, counts = remover.write_visible_rows(each)
                    written.update(visible)
                    if each.status is FileStatus.WHOLE:
                        rewritten[each.file.path] = [file.path for file in visible]
                    report.removed[each.file.table] += counts.removed
                    report.blanked[each.file.table] += counts.blanked
                if each.status is FileStatus.HISTORY or _holds_history(each):
                    versions = remover.write_all_rows(each)
                    written.update(versions)
                    history += versions
                    rewritten[each.file.path] = [file.path for file in versions]
        record = commit_rewrite(
            store,
            snapshot,
            Rewrite(
                gone={each.file.path for each in files if each.is_live},
                written=written,
                history=history,
                purged=dead | {each.file.path for each in files},
                facts={
                    "kind": "removal of a person",
                    "files": len(files),
                    # Where all rows of others are, so that ``messages_history`` goes on as before.
                    "rewritten": {old: new for old, new in rewritten.items() if old.startswith(f"{MESSAGES.name}/")},
                },
            ),
            seconds=time.monotonic() - started,
        )
    if record is not None:
        report.files += [each.file.path for each in files]
        report.records.append(record.load_id)
    return None


def _holds_history(each: FileState) -> bool:
    """Return whether a live file has rows that newer exports hide and that ``messages_history`` shows."""
    return each.status is FileStatus.PARTLY_HIDDEN and each.record.keep_superseded and each.file.table == MESSAGES.name


class _Remover(Rewriter):
    """Finds people's rows in files, and writes the files without them."""

    def __init__(self, store: LakeStore, snapshot: Snapshot, folder: Path) -> None:
        super().__init__(store, snapshot, folder)
        self._n_written = 0
        self._with_promoted = {table.name: table for table in snapshot.tables}

    def prepare(self, people: Sequence[Person]) -> Sequence[Person]:
        """Read the people's names and messages from the lake, and return the people with their names."""
        relations, con = _relations(self._store, self._snapshot), self._database.connection
        self._redactor = Redactor(con, with_known_names(con, relations, people), relations)
        return self._redactor.people

    def files_to_rewrite(self, progress: Progress, survey: ForgetReport | None = None) -> list[FileState]:
        """Return the files that name one of the people, and those that have to be rewritten together with them.

        The record of a rewrite means that the truth rule was applied among its own entries. So if one live file of a
        record is rewritten, every file of it with hidden rows has to be rewritten, too.

        :param survey: is filled with the rows of each table, and with some places.
        """
        states = [(table, each) for table in TABLES for each in _readable(self._snapshot, table)]
        named = []
        for number, (table, each) in enumerate(states):
            progress(SEARCH, number, len(states))
            if counts := self._redactor.search(table, self._scan(table, each)):
                named.append(each)
                if survey is not None and each.is_live:
                    self._note(survey, table, each, counts)
        owners = {each.record.load_id for each in named if each.is_live}
        paths = {each.file.path for each in named}
        return named + [
            each
            for _, each in states
            if each.record.load_id in owners and each.file.path not in paths and self._may_have_hidden_rows(each)
        ]

    def _note(self, survey: ForgetReport, table: Table, each: FileState, counts: RedactionCounts) -> None:
        """Count the rows of a file that was searched last, and note the places unless there are many already."""
        survey.removed[table.name] += counts.removed
        survey.blanked[table.name] += counts.blanked
        if len(survey.places) < _PLACES:
            where = {"table": table.name, "day": each.file.day, "file": each.file.path}
            found = self._redactor.places(table, self._scan(table, each))
            survey.places += [where | {"column": column, "rows": n_rows} for column, n_rows in found.items()]

    def write_visible_rows(self, each: FileState) -> tuple[dict[DataFile, Path], RedactionCounts]:
        """Write a file without the people, and without the rows that newer exports hide."""
        table = TABLE_BY_NAME[each.file.table]
        counts = self._redactor.search(table, self._scan(table, each))
        return self._write(each, table, self._is_visible(table)), counts

    def write_all_rows(self, each: FileState) -> dict[DataFile, Path]:
        """Write a file without the people, but with hidden rows, which ``messages_history`` shows."""
        table = TABLE_BY_NAME[each.file.table]
        self._redactor.search(table, self._scan(table, each))
        return self._write(each, table, "true")

    def _write(self, each: FileState, table: Table, condition: str) -> dict[DataFile, Path]:
        self._n_written += 1
        # Hidden rows go first: the redactor may change the ids by which rows are compared.
        redacted = self._redactor.query(table, f"(FROM {self._scan(table, each)} rows WHERE {condition})")
        self._database.execute(f"CREATE OR REPLACE TABLE redacted AS {redacted}")
        files = write_table(
            RowsOfDay(self._database, each.file.day, "FROM redacted"),
            self._with_promoted[table.name],
            self._files_folder,
            stem=f"{self._stem}-{self._n_written}",
            metadata=self._metadata,
        )
        old = each.file
        return {
            replace(file, n_uncovered=min(file.rows, old.n_uncovered), n_unplaced=min(file.rows, old.n_unplaced)): local
            for file, local in files
        }

    def _scan(self, table: Table, each: FileState) -> str:
        return visibility.scan_files(self._store, table, [each])

"""The removal of people from every file of a lake: what it searches, rewrites and reports."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from airflow_provider_chatexport.core.progress import REWRITE, SEARCH, Progress, silent
from airflow_provider_chatexport.errors import LakeError
from airflow_provider_chatexport.lake.catalog.refresh import refresh
from airflow_provider_chatexport.lake.commits import visibility
from airflow_provider_chatexport.lake.commits.file_state import FileState, FileStatus
from airflow_provider_chatexport.lake.commits.log import DEFAULT_KEEP
from airflow_provider_chatexport.lake.commits.losses import Losses
from airflow_provider_chatexport.lake.commits.record import DataFile
from airflow_provider_chatexport.lake.commits.snapshot import Snapshot
from airflow_provider_chatexport.lake.maintenance.cleanup import delete_unneeded
from airflow_provider_chatexport.lake.maintenance.lake_search import relations, removal_errors
from airflow_provider_chatexport.lake.maintenance.rewrite import (
    QueriedRows,
    Rewrite,
    Rewriter,
    commit_rewrite,
    with_days_of,
)
from airflow_provider_chatexport.lake.parquet import write_table
from airflow_provider_chatexport.lake.printing import Report
from airflow_provider_chatexport.lake.privacy import matching
from airflow_provider_chatexport.lake.privacy.people import Person, with_known_names
from airflow_provider_chatexport.lake.privacy.redaction import RedactionCounts, Redactor, in_parts
from airflow_provider_chatexport.lake.schema.tables import MESSAGES, TABLE_BY_NAME, TABLES
from airflow_provider_chatexport.lake.schema.types import Table
from airflow_provider_chatexport.lake.storage.store import LakeStore
from airflow_provider_chatexport.lake.storage.workdir import work_folder

_ATTEMPTS: Final = 20
# How many places a dry run names, give or take the columns of one file.
_PLACES: Final = 20
_ADDRESS: Final = "_address"
# What the removal of a person cannot do where other engines read the lake.
OTHER_ENGINES: Final = (
    "earlier versions of published tables name deleted files and cannot be read any more; where other engines cached, "
    "cloned or copied these tables, refresh or delete that there"
)


@dataclass(slots=True, kw_only=True)
class ForgetReport(Report):
    """What a removal did. It does not say whom it removed.

    :param removed: rows that were removed, by table.
    :param blanked: rows that stayed without the person, by table.
    :param files: the old paths of the files that were rewritten.
    :param deleted: how many superseded files were deleted.
    :param leftovers: how many files and folders of broken-off work were deleted.
    :param unsearched: files that are missing or damaged, and so could not be searched. ``repair`` takes them out of
        the lake.
    :param records: the ids of the removal's records.
    :param dry_run: nothing was changed; the other fields say what a removal would do.
    :param is_known: the lake knows the id. If not, the id is on the suppression list, and nothing else was done.
    :param places: some of the places that name the person: table, day, file, column and number of rows. Without a
        column, whole rows.
    :param published: the formats whose tables were published again, before files were deleted.
    :param texts: what texts of others lose: whether the id everywhere or only where it is mentioned, and how many full
        names and names of one word.
    """

    removed: Counter[str] = field(default_factory=Counter)
    blanked: Counter[str] = field(default_factory=Counter)
    files: list[str] = field(default_factory=list)
    unsearched: list[str] = field(default_factory=list)
    deleted: int = 0
    leftovers: int = 0
    records: list[str] = field(default_factory=list)
    keep_messages: bool = False
    dry_run: bool = False
    is_known: bool = True
    places: list[dict[str, Any]] = field(default_factory=list)
    published: list[str] = field(default_factory=list)
    texts: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON types."""
        return {
            "removed": dict(self.removed),
            "blanked": dict(self.blanked),
            "files": self.files,
            "unsearched": self.unsearched,
            "superseded_files_deleted": self.deleted,
            "leftovers_deleted": self.leftovers,
            "records": self.records,
            "keep_messages": self.keep_messages,
            "dry_run": self.dry_run,
            "is_known": self.is_known,
            "published": self.published,
            "other_engines": OTHER_ENGINES if self.published else None,
            "texts": self.texts,
            "places": self.places,
            "seconds": round(self.seconds, 3),
        }


class Removal:
    """The removal of people from every file of a lake.

    :param report: is filled with what is done.
    :param losses: the files that the same work has found lost.
    :param remember: is called with the people and their names before files change, and so before the names are gone.
    """

    def __init__(
        self,
        store: LakeStore,
        report: ForgetReport,
        losses: Losses,
        *,
        work_dir: Path | None = None,
        progress: Progress = silent,
        remember: Callable[[Sequence[Person]], None] | None = None,
    ) -> None:
        self._store = store
        self._report = report
        self._losses = losses
        self._work_dir = work_dir
        self._progress = progress
        self._remember = remember

    def survey(self, snapshot: Snapshot, people: Sequence[Person]) -> None:
        """Count what a removal would change, and note some of the places."""
        report = self._report
        report.removed.clear()
        report.blanked.clear()
        report.places.clear()
        with (
            work_folder(self._store, self._work_dir) as folder,
            removal_errors(self._store),
            _Remover(self._store, snapshot, folder) as remover,
        ):
            report.texts = _texts_lose(remover.prepare(people))
            report.files = [each.file.path for each in remover.files_to_rewrite(self._progress, report)]

    def remove(self, people: Sequence[Person]) -> dict[str, str]:
        """Remove people, and return the loads that were searched, as ``loads_of`` does."""
        searched = [self._remove_part(part) for part in in_parts(people)]
        refresh(self._store, losses=self._losses)
        return searched[0] if searched else {}

    def clean_up(self, now: datetime) -> None:
        """Delete the old files, and what broken-off work left behind.

        :param now: aware.
        """
        deleted = delete_unneeded(self._store, keep=DEFAULT_KEEP, now=now)
        self._report.deleted = len(deleted.superseded)
        self._report.leftovers = len(deleted.unknown) + deleted.n_leftovers

    def _remove_part(self, people: Sequence[Person]) -> dict[str, str]:
        # A load that read the list before the people were on it may be committed at any time, so this looks again until
        # it finds nothing. The last process to commit may have died before it put files where its record says that they
        # are.
        for _ in range(_ATTEMPTS):
            refresh(self._store, losses=self._losses)
            searched = self._losses.on_latest(lambda snapshot: self._attempt(snapshot, people))
            if searched is not None:
                return searched
        raise LakeError(
            f"the lake at {self._store.uri} changes faster than a person can be removed; run this again later"
        )

    def _attempt(self, snapshot: Snapshot, people: Sequence[Person]) -> dict[str, str] | None:
        """Remove people from the lake as a snapshot shows it.

        Return None if anything of them was found, or else the loads that were searched: those without lost files.
        """
        started = time.monotonic()
        store, report = self._store, self._report
        report.unsearched = sorted(self._losses.paths)
        there = {path for path, _ in store.data_files()}
        dead = {
            each.file.path
            for each in snapshot.file_states
            if each.status is FileStatus.DEAD and each.file.path in there
        }
        with work_folder(store, self._work_dir) as folder:
            with removal_errors(store), _Remover(store, snapshot, folder) as remover:
                named = remover.prepare(people)
                report.texts = report.texts or _texts_lose(named)
                if self._remember is not None:
                    self._remember(named)
                files = remover.files_to_rewrite(self._progress)
                if not files and not dead:
                    unsearched = self._losses.loads(snapshot)
                    return {name: state for name, state in loads_of(snapshot).items() if name not in unsearched}
                written, history, rewritten = self._rewrite(remover, files)
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
                        "rewritten": {
                            old: new for old, new in rewritten.items() if old.startswith(f"{MESSAGES.name}/")
                        },
                    },
                ),
                seconds=time.monotonic() - started,
            )
        if record is not None:
            report.files += [each.file.path for each in files]
            report.records.append(record.load_id)
        return None

    def _rewrite(
        self, remover: _Remover, files: Sequence[FileState]
    ) -> tuple[dict[DataFile, Path], list[DataFile], dict[str, list[str]]]:
        """Write files without the people.

        :return: the new files, with where each lies now; those of them that only ``messages_history`` reads; and the
            paths of the new files by that of the old one, where they have all rows of others.
        """
        written: dict[DataFile, Path] = {}
        history: list[DataFile] = []
        rewritten: dict[str, list[str]] = {}
        for number, each in enumerate(files):
            self._progress(REWRITE, number, len(files))
            if each.is_live:
                visible, counts = remover.write_visible_rows(each)
                written.update(visible)
                if each.status is FileStatus.WHOLE:
                    rewritten[each.file.path] = [file.path for file in visible]
                self._report.removed[each.file.table] += counts.removed
                self._report.blanked[each.file.table] += counts.blanked
            if each.status is FileStatus.HISTORY or _holds_history(each):
                versions = remover.write_all_rows(each)
                written.update(versions)
                history += versions
                rewritten[each.file.path] = [file.path for file in versions]
        return written, history, rewritten


def loads_of(snapshot: Snapshot) -> dict[str, str]:
    """Return the ids of all loads, each with the state of the suppression list that it was written under."""
    return {each.load_id: each.facts.get("suppression_list", "") for each in snapshot.records if each.is_load}


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


def _in_table(address: str) -> str:
    """Return the folder and the name of a file in its table, by which no two of its files are alike."""
    return "/".join(address.split("/")[-2:])


def _days(file: DataFile) -> str:
    """Return the days of a file, for people."""
    return file.first_day if file.first_day == file.last_day else f"{file.first_day} to {file.last_day}"


def _holds_history(each: FileState) -> bool:
    """Return whether a live file has rows that newer exports hide and that ``messages_history`` shows."""
    return each.status is FileStatus.PARTLY_HIDDEN and each.record.keep_superseded and each.file.table == MESSAGES.name


class _Remover(Rewriter):
    """Finds people's rows in files, and writes the files without them."""

    def __init__(self, store: LakeStore, snapshot: Snapshot, folder: Path) -> None:
        super().__init__(store, snapshot, folder)
        self._n_written = 0
        self._with_promoted = {table.name: table for table in snapshot.tables}
        # By table, the paths of the files that may name the people, each with its columns of texts that may.
        self._suspects: dict[str, dict[str, set[str]]] = {}

    def prepare(self, people: Sequence[Person]) -> Sequence[Person]:
        """Read the people's names and messages from the lake, and return the people with their names."""
        found, con = relations(self._store, self._snapshot), self._database.connection
        self._redactor = Redactor(con, with_known_names(con, found, people), found)
        return self._redactor.people

    def files_to_rewrite(self, progress: Progress, survey: ForgetReport | None = None) -> list[FileState]:
        """Return the files that name one of the people, and those that have to be rewritten together with them.

        The record of a rewrite means that the truth rule was applied among its own entries. So if one live file of a
        record is rewritten, every file of it with hidden rows has to be rewritten, too.

        :param survey: is filled with the rows of each table, and with some places.
        """
        named = []
        for number, table in enumerate(TABLES):
            progress(SEARCH, number, len(TABLES))
            for each in self._snapshot.readable_files_of(table):
                if each.file.path in self._find_suspects(table) and (counts := self._search(table, each)):
                    named.append(each)
                    if survey is not None and each.is_live:
                        self._note(survey, table, each, counts)
        owners = {each.record.load_id for each in named if each.is_live}
        paths = {each.file.path for each in named}
        return named + [
            each
            for table in TABLES
            for each in self._snapshot.readable_files_of(table)
            if each.record.load_id in owners and each.file.path not in paths and self._may_have_hidden_rows(each)
        ]

    def _find_suspects(self, table: Table) -> dict[str, set[str]]:
        """Return the paths of a table's files that may name the people, each with its columns of texts that may."""
        if table.name not in self._suspects:
            files = self._snapshot.readable_files_of(table)
            rows = visibility.scan_files(self._store, table, files, address_as=_ADDRESS)
            found = self._redactor.suspects(table, rows, _ADDRESS) if files else {}
            # Some file systems write the start of an address in another way.
            paths = {_in_table(visibility.path_in(self._store, each)): each.file.path for each in files}
            self._suspects[table.name] = {paths[_in_table(address)]: texts for address, texts in found.items()}
        return self._suspects[table.name]

    def _search(self, table: Table, each: FileState) -> RedactionCounts:
        return self._redactor.search(table, self._scan(table, each), self._find_suspects(table).get(each.file.path, ()))

    def _note(self, survey: ForgetReport, table: Table, each: FileState, counts: RedactionCounts) -> None:
        """Count the rows of a file that was searched last, and note the places unless there are many already."""
        survey.removed[table.name] += counts.removed
        survey.blanked[table.name] += counts.blanked
        if len(survey.places) < _PLACES:
            where = {"table": table.name, "day": _days(each.file), "file": each.file.path}
            found = self._redactor.places(table, self._scan(table, each))
            survey.places += [where | {"column": column, "rows": n_rows} for column, n_rows in found.items()]

    def write_visible_rows(self, each: FileState) -> tuple[dict[DataFile, Path], RedactionCounts]:
        """Write a file without the people, and without the rows that newer exports hide."""
        table = TABLE_BY_NAME[each.file.table]
        counts = self._search(table, each)
        return self._write(each, table, self._is_visible(table)), counts

    def write_all_rows(self, each: FileState) -> dict[DataFile, Path]:
        """Write a file without the people, but with hidden rows, which ``messages_history`` shows."""
        table = TABLE_BY_NAME[each.file.table]
        self._search(table, each)
        return self._write(each, table, "true")

    def _write(self, each: FileState, table: Table, condition: str) -> dict[DataFile, Path]:
        self._n_written += 1
        # Hidden rows go first: the redactor may change the ids by which rows are compared.
        redacted = self._redactor.query(table, f"(FROM {self._scan(table, each)} rows WHERE {condition})")
        self._database.execute(f"CREATE OR REPLACE TABLE redacted AS {redacted}")
        old = each.file
        files = write_table(
            QueriedRows(self._database, ["FROM redacted"], [old]),
            self._with_promoted[table.name],
            self._files_folder,
            stem=f"{self._stem}-{self._n_written}",
            metadata=self._metadata,
            by_month=True,
        )
        return {
            replace(
                with_days_of(file, [old]),
                n_uncovered=min(file.rows, old.n_uncovered),
                n_unplaced=min(file.rows, old.n_unplaced),
            ): local
            for file, local in files
        }

    def _scan(self, table: Table, each: FileState) -> str:
        return visibility.scan_files(self._store, table, [each])

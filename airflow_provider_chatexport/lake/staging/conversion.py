"""Export files -> what a load's tables hold, ready to be written.

1. ``normalize`` turns each file into entity files of one form, and rejects (``lake.normalize.normalizer``).
2. ``Stage`` has DuckDB type the objects, a table per entity, and counts what came in (``staging.stage``).
3. ``finish`` places reactions, cuts to the window, keeps one row per key, and extracts rows from inside objects.
4. People on the lake's suppression list are taken out, and users pseudonymized.
5. ``rows`` yields each table, sorted by day.

No file is held in memory: the database spills to the work folder when it outgrows its limit.
"""

from __future__ import annotations

import contextlib
import functools
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Self

import pyarrow as pa

from airflow_provider_chatexport.core.options import MAX_LINE_BYTES, LoadOptions
from airflow_provider_chatexport.core.progress import Progress, silent
from airflow_provider_chatexport.core.times import EPOCH
from airflow_provider_chatexport.errors import LakeError
from airflow_provider_chatexport.lake.commits import coverage_tables, visibility
from airflow_provider_chatexport.lake.commits.coverage import CoverageEntry
from airflow_provider_chatexport.lake.duckdb_session import Database, lake_errors
from airflow_provider_chatexport.lake.normalize.input_file import InputFile
from airflow_provider_chatexport.lake.privacy import pseudonyms
from airflow_provider_chatexport.lake.privacy.listed import people_of, person_of
from airflow_provider_chatexport.lake.privacy.people import Person, user_ids, with_known_names
from airflow_provider_chatexport.lake.privacy.redaction import Redactor, in_parts
from airflow_provider_chatexport.lake.privacy.suppression_list import SuppressionList
from airflow_provider_chatexport.lake.schema import sql
from airflow_provider_chatexport.lake.schema.tables import ENTITY_TABLES, MESSAGES, REACTIONS, TABLES
from airflow_provider_chatexport.lake.schema.types import Kind, Placement, Table
from airflow_provider_chatexport.lake.staging.counts import Counts
from airflow_provider_chatexport.lake.staging.nested import extract_nested_rows
from airflow_provider_chatexport.lake.staging.queries import RELATIONS
from airflow_provider_chatexport.lake.staging.reactions import (
    count_missing_reactions,
    count_missing_replies,
    place_reactions,
    place_reactions_of_users,
)
from airflow_provider_chatexport.lake.staging.stage import Stage, StagedFile

MEMORY_LIMIT: Final = "400MB"
# How much is sorted at a time: the sort of all of a 3 GB export at once did not fit into the limit.
SORT_ROWS: Final = 100_000
SORT_BYTES: Final = 100_000_000
BATCH_BYTES: Final = 16_000_000
# Rows of this size on average are sorted on one core, with more room.
LARGE_ROW_BYTES: Final = 8_000
# A row without any text has some bytes as well.
LEAST_ROW_BYTES: Final = 100
# Rows that cannot be larger on average are not measured: to do so takes a third of the time in which they are sorted.
USUAL_ROW_BYTES: Final = 3_000


@contextlib.contextmanager
def conversion_errors() -> Iterator[None]:
    """Raise every error of the database or the work folder as a ``LakeError``.

    :raises LakeError: the work folder is full, or the memory limit too small.
    """
    try:
        with lake_errors(
            "converting failed in the database",
            hint="make sure that the work folder has room for twice the export's size, unpacked",
            out_of_memory="converting failed: the load does not fit into the converter's memory; export a shorter "
            "window (max_window), or load the file in parts",
        ):
            yield
    except OSError as error:
        raise LakeError(
            f"converting failed in the work folder: {error.strerror or error}; free some space there"
        ) from None


class Conversion:
    """A load in the making: ``add`` each file, ``finish``, then read ``days`` and ``rows`` of each table.

    It is a context manager, and empties its folder at the end. Every method raises ``LakeError`` if the work folder is
    full or the memory limit too small.

    :param folder: for what spills and for normalized files; about twice the size of the largest unpacked input.
    :param tables: the registry's, with promoted columns if there are some.
    :param pseudonym_key: set if users are to get pseudonyms.
    :ivar counts: hold after ``finish``.
    :ivar database: has the stage tables, to be compared with what is in the lake.
    :ivar message_spans: by number of the file and channel, the times of the first and last message.
    """

    def __init__(
        self,
        folder: Path,
        *,
        load_id: str,
        max_line_bytes: int = MAX_LINE_BYTES,
        max_unpacked_bytes: int | None = None,
        tables: Sequence[Table] = TABLES,
        pseudonym_key: str | None = None,
        progress: Progress = silent,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.counts = Counts()
        self.message_spans: dict[int, dict[str, tuple[datetime, datetime]]] = {}
        self._folder = folder
        self._tables = tables
        self._pseudonym_key = pseudonym_key
        self._pseudonymized = False
        # Rows per day, cached after ``finish`` and cleared whenever rows are removed.
        self._days: dict[str, dict[str, int]] = {}
        self.database = Database(folder, memory_limit=MEMORY_LIMIT)
        self._stage = Stage(
            self.database,
            folder,
            load_id=load_id,
            counts=self.counts,
            max_line_bytes=max_line_bytes,
            max_unpacked_bytes=max_unpacked_bytes,
            progress=progress,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.database.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    @conversion_errors()
    def add(self, file: InputFile) -> StagedFile:
        """Normalize and stage one file.

        :raises InputError: it is not an export file, breaks off, or is of both kinds.
        """
        return self._stage.add(file)

    @conversion_errors()
    def finish(self) -> None:
        """Place, cut and deduplicate rows. Afterwards ``days``, ``rows`` and ``counts`` hold."""
        counts, stage = self.counts, self._stage
        place_reactions(stage)
        place_reactions_of_users(stage)
        for table in (MESSAGES, REACTIONS):
            counts.out_of_window += stage.delete(table, "NOT _in_window")
        # Before duplicates go: a file covers the moment of a message too if another file has a newer version of it.
        self.message_spans = self._message_spans()
        n_of_their_own = self._n_rows()
        for table in ENTITY_TABLES:
            if n_of_their_own[table.name]:
                n_dropped = stage.keep_newest(table)
                n_of_their_own[table.name] -= n_dropped
                counts.duplicates += n_dropped
        extract_nested_rows(stage)
        count_missing_reactions(stage)
        count_missing_replies(stage)
        counts.rows = self._n_rows()
        counts.drawn = {
            name: n_rows - n_of_their_own[name]
            for name, n_rows in counts.rows.items()
            if n_rows != n_of_their_own[name]
        }
        self._count_cast_failures()

    @conversion_errors()
    def pseudonymize(self, options: LoadOptions) -> None:
        """Take personal data out, as far as the options say."""
        if options.changes_personal_data:
            self._days.clear()
            pseudonyms.pseudonymize(self.database, self._pseudonyms, options)
            self._pseudonymized = options.hash_users

    @conversion_errors()
    def people(self, listed: SuppressionList) -> list[Person]:
        """Return who in the tables is on a lake's list, by their ids in the tables.

        If users get pseudonyms, the list may know a person by either id.
        """
        if not listed.entries:
            return []
        people = people_of(self.database.connection, RELATIONS, listed)
        if self._pseudonym_key is None:
            return people
        found = listed.among({*self._pseudonyms, *self._pseudonyms.values()})
        for user_id, pseudonym in self._pseudonyms.items():
            if entries := [found[each] for each in (user_id, pseudonym) if each in found]:
                person = person_of(pseudonym if self._pseudonymized else user_id, entries[0])
                keep = all(entry.keep_messages for entry in entries)
                people = [replace(person, keep_messages=keep), *(each for each in people if each.user_id != user_id)]
        return people if self._pseudonymized else with_known_names(self.database.connection, RELATIONS, people)

    @functools.cached_property
    def _pseudonyms(self) -> dict[str, str]:
        """The pseudonym of every user in the tables, by the id that they came with."""
        if self._pseudonym_key is None:
            return {}
        ids = sorted(self._user_ids())
        return {user_id: pseudonyms.pseudonym(user_id, self._pseudonym_key) for user_id in ids}

    def _user_ids(self) -> set[str]:
        return user_ids(self.database.connection, RELATIONS)

    @conversion_errors()
    def forget(self, listed: SuppressionList) -> int:
        """Take people out who are on a lake's list, count their rows as ``forgotten``, and return how many they are."""
        people = self.people(listed)
        for some in in_parts(people):
            self._forget(some)
        if people:
            self._days.clear()
            before, self.counts.rows = self.counts.rows, self._n_rows()
            for name, n_rows in self.counts.rows.items():
                if n_gone := before[name] - n_rows:
                    self.counts.forgotten[name] = self.counts.forgotten.get(name, 0) + n_gone
        return len(people)

    def _forget(self, people: Sequence[Person]) -> None:
        """Take people out."""
        redactor = Redactor(self.database.connection, people, RELATIONS)
        for table in TABLES:
            relation = RELATIONS[table.name]
            if redactor.search(table, relation):
                self.database.execute(f"CREATE OR REPLACE TABLE {relation} AS {redactor.query(table, relation)}")

    def _count_cast_failures(self) -> None:
        failures = self.counts.cast_failures
        for table in self._tables:
            if not self.counts.rows[table.name]:
                continue
            for key, n_values in self.database.all(f"""
SELECT key, count(*) FROM (SELECT unnest(_cast_failures) AS key FROM stage_{table.name}) GROUP BY ALL ORDER BY ALL
"""):
                failures[f"{table.name}.{key}"] = n_values
            for column in table:
                if column.promoted:
                    (n_values,) = self.database.one(f"""
SELECT count(*) FROM stage_{table.name} WHERE {sql.promoted_fails(column)}
""")
                    if n_values:
                        failures[f"{table.name}.{column.name}"] = n_values

    def _n_rows(self) -> dict[str, int]:
        """Return the number of rows by table."""
        per_table = [f"SELECT {sql.quoted(table.name)}, count(*) FROM stage_{table.name}" for table in TABLES]
        found = dict(self.database.all(" UNION ALL ".join(per_table)))
        return {table.name: found[table.name] for table in TABLES}

    @conversion_errors()
    def days(self, table: Table) -> dict[str, int]:
        """Return the rows per day, days ascending, as text."""
        if not self.counts.rows[table.name]:
            return {}
        if table.name not in self._days:
            found = self.database.fetched(f"""
SELECT strftime(day, '%Y-%m-%d'), n_rows
FROM (SELECT {sql.date(table)} AS day, count(*) AS n_rows FROM stage_{table.name} GROUP BY day)
ORDER BY day
""")
            self._days[table.name] = dict(found)
        return self._days[table.name]

    def rows(self, table: Table, batch_rows: int) -> Iterator[pa.RecordBatch]:
        """Yield the table as Arrow: ``_day``, then the registry's columns; by day, and sorted within it."""
        order = ", ".join(("_day", *(sql.name(column) for column in table.sort)))
        with conversion_errors():
            rows_of_day = self.days(table)
            if not rows_of_day:
                return
            row_bytes = self._row_bytes(table, sum(rows_of_day.values()))
            if row_bytes > LARGE_ROW_BYTES:
                self.database.make_room()
            for days in _in_groups(rows_of_day, min(SORT_ROWS, int(SORT_BYTES / row_bytes))):
                yield from self.database.query(f"""
SELECT {sql.date(table)} AS _day, {sql.arrow_columns(table)}
FROM stage_{table.name}
WHERE {sql.in_days(table, days[0], days[-1])}
ORDER BY {order}
""").to_arrow_reader(max(1, min(batch_rows, int(BATCH_BYTES / row_bytes))))

    def _row_bytes(self, table: Table, n_rows: int) -> float:
        """Return how large a row is on average, or somewhat more."""
        # A load that is as small as a batch fits into memory, however long its rows are.
        if self._stage.n_bytes <= BATCH_BYTES:
            return LEAST_ROW_BYTES
        # The texts of a row are part of what was read.
        most = LEAST_ROW_BYTES + self._stage.n_bytes / n_rows
        if most <= USUAL_ROW_BYTES:
            return most
        texts = [
            f"coalesce(strlen({sql.name(column.name)}::VARCHAR), 0)"
            for column in table
            if column.kind in (Kind.TEXT, Kind.JSON) and not column.promoted
        ]
        ((n_bytes,),) = self.database.fetched(f"SELECT sum({' + '.join(texts)})::BIGINT FROM stage_{table.name}")
        return LEAST_ROW_BYTES + float(n_bytes) / n_rows

    @conversion_errors()
    def first_reject(self) -> tuple[int, int, int, str]:
        """Return the number of the file, the line, the byte and the reason of the first reject. There has to be one."""
        number, line, offset, reason = self.database.one(
            "SELECT _input, line_number, byte_offset, reason FROM stage_rejects ORDER BY ALL LIMIT 1"
        )
        return number, line, offset, reason

    def _message_spans(self) -> dict[int, dict[str, tuple[datetime, datetime]]]:
        spans: dict[int, dict[str, tuple[datetime, datetime]]] = defaultdict(dict)
        for number, cid, first, last in self.database.all("""
SELECT _input, cid, epoch_us(min(created_at)), epoch_us(max(created_at)) FROM stage_messages GROUP BY ALL
"""):
            spans[number][cid] = (EPOCH + timedelta(microseconds=first), EPOCH + timedelta(microseconds=last))
        return spans

    @conversion_errors()
    def uncovered(
        self, coverage: Iterable[CoverageEntry], tables: Sequence[Table] = TABLES
    ) -> dict[tuple[str, str], int]:
        """Return, by table and day, how many event rows lie outside of all coverage of the load, if there are any.

        :param tables: the tables to look at.
        """
        found: dict[tuple[str, str], int] = {}
        with coverage_tables.table(self.database, "load_coverage", coverage):
            for table in tables:
                if table.placement is not Placement.EVENT or not self.counts.rows[table.name]:
                    continue
                if not self._all_covered(table, "load_coverage"):
                    condition = visibility.uncovered(table, "load_coverage")
                    found |= {(table.name, day): n_rows for day, n_rows in self._n_rows_by_day(table, condition)}
        return found

    @conversion_errors()
    def unplaced(self) -> dict[tuple[str, str], int]:
        """Return, by table and day, how many reactions lie at their own moment: the load lacks their message."""
        condition = f"{visibility.unplaced(REACTIONS)} AND NOT EXISTS (FROM stage_messages WHERE id = rows.message_id)"
        return {(REACTIONS.name, day): n_rows for day, n_rows in self._n_rows_by_day(REACTIONS, condition)}

    def _all_covered(self, table: Table, coverage: str) -> bool:
        """Return whether each channel has an entry that contains all of its rows. To ask for every row costs more."""
        return self.database.one(f"""
SELECT count(*) FROM (
    SELECT cid, _exported_at, _load_id, min({table.day_column}) AS first, max({table.day_column}) AS last
    FROM stage_{table.name} GROUP BY ALL
) rows
WHERE {visibility.uncovered(table, coverage, span=("first", "last"))}
""") == (0,)

    def _n_rows_by_day(self, table: Table, condition: str) -> list[tuple[str, int]]:
        if not self.counts.rows[table.name]:
            return []
        return self.database.all(f"""
SELECT {sql.day(table)} AS day, count(*) FROM stage_{table.name} rows WHERE {condition} GROUP BY day
""")


def _in_groups(rows_of_day: Mapping[str, int], max_rows: int) -> Iterator[list[str]]:
    """Yield groups of consecutive days that have at most so many rows together; a day alone may have more."""
    group: list[str] = []
    n_rows = 0
    for day, n_of_day in rows_of_day.items():
        if group and n_rows + n_of_day > max_rows:
            yield group
            group, n_rows = [], 0
        group.append(day)
        n_rows += n_of_day
    if group:
        yield group

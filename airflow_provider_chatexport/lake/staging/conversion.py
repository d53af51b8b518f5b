"""Export files -> what a load's tables hold, ready to be written.

The route of a line:

1. ``source`` cuts the file into lines, into blocks of lines, or into the fragments of an array.
2. ``sift`` tells each line's entity. Messages in the usual shape stay in the file (``fast_path``); all else is written
   into a file per entity, in one form, or rejected. Where a message cannot be left in place, all of them are written.
3. ``stage`` has the database read both into a table per entity, by the queries of ``reading``, with types from the
   registry; there it is told whether a row is in the window. What the reader refuses is mended or rejected.
4. ``finish`` places reactions, cuts to the window, keeps one row per key, and has ``draw`` add the rows that lie inside
   objects.
5. ``write`` makes files of what remains.

Exports of users go by ``user_exports`` in the second step, and have no window. No file is held in memory: the database
spills to the work folder when it outgrows its limit.
"""

from __future__ import annotations

import contextlib
import functools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Self

import duckdb
import pyarrow as pa

from airflow_provider_chatexport.core.options import MAX_LINE_BYTES, LoadOptions
from airflow_provider_chatexport.core.progress import Progress, silent
from airflow_provider_chatexport.core.times import EPOCH
from airflow_provider_chatexport.errors import LakeError
from airflow_provider_chatexport.lake.commits import visibility
from airflow_provider_chatexport.lake.commits.coverage import CoverageEntry
from airflow_provider_chatexport.lake.commits.visibility import coverage_rows
from airflow_provider_chatexport.lake.privacy import pseudonyms
from airflow_provider_chatexport.lake.privacy.people import known_people, listed_in_json, user_ids
from airflow_provider_chatexport.lake.privacy.redaction import Redactor, in_parts
from airflow_provider_chatexport.lake.privacy.suppression_list import SuppressionList
from airflow_provider_chatexport.lake.schema import sql
from airflow_provider_chatexport.lake.schema.tables import ENTITY_TABLES, MESSAGES, REACTIONS, TABLES
from airflow_provider_chatexport.lake.schema.types import Kind, Placement, Table
from airflow_provider_chatexport.lake.staging.nested import NestedRows
from airflow_provider_chatexport.lake.staging.stage import Counts, Found, Input, Stage

MEMORY_LIMIT: Final = "400MB"
# What is sorted at a time: the sort of all of a 3 GB export at once did not fit into the limit.
SORT_ROWS: Final = 100_000
SORT_BYTES: Final = 100_000_000
BATCH_BYTES: Final = 16_000_000
# Rows of this size on average are sorted on one core, with more room.
LARGE_ROW_BYTES: Final = 8_000


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """DuckDB's messages may quote the value at fault, which may be a person's text: only their kind is in_place on."""
    try:
        yield
    except duckdb.OutOfMemoryException:
        raise LakeError(
            "converting failed: the load does not fit into the converter's memory; export a shorter window "
            "(max_window), or load the file in parts"
        ) from None
    except duckdb.Error as error:
        raise LakeError(
            f"converting failed in the database ({type(error).__name__}); make sure that the work folder has room for "
            "twice the export's size, unpacked"
        ) from None
    except OSError as error:
        raise LakeError(
            f"converting failed in the work folder: {error.strerror or error}; free some space there"
        ) from None


class Conversion:
    """A load in the making: ``add`` each file, ``finish``, then read ``days`` and ``rows`` of each table.

    Used as a context manager: its folder is emptied at the end. Every method :raises LakeError: the work folder is
    full, or the memory limit too small.

    :param folder: for what spills and for normalized files; about twice the size of the largest unpacked input.
    :param memory_limit: of the database, as DuckDB writes it.
    :param tables: the registry's, with promoted columns where there are some.
    :param pseudonym_key: given where users are to get pseudonyms.
    """

    def __init__(
        self,
        folder: Path,
        *,
        load_id: str,
        memory_limit: str = MEMORY_LIMIT,
        max_line_bytes: int = MAX_LINE_BYTES,
        max_unpacked_bytes: int | None = None,
        tables: Sequence[Table] = TABLES,
        pseudonym_key: str | None = None,
        progress: Progress = silent,
    ) -> None:
        self._tables = tables
        self._pseudonym_key = pseudonym_key
        self._pseudonymized = False
        # Of what ``finish`` made, until something is taken out of it.
        self._extents: dict[str, dict[str, tuple[int, int]]] = {}
        # Per file, by its number in the order of ``add``, and channel: the times of its first and last message.
        self.message_spans: dict[int, dict[str, tuple[datetime, datetime]]] = {}
        self._stage = Stage(
            folder,
            load_id=load_id,
            memory_limit=memory_limit,
            max_line_bytes=max_line_bytes,
            max_unpacked_bytes=max_unpacked_bytes,
            tell=progress,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stage.close()

    @property
    def stage(self) -> Stage:
        """The stage tables, for those who compare them with what is in the lake."""
        return self._stage

    @property
    def counts(self) -> Counts:
        return self._stage.counts

    @_explained()
    def add(self, given: Input) -> Found:
        """Reads one file.

        :raises InputError: it is not an export file, breaks off, or is of both kinds.
        """
        return self._stage.add(given)

    @_explained()
    def finish(self) -> None:
        """Places, cuts and deduplicates; afterwards ``days``, ``rows`` and ``counts`` hold."""
        counts = self.counts
        self._place_reactions()
        for table in (MESSAGES, REACTIONS):
            counts.out_of_window += self._stage.delete(table, "NOT _in_window")
        # Before duplicates go: a file tells of those moments as well whose message another one tells newer.
        self.message_spans = self._message_spans()
        by_themselves = self._n_rows()
        for table in ENTITY_TABLES:
            if by_themselves[table.name]:
                n_dropped = self._stage.keep_newest(table)
                by_themselves[table.name] -= n_dropped
                counts.duplicates += n_dropped
        NestedRows(self._stage).draw()
        self._count_missing_reactions()
        counts.rows = self._n_rows()
        self._count_cast_failures()
        drawn = {name: n_rows - by_themselves[name] for name, n_rows in counts.rows.items()}
        counts.drawn = {name: n_rows for name, n_rows in drawn.items() if n_rows}

    @_explained()
    def pseudonymize(self, options: LoadOptions) -> None:
        """Takes personal data out, as far as the options say."""
        if options.changes_personal_data:
            self._extents.clear()
            pseudonyms.pseudonymize(self._stage, self._pseudonyms, options)
            self._pseudonymized = options.hash_users

    @_explained()
    def people(self, listed: SuppressionList) -> dict[str, bool]:
        """Who in the tables is on a lake's list, and whether their messages stay; by their ids as the tables have them.

        Where users get pseudonyms, the list may know a person by either.
        """
        if not listed.keep_messages:
            return {}
        inside = listed.among(listed_in_json(self._stage.connection, self._stage.relations, listed))
        if self._pseudonym_key is None:
            return inside | listed.among(self._user_ids())
        found = listed.among({*self._pseudonyms, *self._pseudonyms.values()})
        people = inside
        for user_id, hidden in self._pseudonyms.items():
            keep = [found[each] for each in (user_id, hidden) if each in found]
            if keep:
                people[hidden if self._pseudonymized else user_id] = all(keep)
        return people

    @functools.cached_property
    def _pseudonyms(self) -> dict[str, str]:
        """Of every user in the tables, by the id that they came with."""
        if self._pseudonym_key is None:
            return {}
        ids = sorted(self._user_ids())
        return {user_id: pseudonyms.pseudonym(user_id, self._pseudonym_key) for user_id in ids}

    def _user_ids(self) -> set[str]:
        return user_ids(self._stage.connection, self._stage.relations)

    @_explained()
    def forget(self, listed: SuppressionList) -> int:
        """Takes out those who are on a lake's list; how many. Their rows are counted as ``forgotten``."""
        people = self.people(listed)
        for some in in_parts(people):
            self._forget(some)
        if people:
            self._extents.clear()
            before, self.counts.rows = self.counts.rows, self._n_rows()
            for name, n_rows in self.counts.rows.items():
                if gone := before[name] - n_rows:
                    self.counts.forgotten[name] = self.counts.forgotten.get(name, 0) + gone
        return len(people)

    def _forget(self, keep_messages: Mapping[str, bool]) -> None:
        """:param keep_messages: of each, whether their messages stay."""
        stage = self._stage
        people = known_people(stage.connection, stage.relations, keep_messages)
        eraser = Redactor(stage.connection, people, stage.relations)
        for table in TABLES:
            relation = stage.relations[table.name]
            if eraser.search(table, relation):
                stage.execute(f"CREATE OR REPLACE TABLE {relation} AS {eraser.query(table, relation)}")

    def _place_reactions(self) -> None:
        """A reaction stands with its message, of several versions the one that will remain. Where that is not in the
        load, it is of the channel that it names itself, or of the one before it, and stands at its own time, which has
        to be in the window."""
        messages = "stage_messages"
        if self._stage.n_extra(MESSAGES):
            messages = f"({self._stage.newest(MESSAGES, first='_in_window DESC')})"
        self._stage.execute(
            "UPDATE stage_reactions r SET message_created_at = m.created_at, cid = coalesce(m.cid, r.cid), "
            f"_in_window = m._in_window FROM {messages} m WHERE m.id = r.message_id"
        )
        self._stage.execute(
            "UPDATE stage_reactions SET cid = coalesce(json_extract_string(custom, '/channel_cid'), "
            "json_extract_string(custom, '/channel_type') || ':' || json_extract_string(custom, '/channel_id')) "
            "WHERE cid IS NULL"
        )
        self._stage.execute(
            "UPDATE stage_reactions SET cid = place FROM (SELECT r.rowid AS row, c.cid AS place FROM stage_reactions r "
            "ASOF JOIN channel_lines c ON c.input = r._input AND c.n < r._n WHERE r.cid IS NULL) found "
            "WHERE stage_reactions.rowid = found.row"
        )
        self._stage.execute(
            "UPDATE stage_reactions SET message_created_at = created_at WHERE message_created_at IS NULL"
        )

    def _count_missing_reactions(self) -> None:
        """Few messages have reactions, and of those few have more than the export carries: the others are left at 0."""
        told = (
            "SELECT id, unnest(json_keys(reaction_counts)) AS type, "
            "TRY_CAST(unnest(json_extract_string(reaction_counts, '$.*')) AS BIGINT) AS n "
            f"FROM stage_messages WHERE {sql.is_object('reaction_counts')}"
        )
        carried = "SELECT message_id AS id, type, count(*) AS n FROM stage_reactions GROUP BY ALL"
        self._stage.execute(
            "UPDATE stage_messages SET reactions_missing = missing.n FROM (SELECT id, sum(told.n - coalesce(carried.n, "
            f"0)) AS n FROM ({told}) told LEFT JOIN ({carried}) carried USING (id, type) "
            "WHERE told.n > coalesce(carried.n, 0) GROUP BY id) missing WHERE missing.id = stage_messages.id"
        )

    def _count_cast_failures(self) -> None:
        for table in self._tables:
            if not self.counts.rows[table.name]:
                continue
            for key, n_values in self._stage.all(
                f"SELECT key, count(*) FROM (SELECT unnest(_cast_failures) AS key FROM stage_{table.name}) "
                "GROUP BY ALL ORDER BY ALL"
            ):
                self.counts.cast_failures[f"{table.name}.{key}"] = n_values
            for column in table:
                if column.promoted and (
                    n_values := self._stage.one(
                        f"SELECT count(*) FROM stage_{table.name} WHERE {sql.promoted_text(column)} IS NOT NULL "
                        f"AND ({sql.promoted(column)}) IS NULL"
                    )[0]
                ):
                    self.counts.cast_failures[f"{table.name}.{column.name}"] = n_values

    def _n_rows(self) -> dict[str, int]:
        """By table."""
        asked = " UNION ALL ".join(
            f"SELECT {sql.quoted(table.name)}, count(*) FROM stage_{table.name}" for table in TABLES
        )
        found = dict(self._stage.all(asked))
        return {table.name: found[table.name] for table in TABLES}

    @_explained()
    def days(self, table: Table) -> dict[str, int]:
        """Rows per day folder, days ascending, as text."""
        return {day: n_rows for day, (n_rows, _) in self._extent_of(table).items()}

    def rows(self, table: Table, batch_rows: int) -> Iterator[pa.RecordBatch]:
        """The table as Arrow: ``_day``, then the registry's columns; by day, and sorted within it."""
        order = ", ".join(("_day", *(sql.name(column) for column in table.sort)))
        with _explained():
            extent = self._extent_of(table)
            if not extent:
                return
            # A row of nothing has some bytes as well.
            row_bytes = 100 + sum(n_bytes for _, n_bytes in extent.values()) / sum(n for n, _ in extent.values())
            if row_bytes > LARGE_ROW_BYTES:
                self._stage.make_room()
            for days in _in_groups(self.days(table), min(SORT_ROWS, int(SORT_BYTES / row_bytes))):
                yield from self._stage.query(
                    f"SELECT {sql.date(table)} AS _day, {sql.arrow_columns(table)} FROM stage_{table.name} "
                    f"WHERE {sql.in_days(table, days[0], days[-1])} ORDER BY {order}"
                ).to_arrow_reader(max(1, min(batch_rows, int(BATCH_BYTES / row_bytes))))

    def _extent_of(self, table: Table) -> dict[str, tuple[int, int]]:
        """By day folder, how many rows there are, and how long their texts are together."""
        if not self.counts.rows[table.name]:
            return {}
        if table.name not in self._extents:
            texts = [
                f"coalesce(strlen({sql.name(column.name)}::VARCHAR), 0)"
                for column in table
                if column.kind in (Kind.TEXT, Kind.JSON) and not column.promoted
            ]
            found = self._stage.fetched(
                f"SELECT {sql.day(table)} AS day, count(*), sum({' + '.join(texts)})::BIGINT FROM stage_{table.name} "
                "GROUP BY day ORDER BY day"
            )
            self._extents[table.name] = {day: (n_rows, n_bytes) for day, n_rows, n_bytes in found}
        return self._extents[table.name]

    @_explained()
    def first_reject(self) -> tuple[int, int]:
        """The file, by its number in the order of ``add``, and the line of the first reject; there has to be one."""
        number, line = self._stage.one("SELECT _input, line_number FROM stage_rejects ORDER BY ALL LIMIT 1")
        return number, line

    def _message_spans(self) -> dict[int, dict[str, tuple[datetime, datetime]]]:
        spans: dict[int, dict[str, tuple[datetime, datetime]]] = defaultdict(dict)
        for number, cid, first, last in self._stage.all(
            "SELECT _input, cid, epoch_us(min(created_at)), epoch_us(max(created_at)) FROM stage_messages GROUP BY ALL"
        ):
            spans[number][cid] = (EPOCH + timedelta(microseconds=first), EPOCH + timedelta(microseconds=last))
        return spans

    @_explained()
    def uncovered(self, coverage: Iterable[CoverageEntry]) -> dict[tuple[str, str], int]:
        """Event rows outside of all that the load claims to cover, by table and day; only those that have any."""
        found: dict[tuple[str, str], int] = {}
        with self._stage.registered("claims", coverage_rows(coverage)):
            for table in TABLES:
                if table.placement is Placement.EVENT:
                    for day, n_rows in self._stage.all(
                        f"SELECT {sql.day(table)} AS day, count(*) FROM stage_{table.name} rows "
                        f"WHERE {visibility.uncovered(table, 'claims')} GROUP BY day"
                    ):
                        found[table.name, day] = n_rows
        return found


def _in_groups(rows_of_day: Mapping[str, int], max_rows: int) -> Iterator[list[str]]:
    """Consecutive days of at most so many rows together; a day alone may have more."""
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

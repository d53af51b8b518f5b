"""Entity files -> stage tables: every object typed by DuckDB, and counted against what was normalized.

Types come from the registry. DuckDB never infers one, because a type that differs from file to file breaks readers.

What is read twice, and why
- STRUCT first, JSON second. Reading objects as a STRUCT of typed text fields is several times faster than as JSON, but
  a STRUCT loses what it cannot hold. If any value of a file turns out to fit into no column (``_cast_failures``), the
  rows of that read are deleted and the whole entity file is read again as JSON, which keeps the value in ``custom``.
  Where the custom keys do not fit into a STRUCT at all, JSON is the only read.
- A STRUCT has the keys that the objects of the file have, and the query no columns of others (``schema.narrowing``): of
  a small load, planning a query takes longer than its rows.
- Users are gathered by a scan of their own over the same file: as columns of the rows they would be a third of them.
  For messages in place, the scan runs while Python is normalizing (``in_place``). Where no row holds whole users, as in
  exports that name users by id, there is no scan.
- An object that DuckDB refuses, or that lacks what a row needs, is repaired into a small file of its own, and only that
  is read again, as JSON (``repair``).
- If an object of a file in place is refused, or a message comes twice, the export file is normalized once more with
  every object written, and read again: an object in place has neither a number nor a known byte offset.

``ignore_errors`` makes DuckDB skip a line that it cannot read, without a word. That is safe here because every read is
counted. The entity file says how many objects it has, and each has a number. An object without a row of its number is
looked up in the file afterwards:

    message.ndjson                                 after the read of stage_messages
    {"n":1,..,"data":{"id":"m1",..}}               row 1
    {"n":2,..,"data":{"id":"m2","cid":null,..}}    no row: it has no channel. Repaired with the channel of its place
    {"n":4,..,"data":{"text":"(not UTF-8)",..}}    no row: DuckDB skipped the line. Rejected
    3 objects                                      1 row: so 2 and 4 are looked up in the file
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from airflow_provider_chatexport.core.entities import Entity, ExportKind, References, Shape
from airflow_provider_chatexport.core.progress import CONVERT, READ, Progress
from airflow_provider_chatexport.core.times import EARLIEST, LATEST, format_rfc3339
from airflow_provider_chatexport.errors import InputError
from airflow_provider_chatexport.lake.duckdb_session import Database
from airflow_provider_chatexport.lake.normalize.custom_keys import CustomKeys
from airflow_provider_chatexport.lake.normalize.entities import ChannelContext
from airflow_provider_chatexport.lake.normalize.export_file import ExportReader
from airflow_provider_chatexport.lake.normalize.input_file import InputFile
from airflow_provider_chatexport.lake.normalize.normalizer import normalize
from airflow_provider_chatexport.lake.normalize.output import EntityFile, NormalizedFile
from airflow_provider_chatexport.lake.normalize.rejects import REJECT_COLUMNS
from airflow_provider_chatexport.lake.normalize.user_exports import (
    UserExportContext,
    UsersEvidence,
    may_be_of_other_channels,
    users_evidence,
)
from airflow_provider_chatexport.lake.schema import sql
from airflow_provider_chatexport.lake.schema.arrow import arrow_rows
from airflow_provider_chatexport.lake.schema.narrowing import narrowed
from airflow_provider_chatexport.lake.schema.tables import (
    MESSAGES,
    REACTIONS,
    TABLE_BY_ENTITY,
    TABLES,
    USER_EXPORT_TABLE_BY_ENTITY,
)
from airflow_provider_chatexport.lake.schema.types import Table
from airflow_provider_chatexport.lake.staging import in_place, queries
from airflow_provider_chatexport.lake.staging.counts import Counts
from airflow_provider_chatexport.lake.staging.repair import reject_missing, repair_missing

# Rows whose two objects are joined at a time; each may be long.
JOINED_ROWS: Final = 2_048
_CHANNELS: Final = pa.schema([("input", pa.int64()), ("n", pa.int64()), ("cid", pa.string())])
_CUSTOM: Final = pa.schema([("custom", pa.string())])
_OTHERS: Final = {"entity": "VARCHAR", "cid": "VARCHAR", "line_number": "BIGINT", "data": "JSON"}
_IN_WINDOW: Final = (MESSAGES, REACTIONS)


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedFile:
    """What a file turned out to be.

    :param number: in the order of adding.
    :param cids: the channels that it names.
    :param holds_export: some line is part of an export, or is too long to be looked at; or there is no line at all.
    :param evidence: why it counts as an export of users, if only its content says so.
    :param is_array: it is one JSON array, as v1 is.
    :param shapes: the shapes that its entities have.
    :param references: how its messages name users; none if it has no messages with a user.
    """

    number: int
    kind: ExportKind
    evidence: UsersEvidence | None
    is_array: bool
    shapes: frozenset[Shape]
    references: frozenset[References]
    cids: set[str]
    holds_export: bool

    def facts(self, name: str) -> dict[str, Any]:
        """Return what a report says of the file, as JSON types.

        :param name: the file's.
        """
        return {
            "name": name,
            "kind": self.kind.value,
            "evidence": self.evidence and self.evidence.value,
            "array": self.is_array,
            "shapes": [shape.value for shape in Shape if shape in self.shapes],
            "references": [each.value for each in References if each in self.references],
        }


class Stage:
    """The stage tables of a load, one per table of the registry, in a database of the load's own.

    Every method raises ``duckdb.Error`` if the work folder is full or the memory limit too small.

    :param folder: for normalized files.
    :param counts: counts what was added.
    :ivar n_bytes: how large all that was read is, unpacked.
    """

    def __init__(
        self,
        database: Database,
        folder: Path,
        *,
        load_id: str,
        counts: Counts,
        max_line_bytes: int,
        max_unpacked_bytes: int | None,
        progress: Progress,
    ) -> None:
        self.database = database
        self.load_id = load_id
        self.counts = counts
        self._folder = folder
        self._progress = progress
        self._max_line_bytes = max_line_bytes
        self._max_unpacked_bytes = max_unpacked_bytes
        self._number = 0
        self._n_reads = 0
        self.n_bytes = 0
        for table in TABLES:
            database.execute(queries.create_stage(table))
        database.execute("CREATE TABLE embedded_users (j JSON, exported_at TIMESTAMPTZ)")
        database.execute("CREATE TABLE channel_lines (input BIGINT, n BIGINT, cid VARCHAR)")

    def add(self, file: InputFile) -> StagedFile:
        """Normalize and stage one file.

        :raises InputError: it is not an export file, breaks off, is of both kinds, or was made at a time that no reader
            of a lake can hold.
        """
        if not EARLIEST <= file.exported_at < LATEST:
            raise InputError(
                f"{file.name} has {format_rfc3339(file.exported_at)} as the time of its export, and a lake holds times "
                f"of the years {EARLIEST.year} to {LATEST.year - 1}; give the right time (exported_at)"
            )
        folder = self._folder / f"input-{self._number}"
        reader = self._reader(file)
        if reader.is_empty and file.window is None and file.task_id is None:
            # The v2 export of a quiet window is empty. So is a download that failed, and it looks the same.
            raise InputError(
                f"{file.path} holds nothing; if nothing was written in its window, state the window and the channels "
                "(since, until, channels), or else fetch it again"
            )
        normalized, evidence, has_users = self._normalize(reader, file, folder)
        kind = file.kind or (ExportKind.CHANNELS if evidence is None else ExportKind.USERS)
        self._progress(CONVERT, 0, None)
        reads = self._read_all(normalized, file, kind)
        if reads is not None and any(entity_file.in_place for _, entity_file, _ in reads):
            has_users = has_users or self._gather_users_in_place(reads)
            if in_place.any_doubled(self.database, self._number, has_users=has_users):
                self._forget(reads)
                reads = None
        if reads is None:
            normalized, has_users = normalize(reader, folder, ChannelContext(self._max_line_bytes)), False
            reads = self._read_all(normalized, file, kind) or []
        if file.kind is None and kind is ExportKind.CHANNELS and self._is_of_other_channels(normalized):
            kind, evidence = ExportKind.USERS, UsersEvidence.OTHER_CHANNELS
            self._forget(reads)
            normalized = self._normalize_users(reader, file, folder)
            reads = self._read_all(normalized, file, kind) or []
        self._repair(reads, normalized, file, has_users=has_users)
        self._stage_channels(normalized)
        self._stage_others(normalized, file)
        self._stage_rejects(normalized, file)
        self._count(normalized)
        staged = StagedFile(
            number=self._number,
            kind=kind,
            evidence=evidence,
            is_array=reader.is_array,
            shapes=frozenset(normalized.shapes),
            references=self._references(reads),
            cids=normalized.cids,
            holds_export=self._holds_export(normalized),
        )
        self._number += 1
        shutil.rmtree(folder, ignore_errors=True)
        return staged

    def _reader(self, file: InputFile) -> ExportReader:
        size_bytes = file.path.stat().st_size if file.path.exists() else None  # if it is gone, the reader says so
        return ExportReader(
            file.path,
            max_unpacked_bytes=self._max_unpacked_bytes,
            on_read=lambda n_bytes: self._progress(READ, n_bytes, size_bytes),
        )

    def _normalize(
        self, reader: ExportReader, file: InputFile, folder: Path
    ) -> tuple[NormalizedFile, UsersEvidence | None, bool]:
        """Normalize a file, as an export of channels unless it is one of users.

        :return: the file, why it is an export of users if only its content says so, and whether the users in its
            messages have been gathered.
        """
        if file.kind is ExportKind.USERS:
            return self._normalize_users(reader, file, folder), None, False
        normalized, has_users = in_place.normalize_channels(reader, folder, self._max_line_bytes, self.database)
        evidence = users_evidence(normalized, file.name) if file.kind is None else None
        if evidence is None:
            return normalized, None, has_users
        return self._normalize_users(reader, file, folder), evidence, False

    def _normalize_users(self, reader: ExportReader, file: InputFile, folder: Path) -> NormalizedFile:
        self.database.execute(queries.user_ids_of_export(file.user_ids, self._number))
        return normalize(reader, folder, UserExportContext(self._max_line_bytes))

    def _read_all(
        self, normalized: NormalizedFile, file: InputFile, kind: ExportKind
    ) -> list[tuple[Table, EntityFile, int]] | None:
        """Make rows of the objects of a file.

        :return: each table with the entity file and how many rows it gave. None, and nothing staged, if an object is
            refused whose place in the file is not known.
        """
        paths = (*(entity_file.path for entity_file in normalized.files), *normalized.others)
        self.n_bytes += max(file.path.stat().st_size, sum(path.stat().st_size for path in paths))
        tables = TABLE_BY_ENTITY if kind is ExportKind.CHANNELS else USER_EXPORT_TABLE_BY_ENTITY
        reads: list[tuple[Table, EntityFile, int]] = []
        for entity_file in normalized.files:
            table = tables[entity_file.entity]
            n_rows = self._read(table, entity_file, file)
            reads.append((table, entity_file, n_rows))
            # There are more rows than objects if DuckDB reads a message in a line that was rejected. A message
            # in place has no number, so that of two equal versions it is not known which is the later.
            if (n_rows != entity_file.n_objects and not entity_file.has_places) or (
                entity_file.in_place and self.n_extra(table, self._of_this_file)
            ):
                self._forget(reads)
                return None
        return reads

    def _gather_users_in_place(self, reads: list[tuple[Table, EntityFile, int]]) -> bool:
        """Gather the users in the messages that are in place, if there are any, and return whether there are."""
        for table, entity_file, _ in reads:
            if entity_file.in_place is not None and self._n_rows(table, "_embeds_users"):
                in_place.gather_users(entity_file, self.database)
                return True
        return False

    def _forget(self, reads: list[tuple[Table, EntityFile, int]]) -> None:
        for table, _, _ in reads:
            self.delete(table, self._of_this_file)

    def _is_of_other_channels(self, normalized: NormalizedFile) -> bool:
        if not may_be_of_other_channels(normalized):
            return False
        cids = ", ".join(map(sql.quoted, sorted(normalized.cids)))
        return self._n_rows(MESSAGES, f"cid NOT IN ({cids})") > 0

    def _repair(
        self,
        reads: list[tuple[Table, EntityFile, int]],
        normalized: NormalizedFile,
        file: InputFile,
        *,
        has_users: bool,
    ) -> None:
        """Repair what DuckDB refused, and gather the users in objects."""
        for table, entity_file, n_rows in reads:
            if n_rows < entity_file.n_objects:
                missing = (self.database, table, self._number)
                if repaired := repair_missing(*missing, entity_file, normalized):
                    self._read(table, repaired, file)
                    reject_missing(*missing, repaired, normalized)
            self._gather_users(table, entity_file, file, has_users=has_users)

    def _references(self, reads: list[tuple[Table, EntityFile, int]]) -> frozenset[References]:
        found = set()
        for table, _, _ in reads:
            if table.entity is Entity.MESSAGE:
                if self._n_rows(table, "_embeds_users"):
                    found.add(References.OBJECT)
                if self._n_rows(table, "NOT _embeds_users"):
                    found.add(References.ID)
        return frozenset(found)

    @property
    def _of_this_file(self) -> str:
        return f"_input = {self._number}"

    def _read(self, table: Table, entity_file: EntityFile, file: InputFile) -> int:
        """Make rows of the objects of an entity file.

        :return: how many rows of the table the export file has now.
        """
        self._insert(table, entity_file, entity_file.keys, file)
        this_read = f"_read = {self._n_reads}"
        # A STRUCT only says that some value is lost. To keep it, the objects are read once more, as JSON.
        if entity_file.keys is not None and self._n_rows(table, f"{this_read} AND _cast_failures IS NOT NULL"):
            self.delete(table, this_read)
            self._insert(table, entity_file, None, file)
        # A column, and not a filter of the read: that would be pushed down to where it splits every object once more.
        self.delete(table, f"{self._of_this_file} AND _complete IS NOT true")
        self.join_clashing_custom(table)
        return self._n_rows(table)

    def _insert(self, table: Table, entity_file: EntityFile, keys: CustomKeys | None, file: InputFile) -> None:
        """Insert the objects of an entity file, read as a STRUCT with these custom keys, or as JSON."""
        self._n_reads += 1
        in_window = "true"
        if file.window is not None and table in _IN_WINDOW:
            since, until = sql.instant(file.window.since), sql.instant(file.window.until)
            in_window = f"{queries.CREATED_AT} >= {since} AND {queries.CREATED_AT} < {until}"
        users_of = TABLE_BY_ENTITY[entity_file.entity]
        if keys is None:
            objects = queries.read_as_json(table, entity_file)
        else:
            table = users_of = narrowed(table, keys.known)
            objects = queries.read_as_struct(table, entity_file, keys)
        complete = queries.complete(table)
        if entity_file.in_place is not None and "quoted_message" in table.fields:
            complete = f"({complete}) AND NOT ({in_place.IS_DOUBTFUL})"
        lists = [f"CASE WHEN json_array_length(d.{key}) > 0 THEN d.{key} END AS _{key}" for key in table.nested_lists]
        extra = [*lists, table.owned_by] if table.owned_by is not None else lists
        with self.database.reader_streamed():
            self.database.execute(f"""
INSERT INTO stage_{table.name} BY NAME
SELECT {queries.columns(table)}, {self._origin(file)}, n AS _n, {self._n_reads} AS _read, {in_window} AS _in_window,
    {"".join(f"{column}, " for column in extra)}_cast_failures, {complete} AS _complete,
    {queries.embeds_users(users_of)} AS _embeds_users
FROM ({objects})
""")

    def _origin(self, file: InputFile) -> str:
        return (
            f"{sql.instant(file.exported_at)} AS _exported_at, {sql.quoted(self.load_id)} AS _load_id, "
            f"{self._number} AS _input"
        )

    def _gather_users(self, table: Table, entity_file: EntityFile, file: InputFile, *, has_users: bool) -> None:
        gathered = entity_file.in_place is not None and has_users
        if table.user_paths and (gathered or self._n_rows(table, "_embeds_users")):
            # A reject leaves nothing behind, not even the users in it.
            some_lost = self._n_rows(table) < entity_file.n_objects
            staged = f"SELECT _n FROM stage_{table.name} WHERE {self._of_this_file}" if some_lost else None
            users = f"FROM {in_place.GATHERED}" if gathered else queries.users_in(table, entity_file, staged=staged)
            self.database.execute(
                f"INSERT INTO embedded_users SELECT j, {sql.instant(file.exported_at)} FROM ({users})"
            )

    def _stage_channels(self, normalized: NormalizedFile) -> None:
        """Note which objects of the file belong to which channel by their place."""
        lines = ({"input": self._number, "n": n, "cid": cid} for n, cid in normalized.channels)
        with self.database.registered("channels_found", arrow_rows(lines, _CHANNELS)):
            self.database.execute("INSERT INTO channel_lines BY NAME FROM channels_found")

    def _stage_others(self, normalized: NormalizedFile, file: InputFile) -> None:
        for path in normalized.others:
            lines = queries.read_lines(path, _OTHERS, normalized.longest_other_bytes)
            self.database.execute(
                f"INSERT INTO stage_other_entities BY NAME SELECT *, {self._origin(file)} FROM {lines}"
            )

    def _stage_rejects(self, normalized: NormalizedFile, file: InputFile) -> None:
        normalized.rejects.close()
        if normalized.rejects.n_rows:
            lines = queries.read_lines(normalized.rejects.path, REJECT_COLUMNS)
            self.database.execute(f"INSERT INTO stage_rejects BY NAME SELECT *, {self._origin(file)} FROM {lines}")

    def _count(self, normalized: NormalizedFile) -> None:
        counts = self.counts
        counts.lines += normalized.lines
        for name, count in normalized.entities.items():
            counts.entities[name] = counts.entities.get(name, 0) + count
        counts.other_entities += normalized.n_others
        counts.rejected_lines += normalized.rejected_lines
        counts.rejected += normalized.rejects.n_rows

    def _holds_export(self, normalized: NormalizedFile) -> bool:
        if normalized.entities or not normalized.rejected_lines:
            return True
        long = (
            f"SELECT count(*) FROM stage_rejects WHERE {self._of_this_file} AND raw_size_bytes > {self._max_line_bytes}"
        )
        return self.database.one(long) != (0,)

    def _n_rows(self, table: Table, condition: str = "true") -> int:
        """Return how many rows of the current file fulfil a condition."""
        query = f"SELECT count(*) FROM stage_{table.name} WHERE {self._of_this_file} AND ({condition})"
        return int(self.database.one(query)[0])

    def has_rows(self, table: Table, condition: str = "true") -> bool:
        """Return whether a row fulfils a condition. To plan a statement about no row costs a small load some time."""
        return self.database.one(f"SELECT EXISTS (FROM stage_{table.name} WHERE {condition})") == (True,)

    def join_clashing_custom(self, table: Table) -> None:
        """Join keys that stand flat and under ``custom`` alike. They are rare and cannot be joined as text.

        The rows are written again: an update would hold what it replaces in memory.
        """
        clashing = "starts_with(custom::VARCHAR, '[')"
        if self.database.one(f"SELECT count(*) FROM stage_{table.name} WHERE {clashing}") != (0,):
            rows = self.database.query(
                f"SELECT * REPLACE (custom::VARCHAR AS custom) FROM stage_{table.name} WHERE {clashing}"
            ).to_arrow_reader(JOINED_ROWS)
            for batch in rows:
                with self.database.registered("joined_custom", _with_joined_custom(batch)):
                    self.database.execute(f"INSERT INTO stage_{table.name} BY NAME FROM joined_custom")
            self.delete(table, clashing)

    def n_extra(self, table: Table, condition: str = "true") -> int:
        """Return how many rows there are more than keys."""
        key = ", ".join(sql.name(column) for column in table.key)
        query = f"SELECT count(*) - count(DISTINCT ({key})) FROM stage_{table.name} WHERE {condition}"
        return int(self.database.one(query)[0])

    def keep_newest(self, table: Table) -> int:
        """Keep one row per key, and return how many were dropped."""
        if not self.n_extra(table):
            return 0
        return self.delete(table, f"rowid NOT IN (SELECT rowid FROM ({queries.newest(table)}))")

    def delete(self, table: Table, condition: str) -> int:
        """Delete rows, and return how many."""
        return int(self.database.one(f"DELETE FROM stage_{table.name} WHERE {condition}")[0])


def _with_joined_custom(batch: pa.RecordBatch) -> pa.Table:
    at = batch.schema.names.index("custom")
    joined = arrow_rows(({"custom": queries.join_objects(both)} for both in batch.column(at).to_pylist()), _CUSTOM)
    return pa.Table.from_batches([batch]).set_column(at, _CUSTOM[0], joined.column(0))

"""Export files -> stage tables: every object typed, in a database of the load's own.

DuckDB reads with explicit types made from the registry. It never guesses one, because a type that flips between files
breaks readers. ``ignore_errors`` loses nothing, because what is read is counted against what was normalized: objects
that are missing, or lack what a row needs, are mended or rejected (``_repair_missing``).
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Final, cast

import duckdb
import pyarrow as pa

from airflow_provider_chatexport.core.entities import Entity, ExportKind
from airflow_provider_chatexport.core.progress import CONVERT, READ, Progress
from airflow_provider_chatexport.core.window import Window
from airflow_provider_chatexport.lake.duckdb_session import Database
from airflow_provider_chatexport.lake.normalize.custom_keys import CustomKeys
from airflow_provider_chatexport.lake.normalize.export_file import ExportReader
from airflow_provider_chatexport.lake.normalize.normalizer import Normalizer
from airflow_provider_chatexport.lake.normalize.output import NormalizedFile, NormalizedObject, decode_line, number_of
from airflow_provider_chatexport.lake.normalize.rejects import REJECT_COLUMNS, Reject, RejectFile
from airflow_provider_chatexport.lake.normalize.user_exports import UserExportNormalizer, is_users_export
from airflow_provider_chatexport.lake.schema import sql
from airflow_provider_chatexport.lake.schema.arrow import arrow_rows
from airflow_provider_chatexport.lake.schema.tables import (
    MESSAGES,
    REACTIONS,
    READS,
    TABLE_BY_ENTITY,
    TABLES,
    USER_EXPORT_TABLE_BY_ENTITY,
    USER_EXPORT_USERS,
)
from airflow_provider_chatexport.lake.schema.types import Table
from airflow_provider_chatexport.lake.staging import queries
from airflow_provider_chatexport.lake.staging.queries import (
    EntityFile,
    messages_in_place,
    normalized_objects,
    read_objects,
    users_in,
)
from airflow_provider_chatexport.lake.staging.repair import repair, unreadable

# Rows whose two objects are joined at a time; each may be long.
JOINED_ROWS: Final = 2_048
NUMBERS: Final = 100_000
_CHANNEL_LINES: Final = pa.schema([("input", pa.int64()), ("n", pa.int64()), ("cid", pa.string())])
_CUSTOM: Final = pa.schema([("custom", pa.string())])
# What is read from the file as it stands, and what lies beside it.
_IN_PLACE: Final = (MESSAGES, REACTIONS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """One export file and what is known of it. ``window`` None keeps every row; ``exported_at`` is aware, UTC.

    ``kind`` None: what the file holds says it. ``user_ids``: whose export it is, where that is known beforehand.
    """

    path: Path
    exported_at: datetime
    window: Window | None
    kind: ExportKind | None = None
    user_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a file turned out to be: its number in the order of adding, its kind, and the channels that it names.

    ``is_no_export``: it has lines, and none that is part of an export, or that is too long to be looked at.
    """

    number: int
    kind: ExportKind
    cids: set[str]
    is_no_export: bool


@dataclass(slots=True, kw_only=True)
class Counts:
    """The law of conservation, in numbers: every entity of every line is a row or in exactly one of the others."""

    lines: int = 0
    entities: dict[str, int] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    rejected: int = 0
    out_of_window: int = 0
    duplicates: int = 0
    other_entities: int = 0
    # Lines of which no entity could be told (they are among the rejected), and rows drawn from inside other objects.
    rejected_lines: int = 0
    drawn: dict[str, int] = field(default_factory=dict)
    # Rows of people who are to stay out of the lake, by table.
    forgotten: dict[str, int] = field(default_factory=dict)
    # By ``table.key``: values of a kind that their column cannot hold. They are in ``custom``.
    cast_failures: dict[str, int] = field(default_factory=dict)


class Stage(Database):
    """The stage tables, one per table of the registry."""

    def __init__(
        self,
        folder: Path,
        *,
        load_id: str,
        memory_limit: str,
        max_line_bytes: int,
        max_unpacked_bytes: int | None,
        tell: Progress,
    ) -> None:
        self._folder = folder
        self._progress = tell
        self.load_id = load_id
        self._max_line_bytes = max_line_bytes
        self._max_unpacked_bytes = max_unpacked_bytes
        self._n_inputs = 0
        self._n_reads = 0
        self.counts = Counts()
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(folder, memory_limit=memory_limit)
        for table in TABLES:
            self.execute(queries.create_stage(table))
        self.execute("CREATE TABLE embedded_users (j JSON, exported_at TIMESTAMPTZ)")
        self.execute("CREATE TABLE channel_lines (input BIGINT, n BIGINT, cid VARCHAR)")

    def _opened(self, given: Input) -> ExportReader:
        size_bytes = given.path.stat().st_size if given.path.exists() else None  # that it is gone, the reader tells
        return ExportReader(
            given.path,
            max_unpacked_bytes=self._max_unpacked_bytes,
            tell=lambda n_bytes: self._progress(READ, n_bytes, size_bytes),
        )

    def add(self, given: Input) -> Found:
        """Sifts and stages one file.

        :raises InputError: it is not an export file, breaks off, or is of both kinds.
        :raises duckdb.Error: the work folder is full, or the memory limit too small. So does every other call.
        """
        folder = self._folder / f"input-{self._n_inputs}"
        normalizer = Normalizer(
            self._opened(given),
            folder,
            max_line_bytes=self._max_line_bytes,
        )
        normalized = None if given.kind is ExportKind.USERS else self._normalize(normalizer)
        if normalized is None or (given.kind is None and is_users_export(normalized, given.path.name)):
            kind = ExportKind.USERS
            normalized = UserExportNormalizer(
                self._opened(given),
                folder,
                max_line_bytes=self._max_line_bytes,
            ).write_all()
            self.execute(
                "CREATE OR REPLACE TEMP TABLE exported_users AS SELECT unnest($ids::VARCHAR[]) AS id",
                {"ids": given.user_ids},
            )
        else:
            kind = ExportKind.CHANNELS
            self._progress(CONVERT, 0, None)
            if normalized.in_place and not self._stage_in_place(normalized.in_place, normalized, given):
                normalized = normalizer.write_all()
        for table in (TABLE_BY_ENTITY if kind is ExportKind.CHANNELS else USER_EXPORT_TABLE_BY_ENTITY).values():
            if not (normalized.in_place and table in _IN_PLACE):
                self._stage(table, normalized, given)
            if table is USER_EXPORT_USERS:
                self.execute(
                    f"INSERT INTO exported_users SELECT id FROM stage_{table.name} WHERE _input = {self._n_inputs}"
                )
        self._note_channel_lines(normalized)
        self._stage_others(normalized, given)
        self._stage_rejects(normalized.rejects, given)
        found = Found(
            number=self._n_inputs, kind=kind, cids=normalized.cids, is_no_export=self._is_no_export(normalized)
        )
        self._n_inputs += 1
        self.counts.lines += normalized.lines
        for name, count in normalized.entities.items():
            self.counts.entities[name] = self.counts.entities.get(name, 0) + count
        self.counts.other_entities += normalized.n_others
        self.counts.rejected_lines += normalized.rejected_lines
        shutil.rmtree(folder, ignore_errors=True)
        return found

    def _is_no_export(self, normalized: NormalizedFile) -> bool:
        if normalized.entities or not normalized.rejected_lines:
            return False
        long = f"_input = {self._n_inputs} AND raw_size_bytes > {self._max_line_bytes}"
        return self.one(f"SELECT count(*) FROM stage_rejects WHERE {long}") == (0,)

    def _normalize(self, normalizer: Normalizer) -> NormalizedFile:
        """While lines are looked at, the database gathers the users, from what are most likely the same lines."""
        source = normalizer.source
        self._users_gathered = False
        with ThreadPoolExecutor(1) as other:
            sifting = other.submit(normalizer.normalize)
            if source.begins_typed and not source.is_wrapped:
                # Nothing has been normalized yet: the reader may meet a line that it takes for too long.
                with contextlib.suppress(duckdb.Error), self.on_one_core():
                    self._gather_in_place(
                        messages_in_place(source.path, normalizer.normalized.nulls_path(Entity.MESSAGE))
                    )
                    self._users_gathered = True
            return sifting.result()

    def _gather_in_place(self, objects: EntityFile) -> None:
        self.execute(f"CREATE OR REPLACE TEMP TABLE users_in_place AS {users_in(MESSAGES, objects)}")

    def _stage_in_place(self, path: Path, normalized: NormalizedFile, given: Input) -> bool:
        """Messages from the file as it stands, and the reactions beside them; False, and nothing staged, where that
        will not do: one is not complete, or a message comes twice, so that the order of lines matters."""
        messages, reactions = _IN_PLACE
        objects = messages_in_place(path, normalized.nulls_path(Entity.MESSAGE))
        if normalized.n_in_place:
            self._read(messages, objects, normalized.keys[Entity.MESSAGE], given)
        n_staged = {messages: self._n_staged(messages), reactions: self._read_sifted(reactions, normalized, given)}
        if [*n_staged.values()] != [normalized.n_in_place, normalized.n_written[Entity.REACTION]] or self.n_extra(
            messages, f"_input = {self._n_inputs}"
        ):
            for table in _IN_PLACE:
                self.delete(table, f"_input = {self._n_inputs}")
            return False
        if not self._users_gathered:
            self._gather_in_place(objects)
        self.execute(f"INSERT INTO embedded_users SELECT j, {sql.instant(given.exported_at)} FROM users_in_place")
        self._gather_sifted(reactions, normalized, given)
        return True

    def _stage(self, table: Table, normalized: NormalizedFile, given: Input) -> None:
        n_written = normalized.n_written[cast("Entity", table.entity)]
        if n_written:
            n_staged = self._read_sifted(table, normalized, given)
            self._gather_sifted(table, normalized, given)
            if n_staged < n_written:
                self._repair_missing(table, normalized, given)

    def _read_sifted(self, table: Table, normalized: NormalizedFile, given: Input) -> int:
        """How many have become rows."""
        entity = cast("Entity", table.entity)
        if not normalized.n_written[entity]:
            return 0
        self._read(table, _objects(normalized, entity), None if table.owned_by else normalized.keys[entity], given)
        return self._n_staged(table)

    def _gather_sifted(self, table: Table, normalized: NormalizedFile, given: Input) -> None:
        entity = cast("Entity", table.entity)
        if table.user_paths and normalized.n_written[entity]:
            users = users_in(table, _objects(normalized, entity))
            self.execute(f"INSERT INTO embedded_users SELECT j, {sql.instant(given.exported_at)} FROM ({users})")

    def _read(self, table: Table, objects: EntityFile, keys: CustomKeys | None, given: Input) -> None:
        """Objects become rows."""
        kept = "".join(
            f", CASE WHEN json_array_length(d.{key}) > 0 THEN d.{key} END AS _{key}" for key in table.nested_lists
        )
        in_window = "true"
        if given.window is not None and table in _IN_PLACE:
            since, until = sql.instant(given.window.since), sql.instant(given.window.until)
            in_window = f"{queries.CREATED_AT} >= {since} AND {queries.CREATED_AT} < {until}"
        kept += f", {table.owned_by}" if table.owned_by is not None else ""
        extra_fields = set(table.nested_lists) - table.fields.keys()
        self._n_reads += 1
        this_read = f"_read = {self._n_reads}"

        def insert(keys: CustomKeys | None) -> None:
            with self.reader_streamed():
                self.execute(
                    f"INSERT INTO stage_{table.name} BY NAME SELECT {queries.columns(table)}, {self._origin(given)}, "
                    f"n AS _n, {self._n_reads} AS _read, {in_window} AS _in_window{kept}, _cast_failures, "
                    f"{queries.complete(table)} AS _complete FROM ({read_objects(table, objects, keys, extra_fields)})"
                )

        insert(keys)
        # A STRUCT only tells that some value is lost: to keep it, the objects are read once more, as JSON.
        if keys is not None and self._n_staged(table, f"{this_read} AND _cast_failures IS NOT NULL"):
            self.delete(table, this_read)
            insert(None)
        # Asked as a column: a filter would be pushed down to where it takes every object apart once more.
        self.delete(table, f"_input = {self._n_inputs} AND _complete IS NOT true")
        self.join_clashing_custom(table)

    def join_clashing_custom(self, table: Table) -> None:
        """Keys that stand flat and under ``custom`` alike cannot be joined as text; they are rare, so in Python.

        The rows are written anew: an update would hold what it replaces in memory.
        """
        clashing = "starts_with(custom::VARCHAR, '[')"
        if self.one(f"SELECT count(*) FROM stage_{table.name} WHERE {clashing}") != (0,):
            rows = self.query(
                f"SELECT * REPLACE (custom::VARCHAR AS custom) FROM stage_{table.name} WHERE {clashing}"
            ).to_arrow_reader(JOINED_ROWS)
            for batch in rows:
                with self.registered("joined_custom", _with_joined_custom(batch)):
                    self.execute(f"INSERT INTO stage_{table.name} BY NAME FROM joined_custom")
            self.delete(table, clashing)

    def _note_channel_lines(self, normalized: NormalizedFile) -> None:
        """Where the channels stand in the file: some objects are told to be of one by their place alone."""
        lines = ({"input": self._n_inputs, "n": n, "cid": cid} for n, cid in normalized.channels)
        with self.registered("channels_found", arrow_rows(lines, _CHANNEL_LINES)):
            self.execute("INSERT INTO channel_lines BY NAME FROM channels_found")

    def _repair_missing(self, table: Table, normalized: NormalizedFile, given: Input) -> None:
        """Objects that the reader refused or left incomplete: mended and read again, or rejected with the reason."""
        entity = cast("Entity", table.entity)
        path = normalized.path(entity)
        mended_path = path.with_suffix(".mended")
        n_mended = 0
        with path.open("rb") as objects, mended_path.open("wb") as mended:
            for found in self._not_staged(table, objects):
                outcome = (
                    repair(entity, found, normalized.cid_before(found.n))
                    if table.owned_by is None
                    else unreadable(found, f"{entity.value} of none of the users exported")
                )
                if isinstance(outcome, Reject):
                    normalized.rejects.append(outcome)
                else:
                    n_mended += 1
                    mended.write(outcome)
        if not n_mended:
            return
        self._read(table, replace(_objects(normalized, entity), path=mended_path), None, given)
        with mended_path.open("rb") as objects:
            for found in self._not_staged(table, objects):
                reason = f"{entity.value} with a key or a time that no row can hold"
                normalized.rejects.append(unreadable(found, reason))

    def _stage_others(self, normalized: NormalizedFile, given: Input) -> None:
        if not normalized.n_others:
            return
        columns = {"entity": "VARCHAR", "cid": "VARCHAR", "line_number": "BIGINT", "data": "JSON"}
        for part in range(normalized.n_other_parts):
            self.execute(
                f"INSERT INTO stage_other_entities BY NAME SELECT *, {self._origin(given)} FROM "
                + queries.read_lines(normalized.others_path(part), columns, normalized.longest)
            )

    def _stage_rejects(self, rejects: RejectFile, given: Input) -> None:
        rejects.close()
        if rejects.n_rows:
            self.execute(
                f"INSERT INTO stage_rejects BY NAME SELECT *, {self._origin(given)} FROM "
                + queries.read_lines(rejects.path, REJECT_COLUMNS)
            )
        self.counts.rejected += rejects.n_rows

    def _origin(self, given: Input) -> str:
        return (
            f"{sql.instant(given.exported_at)} AS _exported_at, {sql.quoted(self.load_id)} AS _load_id, "
            f"{self._n_inputs} AS _input"
        )

    def _not_staged(self, table: Table, objects: Iterable[bytes]) -> Iterator[NormalizedObject]:
        """Those of the current file's objects that are no rows. They stand in the order of their numbers."""
        rows = f"SELECT _n FROM stage_{table.name} WHERE _input = {self._n_inputs} ORDER BY _n"
        numbers = (n for batch in self.query(rows).to_arrow_reader(NUMBERS) for n in batch.column(0).to_pylist())
        staged = next(numbers, None)
        for raw in objects:
            n = number_of(raw)
            while staged is not None and staged < n:
                staged = next(numbers, None)
            if staged != n:
                yield decode_line(raw)

    def _n_staged(self, table: Table, condition: str = "true") -> int:
        return int(
            self.one(f"SELECT count(*) FROM stage_{table.name} WHERE _input = {self._n_inputs} AND ({condition})")[0]
        )

    def n_extra(self, table: Table, condition: str = "true") -> int:
        """Rows more than keys."""
        key = ", ".join(sql.name(column) for column in table.key)
        return int(self.one(f"SELECT count(*) - count(DISTINCT ({key})) FROM stage_{table.name} WHERE {condition}")[0])

    def keep_newest(self, table: Table) -> int:
        """One row per key. Rows dropped."""
        if not self.n_extra(table):
            return 0
        return self.delete(table, f"rowid NOT IN (SELECT rowid FROM ({self.newest(table)}))")

    @staticmethod
    def newest(table: Table, *, first: str | None = None) -> str:
        """A query for one row per key, with its ``rowid``: of the newest export, in it the newest version, of two alike
        the later one.

        :param first: what goes before all that.
        """
        key = ", ".join(sql.name(column) for column in table.key)
        version = "last_read" if table is READS else "updated_at"
        order = ["_exported_at DESC", f"{version} DESC NULLS LAST", "_input DESC", "_n DESC NULLS LAST", "rowid DESC"]
        by = ", ".join(order if first is None else [first, *order])
        return (
            f"SELECT *, rowid FROM stage_{table.name} QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY {by}) = 1"
        )

    def delete(self, table: Table, condition: str) -> int:
        """How many rows went."""
        return int(self.one(f"DELETE FROM stage_{table.name} WHERE {condition}")[0])

    @property
    def relations(self) -> dict[str, str]:
        """By the name of each table, its stage table."""
        return {table.name: f"stage_{table.name}" for table in TABLES}

    def close(self) -> None:
        super().close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _objects(normalized: NormalizedFile, entity: Entity) -> EntityFile:
    return normalized_objects(normalized.path(entity), normalized.nulls_path(entity), normalized.longest)


def _with_joined_custom(batch: pa.RecordBatch) -> pa.Table:
    at = batch.schema.names.index("custom")
    joined = arrow_rows(({"custom": queries.join_objects(both)} for both in batch.column(at).to_pylist()), _CUSTOM)
    return pa.Table.from_batches([batch]).set_column(at, _CUSTOM[0], joined.column(0))

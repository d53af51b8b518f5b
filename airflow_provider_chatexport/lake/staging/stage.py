"""Export files -> stage tables: every object typed, in a database of the load's own.

DuckDB reads with explicit types made from the registry. It never guesses one, because a type that flips between files
breaks readers. ``ignore_errors`` loses nothing, because what is read is counted against what was sifted: objects that
are missing, or lack what a row needs, are mended or rejected (``_settle``).
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
from airflow_provider_chatexport.lake.normalize.export_file import ExportFile
from airflow_provider_chatexport.lake.normalize.normalizer import Sifter
from airflow_provider_chatexport.lake.normalize.output import Sifted, SiftedObject, number_of, parse
from airflow_provider_chatexport.lake.normalize.rejects import REJECT_COLUMNS, Reject, RejectFile
from airflow_provider_chatexport.lake.normalize.user_exports import UsersSifter, is_users_export
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
    Objects,
    passed_messages,
    read_objects,
    sifted_objects,
    users_in,
)
from airflow_provider_chatexport.lake.staging.repair import mend, unreadable

# Rows whose two objects are joined at a time; each may be long.
JOINED_ROWS: Final = 2_048
NUMBERS: Final = 100_000
_CHANNEL_LINES: Final = pa.schema([("input", pa.int64()), ("n", pa.int64()), ("cid", pa.string())])
_CUSTOM: Final = pa.schema([("custom", pa.string())])
# What is read from the file as it stands, and what lies beside it.
_PASSING: Final = (MESSAGES, REACTIONS)


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
    not_cast: dict[str, int] = field(default_factory=dict)


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

    def _opened(self, given: Input) -> ExportFile:
        size_bytes = given.path.stat().st_size if given.path.exists() else None  # that it is gone, the reader tells
        return ExportFile(
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
        sifter = Sifter(
            self._opened(given),
            folder,
            max_line_bytes=self._max_line_bytes,
        )
        sifted = None if given.kind is ExportKind.USERS else self._sift(sifter)
        if sifted is None or (given.kind is None and is_users_export(sifted, given.path.name)):
            kind = ExportKind.USERS
            sifted = UsersSifter(
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
            if sifted.passed and not self._stage_passed(sifted.passed, sifted, given):
                sifted = sifter.write_all()
        for table in (TABLE_BY_ENTITY if kind is ExportKind.CHANNELS else USER_EXPORT_TABLE_BY_ENTITY).values():
            if not (sifted.passed and table in _PASSING):
                self._stage(table, sifted, given)
            if table is USER_EXPORT_USERS:
                self.execute(
                    f"INSERT INTO exported_users SELECT id FROM stage_{table.name} WHERE _input = {self._n_inputs}"
                )
        self._note_channel_lines(sifted)
        self._stage_others(sifted, given)
        self._stage_rejects(sifted.rejects, given)
        found = Found(number=self._n_inputs, kind=kind, cids=sifted.cids, is_no_export=self._is_no_export(sifted))
        self._n_inputs += 1
        self.counts.lines += sifted.lines
        for name, count in sifted.entities.items():
            self.counts.entities[name] = self.counts.entities.get(name, 0) + count
        self.counts.other_entities += sifted.n_others
        self.counts.rejected_lines += sifted.rejected_lines
        shutil.rmtree(folder, ignore_errors=True)
        return found

    def _is_no_export(self, sifted: Sifted) -> bool:
        if sifted.entities or not sifted.rejected_lines:
            return False
        long = f"_input = {self._n_inputs} AND raw_size_bytes > {self._max_line_bytes}"
        return self.one(f"SELECT count(*) FROM stage_rejects WHERE {long}") == (0,)

    def _sift(self, sifter: Sifter) -> Sifted:
        """While lines are looked at, the database gathers the users, from what are most likely the same lines."""
        source = sifter.source
        self._users_gathered = False
        with ThreadPoolExecutor(1) as other:
            sifting = other.submit(sifter.sift)
            if source.begins_typed and not source.is_wrapped:
                # Nothing has been sifted yet: the reader may meet a line that it takes for too long.
                with contextlib.suppress(duckdb.Error), self.on_one_core():
                    self._gather_passed(passed_messages(source.path, sifter.sifted.nulls_path(Entity.MESSAGE)))
                    self._users_gathered = True
            return sifting.result()

    def _gather_passed(self, objects: Objects) -> None:
        self.execute(f"CREATE OR REPLACE TEMP TABLE passed_users AS {users_in(MESSAGES, objects)}")

    def _stage_passed(self, path: Path, sifted: Sifted, given: Input) -> bool:
        """Messages from the file as it stands, and the reactions beside them; False, and nothing staged, where that
        will not do: one is not complete, or a message comes twice, so that the order of lines matters."""
        messages, reactions = _PASSING
        objects = passed_messages(path, sifted.nulls_path(Entity.MESSAGE))
        if sifted.n_passed:
            self._read(messages, objects, sifted.keys[Entity.MESSAGE], given)
        n_staged = {messages: self._n_staged(messages), reactions: self._read_sifted(reactions, sifted, given)}
        if [*n_staged.values()] != [sifted.n_passed, sifted.n_written[Entity.REACTION]] or self.n_extra(
            messages, f"_input = {self._n_inputs}"
        ):
            for table in _PASSING:
                self.delete(table, f"_input = {self._n_inputs}")
            return False
        if not self._users_gathered:
            self._gather_passed(objects)
        self.execute(f"INSERT INTO embedded_users SELECT j, {sql.instant(given.exported_at)} FROM passed_users")
        self._gather_sifted(reactions, sifted, given)
        return True

    def _stage(self, table: Table, sifted: Sifted, given: Input) -> None:
        n_written = sifted.n_written[cast("Entity", table.entity)]
        if n_written:
            n_staged = self._read_sifted(table, sifted, given)
            self._gather_sifted(table, sifted, given)
            if n_staged < n_written:
                self._settle(table, sifted, given)

    def _read_sifted(self, table: Table, sifted: Sifted, given: Input) -> int:
        """How many have become rows."""
        entity = cast("Entity", table.entity)
        if not sifted.n_written[entity]:
            return 0
        self._read(table, _objects(sifted, entity), None if table.owned_by else sifted.keys[entity], given)
        return self._n_staged(table)

    def _gather_sifted(self, table: Table, sifted: Sifted, given: Input) -> None:
        entity = cast("Entity", table.entity)
        if table.users and sifted.n_written[entity]:
            users = users_in(table, _objects(sifted, entity))
            self.execute(f"INSERT INTO embedded_users SELECT j, {sql.instant(given.exported_at)} FROM ({users})")

    def _read(self, table: Table, objects: Objects, keys: CustomKeys | None, given: Input) -> None:
        """Objects become rows."""
        kept = "".join(f", CASE WHEN json_array_length(d.{key}) > 0 THEN d.{key} END AS _{key}" for key in table.drawn)
        in_window = "true"
        if given.window is not None and table in _PASSING:
            since, until = sql.instant(given.window.since), sql.instant(given.window.until)
            in_window = f"{queries.CREATED_AT} >= {since} AND {queries.CREATED_AT} < {until}"
        kept += f", {table.owned_by}" if table.owned_by is not None else ""
        extra_fields = set(table.drawn) - table.fields.keys()
        self._n_reads += 1
        this_read = f"_read = {self._n_reads}"

        def insert(keys: CustomKeys | None) -> None:
            with self.reader_streamed():
                self.execute(
                    f"INSERT INTO stage_{table.name} BY NAME SELECT {queries.columns(table)}, {self._origin(given)}, "
                    f"n AS _n, {self._n_reads} AS _read, {in_window} AS _in_window{kept}, _not_cast, "
                    f"{queries.complete(table)} AS _complete FROM ({read_objects(table, objects, keys, extra_fields)})"
                )

        insert(keys)
        # A STRUCT only tells that some value is lost: to keep it, the objects are read once more, as JSON.
        if keys is not None and self._n_staged(table, f"{this_read} AND _not_cast IS NOT NULL"):
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

    def _note_channel_lines(self, sifted: Sifted) -> None:
        """Where the channels stand in the file: some objects are told to be of one by their place alone."""
        lines = ({"input": self._n_inputs, "n": n, "cid": cid} for n, cid in sifted.channels)
        with self.registered("channels_found", arrow_rows(lines, _CHANNEL_LINES)):
            self.execute("INSERT INTO channel_lines BY NAME FROM channels_found")

    def _settle(self, table: Table, sifted: Sifted, given: Input) -> None:
        """Objects that the reader refused or left incomplete: mended and read again, or rejected with the reason."""
        entity = cast("Entity", table.entity)
        path = sifted.path(entity)
        mended_path = path.with_suffix(".mended")
        n_mended = 0
        with path.open("rb") as objects, mended_path.open("wb") as mended:
            for found in self._not_staged(table, objects):
                outcome = (
                    mend(entity, found, sifted.cid_before(found.n))
                    if table.owned_by is None
                    else unreadable(found, f"{entity.value} of none of the users exported")
                )
                if isinstance(outcome, Reject):
                    sifted.rejects.append(outcome)
                else:
                    n_mended += 1
                    mended.write(outcome)
        if not n_mended:
            return
        self._read(table, replace(_objects(sifted, entity), path=mended_path), None, given)
        with mended_path.open("rb") as objects:
            for found in self._not_staged(table, objects):
                reason = f"{entity.value} with a key or a time that no row can hold"
                sifted.rejects.append(unreadable(found, reason))

    def _stage_others(self, sifted: Sifted, given: Input) -> None:
        if not sifted.n_others:
            return
        columns = {"entity": "VARCHAR", "cid": "VARCHAR", "line_number": "BIGINT", "data": "JSON"}
        for part in range(sifted.n_other_parts):
            self.execute(
                f"INSERT INTO stage_other_entities BY NAME SELECT *, {self._origin(given)} FROM "
                + queries.read_lines(sifted.others_path(part), columns, sifted.longest)
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

    def _not_staged(self, table: Table, objects: Iterable[bytes]) -> Iterator[SiftedObject]:
        """Those of the current file's objects that are no rows. They stand in the order of their numbers."""
        rows = f"SELECT _n FROM stage_{table.name} WHERE _input = {self._n_inputs} ORDER BY _n"
        numbers = (n for batch in self.query(rows).to_arrow_reader(NUMBERS) for n in batch.column(0).to_pylist())
        staged = next(numbers, None)
        for raw in objects:
            n = number_of(raw)
            while staged is not None and staged < n:
                staged = next(numbers, None)
            if staged != n:
                yield parse(raw)

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


def _objects(sifted: Sifted, entity: Entity) -> Objects:
    return sifted_objects(sifted.path(entity), sifted.nulls_path(entity), sifted.longest)


def _with_joined_custom(batch: pa.RecordBatch) -> pa.Table:
    at = batch.schema.names.index("custom")
    joined = arrow_rows(({"custom": queries.join_objects(both)} for both in batch.column(at).to_pylist()), _CUSTOM)
    return pa.Table.from_batches([batch]).set_column(at, _CUSTOM[0], joined.column(0))

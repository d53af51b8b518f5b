"""Export files -> typed tables in a database of the load's own, ready to be written.

The route of a line:

1. ``sift`` brings it into one form, a file per entity, or rejects it.
2. ``_stage`` reads those files with explicit types made from the registry. DuckDB never guesses a type (one that flips
   between files breaks readers), and ``ignore_errors`` loses nothing because every object has a number: those that
   are missing afterwards, or lack what a row needs, are mended or rejected (``_settle``).
3. ``finish`` gives each row its moment, cuts to the window, keeps one row per key, and draws out what lies inside
   objects: attachments, latest reactions, embedded users.
4. ``lake.write`` makes files of what remains.

Nothing is held in Python: the database spills to the work folder when it outgrows its memory limit.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self, cast

import duckdb
import pyarrow as pa

from airflow_provider_chatexport.core.entities import Entity
from airflow_provider_chatexport.core.window import Window
from airflow_provider_chatexport.errors import LakeError
from airflow_provider_chatexport.lake import schema, sql
from airflow_provider_chatexport.lake.coverage import Coverage
from airflow_provider_chatexport.lake.schema import Kind, Placement, Table
from airflow_provider_chatexport.lake.sift import MAX_LINE_BYTES, Reject, Sifted, Sifter, mend, unreadable
from airflow_provider_chatexport.lake.source import ExportFile

MEMORY_LIMIT: Final = "700MB"
_UTC: Final = pa.timestamp("us", tz="UTC")

# Users embedded in objects: fields that hold one, fields that hold a list of them.
_EMBEDDED_USERS: Final[dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "messages": (("user", "pinned_by"), ("mentioned_users", "thread_participants")),
    "reactions": (("user",), ()),
    "channels": (("created_by", "truncated_by"), ()),
    "members": (("user",), ()),
    "reads": (("user",), ()),
    "users": ((), ()),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """One export file and what is known of it. ``window`` None keeps every row; ``exported_at`` is aware, UTC."""

    path: Path
    exported_at: datetime
    window: Window | None


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


class Conversion:
    """A load in the making: ``add`` each file, ``finish``, then read ``days`` and ``rows`` of each table.

    Used as a context manager: its folder is emptied at the end.

    :param folder: for the database and the sifted files; about twice the size of the largest unpacked input.
    :param memory_limit: of the database, as DuckDB writes it.
    """

    def __init__(
        self, folder: Path, *, load_id: str, memory_limit: str = MEMORY_LIMIT, max_line_bytes: int = MAX_LINE_BYTES
    ) -> None:
        self._folder = folder
        self._load_id = load_id
        self._max_line_bytes = max_line_bytes
        self._n_inputs = 0
        self.counts = Counts()
        folder.mkdir(parents=True, exist_ok=True)
        # In memory, because a database file would write every row twice; what does not fit spills to the folder.
        self._con = duckdb.connect(
            config={
                "memory_limit": memory_limit,
                "temp_directory": str(folder / "spill"),
                "preserve_insertion_order": False,
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
            },
        )
        self._con.execute("SET TimeZone = 'UTC'")
        for table in schema.TABLES:
            parts = ", _attachments JSON, _latest_reactions JSON" if table is schema.MESSAGES else ""
            self._con.execute(sql.create_stage(table, f", _in_window BOOLEAN DEFAULT true{parts}"))
        self._con.execute("CREATE TABLE embedded_users (j JSON, exported_at TIMESTAMPTZ)")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._con.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def add(self, given: Input) -> set[str]:
        """Sifts and stages one file; the channels that it names.

        :raises InputError: it is not an export file, or breaks off.
        :raises LakeError: the work folder is full, or the memory limit too small.
        """
        folder = self._folder / f"input-{self._n_inputs}"
        sifter = Sifter(ExportFile(given.path), folder, max_line_bytes=self._max_line_bytes)
        try:
            sifted = sifter.sift()
            if sifted.passed and not self._stage_passed(sifted.passed, sifted.n_passed, given):
                sifted = sifter.rewrite()
            for table in schema.BY_ENTITY.values():
                self._stage(table, sifted, given)
            self._stage_others(sifted, given)
            self._stage_rejects(sifted.rejects, given)
        except duckdb.Error as error:
            raise _conversion_error(error) from None
        except OSError as error:
            raise LakeError(
                f"converting failed in the work folder: {error.strerror or error}; free space there"
            ) from None
        self._n_inputs += 1
        self.counts.lines += sifted.lines
        for name, count in sifted.entities.items():
            self.counts.entities[name] = self.counts.entities.get(name, 0) + count
        self.counts.other_entities += sifted.n_others
        shutil.rmtree(folder, ignore_errors=True)
        return sifted.cids

    def finish(self) -> None:
        """Places, cuts and deduplicates; afterwards ``days``, ``rows`` and ``counts`` hold.

        :raises LakeError: the work folder is full, or the memory limit too small.
        """
        try:
            self._place_reactions()
            for table in (schema.MESSAGES, schema.REACTIONS):
                self.counts.out_of_window += self._delete(table, "NOT _in_window")
            for table in schema.BY_ENTITY.values():
                self.counts.duplicates += self._keep_newest(table)
            self._draw_attachments()
            self._draw_latest_reactions()
            self._draw_users()
        except duckdb.Error as error:
            raise _conversion_error(error) from None
        for table in schema.TABLES:
            (self.counts.rows[table.name],) = self._one(f"SELECT count(*) FROM stage_{table.name}")

    # Staging: sifted files -> stage tables

    def _stage_passed(self, path: Path, n_passed: Mapping[Entity, int], given: Input) -> bool:
        """Messages and reactions from the file as it stands; False, and nothing staged, where that will not do: one is
        not complete, or comes twice, so that the order of lines matters."""
        tables = [schema.BY_ENTITY[entity] for entity, n_lines in n_passed.items() if n_lines]
        lines = sql.read_lines(path, {"type": "VARCHAR", "data": "JSON"})
        for table in tables:
            entity = cast("Entity", table.entity)
            self._read(table, f"SELECT data, NULL AS n, NULL AS line FROM {lines} WHERE type = '{entity.value}'", given)
        expected = [n_passed[cast("Entity", table.entity)] for table in tables]
        complete = [self._n_staged(table) for table in tables]
        if expected == complete and not any(self._n_extra(table) for table in tables):
            return True
        for table in tables:
            self._delete(table, f"_input = {self._n_inputs}")
        return False

    def _stage(self, table: Table, sifted: Sifted, given: Input) -> None:
        entity = cast("Entity", table.entity)
        if not sifted.n_written[entity]:
            return
        path = sifted.path(entity)
        self._read(table, _sifted_objects(path, sifted), given)
        if self._n_staged(table) < sifted.n_written[entity]:
            self._settle(table, path, sifted, given)

    def _read(self, table: Table, objects: str, given: Input) -> None:
        """One scan for the columns, one for embedded users.

        :param objects: a query for ``data`` (the object, JSON), ``n`` and ``line``.
        """
        singles, lists = _EMBEDDED_USERS[table.name]
        parts = ("attachments", "latest_reactions") if table is schema.MESSAGES else ()
        kept = "".join(f", CASE WHEN json_array_length(d.{part}) > 0 THEN d.{part} END AS _{part}" for part in parts)
        in_window = "true"
        if given.window is not None and table is schema.MESSAGES:
            since, until = sql.instant(given.window.since), sql.instant(given.window.until)
            in_window = f"{sql.time('d.created_at')} >= {since} AND {sql.time('d.created_at')} < {until}"
        self._con.execute(
            f"INSERT INTO stage_{table.name} BY NAME SELECT {sql.columns(table)}, {self._origin(given)}, n AS _n, "
            f"line AS _line, {in_window} AS _in_window{kept} FROM (SELECT n, line, "
            f"{sql.taken_apart(table, 'data', {*singles, *parts} - table.fields.keys())} FROM ({objects}) "
            f"WHERE data IS NOT NULL) WHERE {sql.complete(table)}"
        )
        self._join_clashing_custom(table)
        if singles or lists:
            self._stage_embedded_users(objects, singles, lists, given)

    def _stage_embedded_users(
        self, objects: str, singles: tuple[str, ...], lists: tuple[str, ...], given: Input
    ) -> None:
        """Few people write many messages, and mostly nothing else is embedded: distinct texts first, then unnested."""
        spec = sql.quoted(json.dumps(dict.fromkeys((*singles, *lists), "JSON")))
        users = [f"[d.{one}]" for one in singles] + [f"from_json(d.{many}, '[\"JSON\"]')" for many in lists]
        self._con.execute(
            f"INSERT INTO embedded_users SELECT DISTINCT j, {sql.instant(given.exported_at)} FROM (SELECT "
            f"unnest({' || '.join(f'coalesce({part}, [])' for part in users)}) AS j FROM "
            f"(SELECT DISTINCT json_transform(data, {spec}) AS d FROM ({objects}))) WHERE json_type(j) = 'OBJECT'"
        )

    def _join_clashing_custom(self, table: Table) -> None:
        """Keys that stand flat and under ``custom`` alike cannot be joined as text; they are rare, so in Python."""
        clashing = self._all(
            f"SELECT rowid, custom::VARCHAR FROM stage_{table.name} WHERE starts_with(custom::VARCHAR, '[')"
        )
        if clashing:
            self._con.executemany(
                f"UPDATE stage_{table.name} SET custom = ? WHERE rowid = ?",
                [[_joined_custom(*json.loads(both)), row] for row, both in clashing],
            )

    def _settle(self, table: Table, path: Path, sifted: Sifted, given: Input) -> None:
        """Objects that the reader refused or left incomplete: mended and read again, or rejected with the reason."""
        entity = cast("Entity", table.entity)
        staged = self._staged(table)
        mended_path = path.with_suffix(".mended")
        n_mended = 0
        with path.open("rb") as objects, mended_path.open("wb") as mended:
            for found in sifted.parse(objects):
                if found.n in staged:
                    continue
                outcome = mend(entity, found, sifted.cid_before(found.n))
                if isinstance(outcome, Reject):
                    sifted.rejects.append(outcome)
                else:
                    n_mended += 1
                    mended.write(outcome)
        if not n_mended:
            return
        self._read(table, _sifted_objects(mended_path, sifted), given)
        staged = self._staged(table)
        with mended_path.open("rb") as objects:
            sifted.rejects += [
                unreadable(entity, found, f"{entity.value} with a key or a time that no row can hold")
                for found in sifted.parse(objects)
                if found.n not in staged
            ]

    def _stage_others(self, sifted: Sifted, given: Input) -> None:
        if not sifted.n_others:
            return
        columns = {"entity": "VARCHAR", "cid": "VARCHAR", "line_number": "BIGINT", "data": "JSON"}
        self._con.execute(
            f"INSERT INTO stage_other_entities BY NAME SELECT *, {self._origin(given)} FROM "
            + sql.read_lines(sifted.others_path, columns, sifted.longest)
        )

    def _stage_rejects(self, rejects: Iterable[Reject], given: Input) -> None:
        for row in rejects:
            self._con.execute(
                "INSERT INTO stage_rejects BY NAME SELECT $line_number AS line_number, $byte_offset AS byte_offset, "
                "$reason AS reason, $raw AS raw, $raw_encoding AS raw_encoding, $raw_size_bytes AS raw_size_bytes, "
                + self._origin(given),
                row.to_row(),
            )
            self.counts.rejected += 1

    def _origin(self, given: Input) -> str:
        return (
            f"{sql.instant(given.exported_at)} AS _exported_at, {sql.quoted(self._load_id)} AS _load_id, "
            f"{self._n_inputs} AS _input"
        )

    def _staged(self, table: Table) -> set[int]:
        """Numbers of those objects of the current file that are rows by now."""
        return {n for (n,) in self._all(f"SELECT _n FROM stage_{table.name} WHERE _input = {self._n_inputs}")}

    def _n_staged(self, table: Table, condition: str = "true") -> int:
        return int(
            self._one(f"SELECT count(*) FROM stage_{table.name} WHERE _input = {self._n_inputs} AND ({condition})")[0]
        )

    # Finishing: what belongs where, and once

    def _place_reactions(self) -> None:
        """A reaction stands with its message; where that is not in the load, at its own time."""
        self._con.execute(
            "UPDATE stage_reactions r SET message_created_at = m.created_at, cid = coalesce(r.cid, m.cid), "
            "_in_window = m.in_window FROM (SELECT id, any_value(cid) AS cid, any_value(created_at) AS created_at, "
            "bool_or(_in_window) AS in_window FROM stage_messages GROUP BY id) m WHERE m.id = r.message_id"
        )
        self._con.execute("UPDATE stage_reactions SET message_created_at = created_at WHERE message_created_at IS NULL")

    def _keep_newest(self, table: Table) -> int:
        """One row per key: of the newest export, in it the newest version, of two alike the later one. Rows dropped."""
        if not self._n_extra(table):
            return 0
        key = ", ".join(sql.name(column) for column in table.key)
        version = "last_read" if table is schema.READS else "updated_at"
        return self._delete(
            table,
            f"rowid NOT IN (SELECT rowid FROM stage_{table.name} QUALIFY row_number() OVER (PARTITION BY {key} "
            f"ORDER BY _exported_at DESC, {version} DESC NULLS LAST, _input DESC, _n DESC NULLS LAST, rowid DESC) = 1)",
        )

    def _n_extra(self, table: Table) -> int:
        """Rows more than keys."""
        key = ", ".join(sql.name(column) for column in table.key)
        return int(self._one(f"SELECT count(*) - count(DISTINCT ({key})) FROM stage_{table.name}")[0])

    def _draw_attachments(self) -> None:
        table = schema.ATTACHMENTS
        self._con.execute(
            f"INSERT INTO stage_attachments BY NAME SELECT {sql.columns(table)}, message_id, cid, message_created_at, "
            f"position, _exported_at, _load_id, _input, _n, _line FROM (SELECT *, {sql.taken_apart(table, 'j')} FROM "
            "(SELECT id AS message_id, cid, created_at AS message_created_at, _exported_at, _load_id, _input, _n, "
            "_line, "
            "unnest(from_json(_attachments, '[\"JSON\"]')) AS j, "
            "unnest(range(json_array_length(_attachments)::BIGINT)) AS position "
            "FROM stage_messages WHERE _attachments IS NOT NULL))"
        )

    def _draw_latest_reactions(self) -> None:
        """Reactions that travel inside messages count where no line of their own, or only an older one, tells them."""
        table = schema.REACTIONS
        self._con.execute(
            "CREATE OR REPLACE TEMP TABLE latest AS SELECT *, "
            f"{sql.taken_apart(table, 'j')} FROM (SELECT id, cid, created_at, _exported_at, _load_id, "
            "unnest(from_json(_latest_reactions, '[\"JSON\"]')) AS j "
            "FROM stage_messages WHERE _latest_reactions IS NOT NULL)"
        )
        self._con.execute(
            "INSERT INTO stage_reactions BY NAME SELECT "
            f"{sql.columns(table, leave_out=('message_id', 'cid'))}, latest.id AS message_id, latest.cid AS cid, "
            "latest.created_at AS message_created_at, _exported_at, _load_id, -1 AS _input, 0 AS _n FROM latest "
            "WHERE json_type(j) = 'OBJECT'"
        )
        self._con.execute(
            "INSERT INTO embedded_users SELECT DISTINCT j->'user', _exported_at FROM latest "
            "WHERE json_type(j, '$.user') = 'OBJECT'"
        )
        self._keep_newest(table)

    def _draw_users(self) -> None:
        """Users from everywhere, beside those on lines of their own; the version that is newest, then the fullest."""
        table = schema.USERS
        self._con.execute(
            f"INSERT INTO stage_users BY NAME SELECT {sql.columns(table)}, exported_at AS _exported_at, "
            f"{sql.quoted(self._load_id)} AS _load_id, -1 AS _input, strlen(j::VARCHAR) AS _n FROM "
            f"(SELECT j, exported_at, {sql.taken_apart(table, 'j')} FROM "
            "(SELECT j, max(exported_at) AS exported_at FROM embedded_users GROUP BY j)) WHERE d.id IS NOT NULL"
        )
        self._keep_newest(table)

    # Reading

    def days(self, table: Table) -> dict[str, int]:
        """Rows per day folder, days ascending, as text."""
        return dict(
            self._all(f"SELECT {sql.day(table)} AS day, count(*) FROM stage_{table.name} GROUP BY day ORDER BY day")
        )

    def rows(self, table: Table, batch_rows: int) -> pa.RecordBatchReader:
        """The table as Arrow: ``_day``, then the registry's columns; by day, and sorted within it."""
        columns = ", ".join(
            f"{sql.name(column.name)}::VARCHAR AS {sql.name(column.name)}"
            if column.kind is Kind.JSON
            else sql.name(column.name)
            for column in table
        )
        order = ", ".join(("_day", *(sql.name(column) for column in table.sort)))
        return self._con.sql(
            f"SELECT {sql.day(table)} AS _day, {columns} FROM stage_{table.name} ORDER BY {order}"
        ).to_arrow_reader(batch_rows)

    def message_spans(self) -> dict[str, tuple[datetime, datetime]]:
        """Per channel, the times of its first and last message in this load."""
        return {
            cid: (datetime.fromtimestamp(first / 1e6, UTC), datetime.fromtimestamp(last / 1e6, UTC))
            for cid, first, last in self._all(
                "SELECT cid, epoch_us(min(created_at)), epoch_us(max(created_at)) FROM stage_messages GROUP BY cid"
            )
        }

    def n_uncovered(self, coverage: Iterable[Coverage]) -> int:
        """Event rows outside of all that the load claims to cover."""
        claims = pa.Table.from_pylist(
            [{"cid": entry.cid, "since": entry.since, "until": entry.until} for entry in coverage],
            schema=pa.schema([("cid", pa.string()), ("since", _UTC), ("until", _UTC)]),
        )
        self._con.register("claims", claims)
        n_rows = 0
        for table in schema.TABLES:
            if table.placement is Placement.EVENT:
                n_rows += self._one(
                    f"SELECT count(*) FROM stage_{table.name} ev WHERE NOT EXISTS (SELECT 1 FROM claims c WHERE "
                    f"c.cid = ev.cid AND ev.{table.placed_by} >= c.since AND ev.{table.placed_by} < c.until)"
                )[0]
        self._con.unregister("claims")
        return n_rows

    def _delete(self, table: Table, condition: str) -> int:
        return int(self._one(f"DELETE FROM stage_{table.name} WHERE {condition}")[0])

    def _one(self, query: str) -> tuple[Any, ...]:
        return self._con.execute(query).fetchall()[0]

    def _all(self, query: str) -> list[tuple[Any, ...]]:
        return self._con.execute(query).fetchall()


def _sifted_objects(path: Path, sifted: Sifted) -> str:
    columns = {"n": "BIGINT", "line": "BIGINT", "data": "JSON"}
    return f"SELECT data, n, line FROM {sql.read_lines(path, columns, sifted.longest)}"


def _joined_custom(flat: dict[str, Any], nested: dict[str, Any]) -> str:
    """Both sets of keys in one object; where they contradict each other, the flat one, and all of the nested ones
    once more under ``custom``."""
    joined = nested | flat
    if any(nested[key] != flat[key] for key in nested.keys() & flat.keys()):
        joined["custom"] = nested
    return json.dumps(joined, ensure_ascii=False, separators=(",", ":"))


def _conversion_error(error: duckdb.Error) -> LakeError:
    """DuckDB's messages may quote the value at fault, which may be a person's text: only their kind is passed on."""
    advice = (
        "give it a larger memory limit"
        if isinstance(error, duckdb.OutOfMemoryException)
        else "make sure that the work folder has room for twice the export's size, unpacked"
    )
    return LakeError(f"converting failed in the database ({type(error).__name__}); {advice}")

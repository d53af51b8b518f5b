"""How the database reads the objects of a file: as JSON, or as a STRUCT of typed fields, which is several times faster.

Queries only; ``stage`` runs them.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import msgspec

from airflow_provider_chatexport.core.entities import Entity
from airflow_provider_chatexport.core.times import LATEST
from airflow_provider_chatexport.lake.normalize.custom_keys import CustomKeys
from airflow_provider_chatexport.lake.schema import sql
from airflow_provider_chatexport.lake.schema.sql import instant, name, quoted
from airflow_provider_chatexport.lake.schema.tables import TABLE_BY_ENTITY
from airflow_provider_chatexport.lake.schema.types import Column, Kind, Table, not_a_list

DEFAULT_OBJECT_BYTES: Final = 16 * 1024 * 1024


def read_lines(path: Path, columns: Mapping[str, str], longest_bytes: int = 0) -> str:
    """A table function over JSON lines. A line that it cannot read becomes a row of nulls."""
    # The reader's buffers are multiples of this size, so it follows the longest line that there is.
    size = max(DEFAULT_OBJECT_BYTES, 2 * longest_bytes)
    typed = ", ".join(f"{column}: {quoted(kind)}" for column, kind in columns.items())
    return (
        f"read_json({quoted(str(path))}, format='newline_delimited', records=true, ignore_errors=true, "
        f"compression='none', hive_partitioning=false, maximum_object_size={size}, columns={{{typed}}})"
    )


def split_object(table: Table, element: str, extra_fields: Collection[str] = ()) -> str:
    """``d`` and ``flat`` of an object given as JSON.

    Every field is read as text or JSON text, so no value of an unexpected type can fail a line.
    """
    spec = json.dumps(fields(table, extra_fields))
    # A merge patch of nulls strips the known keys in one pass, and takes keys of any spelling for what they are.
    patch = json.dumps(dict.fromkeys(table.known_keys))
    return (
        f"json_transform({element}, {quoted(spec)}) AS d, "
        f"nullif(json_merge_patch({element}, {quoted(patch)})::VARCHAR, '{{}}')::JSON AS flat"
    )


def with_values(table: Table, query: str) -> str:
    """The query with the values beside ``d`` and ``flat`` that more than one column or condition asks for."""
    values = [
        f"{sql.cast(_field(column), column.kind)} AS {_cast_once(column)}" for column in table if _may_fail(column)
    ]
    return f"SELECT {', '.join(['*', *values])} FROM ({query})"


def fields(table: Table, extra_fields: Collection[str] = ()) -> dict[str, str]:
    """The members of ``d``, and the type that each is read as."""
    return table.fields | dict.fromkeys([*extra_fields, "custom"], "JSON")


def struct(members: Mapping[str, str]) -> str:
    return f"STRUCT({', '.join(f'{name(key)} {kind}' for key, kind in members.items())})"


def _field(column: Column) -> str:
    return f"d.{name(column.field or '')}"


def _may_fail(column: Column) -> bool:
    """Text and JSON columns hold anything that a field may be."""
    return column.field is not None and column.kind in (Kind.TIME, Kind.BOOL, Kind.INT)


def _cast_once(column: Column) -> str:
    return f"_{column.name}"


# The time that places an object, beside ``d`` and ``flat``.
CREATED_AT: Final = "_created_at"


def complete(table: Table) -> str:
    """A condition on ``d``: it has what a row of the table cannot do without, and a time that readers can hold."""
    needed = [keyed(table)]
    if table.owned_by is not None:
        needed.append(f"{table.owned_by} <> ''")
    if table.day_column is not None:
        needed.append(f"{CREATED_AT} < {instant(LATEST)}")
    if table.day_column == "created_at":
        needed.append("d.cid <> ''")
    return " AND ".join(needed)


def keyed(table: Table, *, leave_out: Collection[str] = ()) -> str:
    """A condition on ``d``: it has the parts of the table's key that come from the object."""
    names = [name for name in table.key if name not in leave_out]
    parts = [f"({_value(column)}) <> ''" for column in table if column.name in names and column.is_read]
    return " AND ".join(parts) or "true"


def _value(column: Column) -> str:
    if column.sql is not None:
        return column.sql
    return _cast_once(column) if _may_fail(column) else _field(column)


def cast_failures(table: Table, *, is_placed: bool = True) -> dict[str, str]:
    """By JSON key, a condition on ``d``: its value is of a kind that the table's column cannot hold.

    :param is_placed: the object's own time decides its day, and one that is none makes no row.
    """
    conditions = {key: not_a_list(key) for key in table.nested_lists}
    for column in table:
        if column.fails_on is not None:
            conditions[column.reads[0]] = column.fails_on
        elif column.field is not None and _may_fail(column):
            conditions[column.field] = f"{_field(column)} IS NOT NULL AND {_cast_once(column)} IS NULL"
    if table.day_column is not None and is_placed:
        conditions.pop("created_at", None)
    return conditions


def with_failed_casts_in_custom(table: Table, query: str, element: str, *, is_placed: bool = True) -> str:
    """The query with ``flat`` as it should be: the values that no column can hold are in it, under their keys.

    :param query: has ``d``, ``flat`` and the element, the object as JSON. The result has ``_cast_failures`` as well,
        the         keys at fault, null where there is none.
    """
    conditions = cast_failures(table, is_placed=is_placed)
    if not conditions:
        return f"SELECT *, NULL::VARCHAR[] AS _cast_failures FROM ({query})"
    keys = ", ".join(f"CASE WHEN {condition} THEN {quoted(key)} END" for key, condition in conditions.items())
    found = f"CASE WHEN {_any(conditions)} THEN string_split(concat_ws(',', {keys}), ',') END"
    members = ", ".join(
        f"CASE WHEN list_contains(_cast_failures, {quoted(key)}) "
        f"THEN {quoted(json.dumps(key) + ':')} || json_extract({element}, {quoted('/' + key)})::VARCHAR END"
        for key in conditions
    )
    flat = f"('{{' || concat_ws(',', substr(left(flat::VARCHAR, -1), 2), {members}) || '}}')::JSON"
    return (
        f"SELECT * REPLACE (CASE WHEN _cast_failures IS NOT NULL THEN {flat} ELSE flat END AS flat) "
        f"FROM (SELECT *, {found} AS _cast_failures FROM ({query}))"
    )


def any_cast_failure(table: Table) -> str:
    """A condition on ``d``: some value of it is of a kind that no column can hold."""
    return _any(cast_failures(table))


def _any(conditions: Mapping[str, str]) -> str:
    return " OR ".join(f"({condition})" for condition in conditions.values()) or "false"


def _custom(table: Table) -> str:
    """Flat and nested keys are joined as text: numbers and escapes are not written anew. Where the same key stands in
    both, the two objects are left side by side, for ``stage`` to join."""
    nested = _nested(table)
    return f"""CASE
    WHEN {nested} IS NULL OR {nested}::VARCHAR IN ('{{}}', 'null') THEN coalesce(flat, '{{}}')
    WHEN json_type({nested}) <> 'OBJECT'
        THEN coalesce(left(flat::VARCHAR, -1) || ',', '{{') || '"custom":' || {nested}::VARCHAR || '}}'
    WHEN flat IS NULL THEN {nested}
    WHEN list_has_any(json_keys(flat), json_keys({nested}))
        THEN '[' || flat::VARCHAR || ',' || {nested}::VARCHAR || ']'
    ELSE left(flat::VARCHAR, -1) || ',' || substr({nested}::VARCHAR, 2)
END::JSON"""


def _nested(table: Table) -> str:
    """``custom`` as it came, without what a column has of it."""
    found = "d.custom"
    for column in table:
        if column.nested:
            flat = f"json_extract_string(d.{column.name}, '$')"
            own = f"json_extract_string(d.custom, '$.{column.name}')"
            without = f"json_merge_patch({found}, {quoted(json.dumps({column.name: None}))})"
            found = f"CASE WHEN coalesce({flat}, {own}) = {own} THEN {without} ELSE {found} END"
    return f"({found})"


def columns(table: Table, *, leave_out: Collection[str] = ()) -> str:
    """The select list that turns ``d`` and ``flat`` into those columns of the table that come from the object."""
    made = [
        f"{_value(column)} AS {name(column.name)}"
        for column in table
        if column.is_read and column.name not in leave_out
    ]
    return ", ".join([*made, f"{_custom(table)} AS custom"])


def create_stage(table: Table) -> str:
    """The table that a load is staged in: the registry's columns, and what the load has to know of each row.

    ``_input``: number of the file. ``_n``: of the object in it. ``_read``: of the scan. ``_complete``: it can be a row.
    ``_cast_failures``: keys of values that no column can hold. The table's ``nested_lists``, until rows are made of
    them.
    """
    made = [
        f"{name(column.name)} {column.kind.value}{f' DEFAULT {column.default}' if column.default else ''}"
        for column in table
    ]
    lists = [f"_{key} JSON" for key in table.nested_lists]
    known = "_input INTEGER, _n BIGINT, _read INTEGER, _in_window BOOLEAN DEFAULT true, _complete BOOLEAN"
    return f"CREATE TABLE stage_{table.name} ({', '.join([*made, known, '_cast_failures VARCHAR[]', *lists])})"


@dataclass(frozen=True, slots=True, kw_only=True)
class EntityFile:
    """Objects of one entity in a file, and how to read them.

    :param identity: what tells them apart, of an object ``d``; ``nulls`` names objects by it.
    :param nulls: where it is told which objects have keys with null that the registry does not read.
    """

    path: Path
    columns: Mapping[str, str]
    condition: str
    identity: str
    identity_kind: str
    nulls: Path
    longest_bytes: int = 0

    def read_as(self, kind: str) -> str:
        """A query for the objects in this type as ``data``, with ``n`` and ``owner``."""
        place = "n, owner" if "n" in self.columns else "NULL AS n, NULL AS owner"
        lines = read_lines(self.path, {**self.columns, "data": kind}, self.longest_bytes)
        return f"SELECT data, {place} FROM {lines} WHERE {self.condition}"


def messages_in_place(path: Path, nulls: Path) -> EntityFile:
    """Those in the lines that in_place by."""
    return EntityFile(
        path=path,
        columns={"type": "VARCHAR"},
        condition="type = 'message'",
        identity="d.id",
        identity_kind="VARCHAR",
        nulls=nulls,
    )


def normalized_objects(path: Path, nulls: Path, longest_bytes: int) -> EntityFile:
    """Those that were written anew."""
    return EntityFile(
        path=path,
        columns={"n": "BIGINT", "owner": "VARCHAR"},
        condition="n IS NOT NULL",
        identity="n",
        identity_kind="BIGINT",
        nulls=nulls,
        longest_bytes=longest_bytes,
    )


def read_objects(table: Table, objects: EntityFile, keys: CustomKeys | None, extra_fields: Collection[str]) -> str:
    """A query for objects as ``d`` and ``flat``, with ``_cast_failures``: the keys of values that no column can hold,
    or,     where ``keys`` are given, only that there are some."""
    if keys is None:
        apart = split_object(table, "data", extra_fields)
        apart = with_values(table, f"SELECT n, owner, data, {apart} FROM ({objects.read_as('JSON')})")
        if table.owned_by is not None:
            apart = f"SELECT *, {_owner(table)} AS {table.owned_by} FROM ({apart})"
        return with_failed_casts_in_custom(table, apart, "data")
    members = fields(table, extra_fields) | dict.fromkeys(keys.names, "JSON")
    read = f"SELECT n, data AS d FROM ({objects.read_as(struct(members))})"
    if keys.with_null:
        noted = read_lines(objects.nulls, {"null_in": objects.identity_kind, "nulls": "VARCHAR"})
        read = f"SELECT * FROM ({read}) LEFT JOIN {noted} ON null_in = {objects.identity}"
    apart = with_values(table, f"SELECT n, d, {keys.joined} AS flat FROM ({read})")
    return f"SELECT *, CASE WHEN {any_cast_failure(table)} THEN [''] END AS _cast_failures FROM ({apart})"


def users_in(table: Table, objects: EntityFile) -> str:
    """A query for the users embedded in objects, each as JSON ``j``, in the version that stands there.

    A scan of its own: as columns of the objects' rows they would be a third of what those take.
    """
    keys = dict.fromkeys(path.partition(".")[0] for path in (*table.user_paths, *table.user_list_paths))
    read = f"SELECT data AS d FROM ({objects.read_as(struct(dict.fromkeys(keys, 'JSON')))})"
    singles, lists = [_found_in(path) for path in table.user_paths], [_found_in(path) for path in table.user_list_paths]
    one_by_one = f"[{', '.join(singles)}]"
    of_lists = [
        f"coalesce({_items(path, found)}, [])" for path, found in zip(table.user_list_paths, lists, strict=True)
    ]
    # The usual object has one user and no list of them, nor anything that has users inside.
    first, *others = keys
    rare = [f"strlen(d.{key}) > 2 AND d.{key}::VARCHAR <> 'null'" for key in others]
    if rare:
        together = " || ".join([one_by_one, *of_lists])
        one_by_one = f"CASE WHEN {' OR '.join(rare)} THEN {together} ELSE [d.{first}] END"
    return f"SELECT j FROM (SELECT unnest({one_by_one}) AS j FROM ({read})) WHERE {sql.is_object('j')} GROUP BY j"


def _found_in(path: str) -> str:
    """What lies at a path of an object ``d``."""
    key, _, inside = path.partition(".")
    return f"json_extract(d.{key}, '$.{inside}')" if inside else f"d.{key}"


def _items(path: str, found: str) -> str:
    """Of a list; a path over several objects has found a list of what it found in each."""
    return found if "*" in path else f"CASE WHEN strlen({found}::VARCHAR) > 2 THEN from_json({found}, '[\"JSON\"]') END"


def _owner(table: Table) -> str:
    """Whose export an object of a users export stands in."""
    entity = cast("Entity", table.entity)
    if entity is Entity.USER:
        return "d.id"
    author = next(column.sql for column in TABLE_BY_ENTITY[entity] if column.name == "user_id")
    return f"CASE WHEN ({author}) IN (FROM exported_users) THEN ({author}) ELSE owner END"


_decode_two: Final = msgspec.json.Decoder(tuple[dict[str, msgspec.Raw], dict[str, msgspec.Raw]]).decode


def join_objects(both: str) -> str:
    """One object of two that share keys, given side by side as a JSON list: the flat keys, then the nested ones.

    Values stay as they are written. Where the two contradict each other, the flat one counts, and all of the nested
    ones stand once more under ``custom``.
    """
    flat, nested = _decode_two(both)
    members: dict[str, Any] = nested | flat
    if any(bytes(nested[key]) != bytes(flat[key]) for key in nested.keys() & flat.keys()):
        members["custom"] = nested
    return msgspec.json.encode(members).decode()

"""Queries of staging: how DuckDB reads objects, as a STRUCT of typed fields or as JSON, and makes columns of them.

Queries only; ``stage`` runs them. In every fragment, ``d`` is an object as a STRUCT of the fields that the registry
reads, and ``flat`` the JSON object of its other keys, null if it has none.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import msgspec

from airflow_provider_chatexport.core.entities import Entity
from airflow_provider_chatexport.lake.normalize.custom_keys import CustomKeys
from airflow_provider_chatexport.lake.normalize.output import EntityFile
from airflow_provider_chatexport.lake.schema import sql
from airflow_provider_chatexport.lake.schema.columns import not_a_list
from airflow_provider_chatexport.lake.schema.sql import name, quoted
from airflow_provider_chatexport.lake.schema.tables import READS, TABLE_BY_ENTITY, TABLES, USER_EXPORT_USERS
from airflow_provider_chatexport.lake.schema.types import Column, Kind, Table

DEFAULT_OBJECT_BYTES: Final = 16 * 1024 * 1024

# The stage table of each table, by the table's name.
RELATIONS: Final = {table.name: f"stage_{table.name}" for table in TABLES}

# The time that decides the day of an object, next to ``d`` and ``flat``.
CREATED_AT: Final = "_created_at"


# Stage tables


def create_stage(table: Table) -> str:
    """Return the statement that creates a stage table: the registry's columns, and what a load has to know of a row.

    ``_input``: the number of the file. ``_n``: of the object in it. ``_read``: of the scan. ``_complete``: the object
    can be a row. ``_cast_failures``: the keys of values that no column can hold. ``_embeds_users``: the object may hold
    whole users. Then the lists that become rows of other tables.
    """
    columns = [
        f"{name(column.name)} {column.kind.value}{f' DEFAULT {column.default}' if column.default else ''}"
        for column in table
    ] + [f"{_once(column)} {column.kind.value}" for column in table.staged]
    known = (
        "_input INTEGER, _n BIGINT, _read INTEGER, _in_window BOOLEAN DEFAULT true, _complete BOOLEAN, "
        "_embeds_users BOOLEAN"
    )
    lists = [f"_{key} JSON" for key in table.nested_lists]
    return f"CREATE TABLE stage_{table.name} ({', '.join([*columns, known, '_cast_failures VARCHAR[]', *lists])})"


def newest(table: Table, *, first: str | None = None) -> str:
    """Return a query for one row per key, with its ``rowid``.

    It is the row of the newest export, in it the newest version, and of two alike the later one.

    :param first: an order that goes before all that.
    """
    key = ", ".join(sql.name(column) for column in table.key)
    version = "last_read" if table is READS else "updated_at"
    order = ["_exported_at DESC", f"{version} DESC NULLS LAST", "_input DESC", "_n DESC NULLS LAST", "rowid DESC"]
    return f"""
SELECT *, rowid FROM stage_{table.name}
QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY {", ".join(order if first is None else [first, *order])}) = 1
"""


# Reading


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """How the lines of an entity file look.

    :param payload: the key of the object.
    :param columns: all but the object.
    :param condition: which lines hold an object of the entity.
    :param identity: what names an object ``d`` in the file of its keys with null, and the type of that.
    :param place: what else is read of each line.
    """

    payload: str
    columns: Mapping[str, str]
    condition: str
    identity: str
    identity_kind: str
    place: str


_NORMALIZED: Final = _Layout(
    payload="data",
    columns={"n": "BIGINT", "owner": "VARCHAR"},
    condition="n IS NOT NULL",
    identity="n",
    identity_kind="BIGINT",
    place="n, owner",
)


def _layout(file: EntityFile) -> _Layout:
    if file.in_place is None:
        return _NORMALIZED
    return _Layout(
        payload=file.in_place,
        columns={"type": "VARCHAR"},
        condition="type = 'message'",
        identity="d.id",
        identity_kind="VARCHAR",
        place="NULL AS n, NULL AS owner",
    )


def read_lines(path: Path, columns: Mapping[str, str], longest_bytes: int = 0) -> str:
    """Return a table function over JSON lines. A line that DuckDB cannot read becomes a row of nulls.

    :param columns: the type of each key.
    :param longest_bytes: the length of the longest value.
    """
    # The reader's buffers are multiples of this size, so it follows the longest line that there is.
    size = max(DEFAULT_OBJECT_BYTES, 2 * longest_bytes)
    typed = ", ".join(f"{column}: {quoted(kind)}" for column, kind in columns.items())
    return (
        f"read_json({quoted(str(path))}, format='newline_delimited', records=true, ignore_errors=true, "
        f"compression='none', hive_partitioning=false, maximum_object_size={size}, columns={{{typed}}})"
    )


def _read_objects_as(kind: str, file: EntityFile) -> str:
    """Return a query for the objects of an entity file in this type as ``data``, with ``n`` and ``owner``."""
    layout = _layout(file)
    lines = read_lines(file.path, {**layout.columns, layout.payload: kind}, file.longest_bytes)
    return f"SELECT {layout.payload} AS data, {layout.place} FROM {lines} WHERE {layout.condition}"


def read_as_json(table: Table, file: EntityFile) -> str:
    """Return a query for objects as ``d`` and ``flat``, split by functions of JSON.

    ``_cast_failures`` has the keys of values that no column can hold.
    """
    lists = _unread_lists(table)
    split = with_values(
        table, f"SELECT n, owner, data, {split_object(table, 'data', lists)} FROM ({_read_objects_as('JSON', file)})"
    )
    if table.owned_by is not None:
        split = f"SELECT *, {_owner(table)} AS {table.owned_by} FROM ({split})"
    return with_failed_casts_in_custom(table, split, "data")


def read_as_struct(table: Table, file: EntityFile, keys: CustomKeys) -> str:
    """Return a query for objects as ``d`` and ``flat``, read as a STRUCT with all their keys.

    ``_cast_failures`` says only whether there are values that no column can hold: the values themselves are lost.
    """
    layout = _layout(file)
    members = fields(table, _unread_lists(table)) | dict.fromkeys(keys.names, "JSON")
    objects = f"SELECT n, data AS d FROM ({_read_objects_as(struct(members), file)})"
    if keys.with_null:
        notes = read_lines(file.nulls, {"null_in": layout.identity_kind, "nulls": "VARCHAR"})
        objects = f"SELECT * FROM ({objects}) LEFT JOIN {notes} ON null_in = {layout.identity}"
    values = with_values(table, f"SELECT n, d, {_custom_object(keys)} AS flat FROM ({objects})")
    return f"""
SELECT *, CASE WHEN {_any(cast_failures(table))} THEN [''] END AS _cast_failures
FROM ({values})
"""


def _unread_lists(table: Table) -> set[str]:
    return set(table.nested_lists) - table.fields.keys()


def _custom_object(keys: CustomKeys) -> str:
    """Return an expression for the JSON object of the custom keys that an object ``d`` has; null if it has none.

    ``nulls`` has its keys with null, as the members of an object.
    """
    if not keys.names:
        return "NULL::JSON"
    parts = [quoted(f'"{key}":') + f" || d.{name(key)}" for key in keys.names]
    members = ", ".join(["nulls", *parts] if keys.with_null else parts)
    return f"('{{' || nullif(concat_ws(',', {members}), '') || '}}')::JSON"


def split_object(table: Table, element: str, lists: Collection[str] = ()) -> str:
    """Return a select list that makes ``d`` and ``flat`` of an object given as JSON.

    Every field is read as text or JSON text, so that no value of an unexpected type can fail a line.

    :param element: the object.
    :param lists: keys that are read in addition to the table's fields.
    """
    spec = json.dumps(fields(table, lists))
    # A merge patch of nulls strips the known keys in one pass, and compares keys exactly, whatever their spelling.
    patch = json.dumps(dict.fromkeys(table.known_keys))
    return (
        f"json_transform({element}, {quoted(spec)}) AS d, "
        f"nullif(json_merge_patch({element}, {quoted(patch)})::VARCHAR, '{{}}')::JSON AS flat"
    )


def fields(table: Table, lists: Collection[str] = ()) -> dict[str, str]:
    """Return the members of ``d``, and the type that each is read as."""
    return table.fields | dict.fromkeys([*lists, "custom"], "JSON")


def struct(members: Mapping[str, str]) -> str:
    """Return the STRUCT type with these members."""
    return f"STRUCT({', '.join(f'{name(key)} {kind}' for key, kind in members.items())})"


def user_ids_of_export(user_ids: Sequence[str], number: int) -> str:
    """Return the statement that defines ``exported_users``: whose export a file of users is.

    :param user_ids: the users that the request named, if any.
    :param number: the number of the file; its users are staged before their messages.
    """
    ids = ", ".join(map(quoted, user_ids))
    users = f"SELECT id FROM stage_{USER_EXPORT_USERS.name} WHERE _input = {number}"
    return f"CREATE OR REPLACE TEMP VIEW exported_users AS SELECT unnest([{ids}]::VARCHAR[]) AS id UNION ALL {users}"


def _owner(table: Table) -> str:
    """Return an expression for the user whose export an object stands in."""
    entity = cast("Entity", table.entity)
    if entity is Entity.USER:
        return "d.id"
    author = next(column.sql for column in TABLE_BY_ENTITY[entity] if column.name == "user_id")
    return f"CASE WHEN ({author}) IN (FROM exported_users) THEN ({author}) ELSE owner END"


# Columns


def columns(table: Table, *, leave_out: Collection[str] = ()) -> str:
    """Return the select list that makes columns of ``d`` and ``flat``, those that come from the object."""
    values = [
        f"{_value(column)} AS {name(column.name)}"
        for column in table
        if column.is_read and column.name not in leave_out
    ]
    staged = [f"{_value(column)} AS {_once(column)}" for column in table.staged]
    return ", ".join([*values, *staged, f"{_custom(table)} AS custom"])


def with_values(table: Table, query: str) -> str:
    """Return the query with the values, next to ``d`` and ``flat``, that several columns or conditions need.

    A time that is unset is ``sql.UNSET_TIME`` there: it is null in its column, and not a value that is lost.
    """
    needed = [column for column in (*table, *table.staged) if column.once or _may_fail(column)]
    values = ", ".join(f"{_computed_once(column)} AS {_once(column)}" for column in needed)
    times = ", ".join(
        f"{sql.in_calendar(_once(column))} AS {_once(column)}" for column in needed if column.kind is Kind.TIME
    )
    read = f"SELECT *, {values} FROM ({query})" if values else f"SELECT * FROM ({query})"
    return f"SELECT * REPLACE ({times}) FROM ({read})" if times else read


def _computed_once(column: Column) -> str:
    if column.once and column.sql is not None:
        return column.sql
    return sql.any_time_of(_field(column)) if column.kind is Kind.TIME else sql.cast(_field(column), column.kind)


def _field(column: Column) -> str:
    return f"d.{name(column.field or '')}"


def _may_fail(column: Column) -> bool:
    """Return whether casting a field may fail. Text and JSON columns hold anything."""
    return column.field is not None and column.kind in (Kind.TIME, Kind.BOOL, Kind.INT)


def _once(column: Column) -> str:
    return f"_{column.name}"


def _value(column: Column) -> str:
    if column.once or _may_fail(column):
        value = f"nullif({_once(column)}, {sql.UNSET_TIME})" if column.kind is Kind.TIME else _once(column)
        return value if column.otherwise is None else f"coalesce({value}, {column.otherwise})"
    return column.sql if column.sql is not None else _field(column)


def complete(table: Table) -> str:
    """Return a condition on ``d``: it has what a row of the table needs."""
    needed = [keyed(table)]
    if table.owned_by is not None:
        needed.append(f"{table.owned_by} <> ''")
    if table.day_column is not None:
        needed.append(f"{CREATED_AT} > {sql.UNSET_TIME}")
    if table.day_column == "created_at":
        needed.append("_cid <> ''")
    return " AND ".join(needed)


def keyed(table: Table, *, leave_out: Collection[str] = ()) -> str:
    """Return a condition on ``d``: it has the parts of the table's key that come from the object."""
    names = [part for part in table.key if part not in leave_out]
    parts = [f"({_value(column)}) <> ''" for column in table if column.name in names and column.is_read]
    return " AND ".join(parts) or "true"


# Values that their column cannot hold


def cast_failures(table: Table, *, is_placed: bool = True) -> dict[str, str]:
    """Return, by JSON key, a condition on ``d``: the table's column cannot hold its value.

    :param is_placed: the object's own time decides its day. Without such a time it is not a row, and nothing to count.
    """
    conditions = {key: not_a_list(key) for key in table.nested_lists}
    for column in (*table, *table.staged):
        conditions |= column.fails_on
        if column.field is not None and _may_fail(column):
            conditions[column.field] = f"{_field(column)} IS NOT NULL AND {_once(column)} IS NULL"
    if table.day_column is not None and is_placed:
        conditions.pop("created_at", None)
    return conditions


def with_failed_casts_in_custom(table: Table, query: str, element: str, *, is_placed: bool = True) -> str:
    """Return the query with the values that no column can hold added to ``flat``, under their keys.

    :param query: has ``d``, ``flat`` and the element, which is the object as JSON. The result has ``_cast_failures``
        as well: the keys of those values, null if there are none.
    """
    conditions = cast_failures(table, is_placed=is_placed)
    if not conditions:
        return f"SELECT *, NULL::VARCHAR[] AS _cast_failures FROM ({query})"
    keys = ", ".join(f"CASE WHEN {condition} THEN {quoted(key)} END" for key, condition in conditions.items())
    members = ", ".join(
        f"CASE WHEN list_contains(_cast_failures, {quoted(key)}) "
        f"THEN {quoted(json.dumps(key) + ':')} || json_extract({element}, {quoted('/' + key)})::VARCHAR END"
        for key in conditions
    )
    flat = f"('{{' || concat_ws(',', substr(left(flat::VARCHAR, -1), 2), {members}) || '}}')::JSON"
    return f"""
SELECT * REPLACE (CASE WHEN _cast_failures IS NOT NULL THEN {flat} ELSE flat END AS flat)
FROM (
    SELECT *, CASE WHEN {_any(conditions)} THEN string_split(concat_ws(',', {keys}), ',') END AS _cast_failures
    FROM ({query})
)
"""


def _any(conditions: Mapping[str, str]) -> str:
    return " OR ".join(f"({condition})" for condition in conditions.values()) or "false"


# custom


def _custom(table: Table) -> str:
    """Return an expression for ``custom``: flat and nested keys as one object.

    They are joined as text, so that numbers and escapes stay as written. If a key stands in both, the two objects are
    left side by side for ``Stage.join_clashing_custom``.
    """
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
    """Return an expression for the object's own ``custom``, without the keys that a column has."""
    found = "d.custom"
    for column in table:
        if column.nested:
            flat = f"json_extract_string(d.{column.name}, '$')"
            own = f"json_extract_string(d.custom, '$.{column.name}')"
            without = f"json_merge_patch({found}, {quoted(json.dumps({column.name: None}))})"
            found = f"CASE WHEN coalesce({flat}, {own}) = {own} THEN {without} ELSE {found} END"
    return f"({found})"


_decode_two: Final = msgspec.json.Decoder(tuple[dict[str, msgspec.Raw], dict[str, msgspec.Raw]]).decode


def join_objects(both: str) -> str:
    """Return one object of two that share keys, given side by side as a JSON list: the flat keys, then the nested ones.

    Values stay as they are written. If the two contradict each other, the flat one counts, and all nested ones stand
    once more under ``custom``.
    """
    flat, nested = _decode_two(both)
    members: dict[str, Any] = nested | flat
    if any(bytes(nested[key]) != bytes(flat[key]) for key in nested.keys() & flat.keys()):
        members["custom"] = nested
    return msgspec.json.encode(members).decode()


# Users inside objects


def users_in(table: Table, file: EntityFile, *, staged: str | None = None) -> str:
    """Return a query for the users embedded in objects, each as JSON ``j``, in the version that stands there.

    It is a scan of its own: as columns of the objects' rows, users would be a third of what those take.

    :param staged: a query for the numbers of the objects that are rows, if not all of them are.
    """
    keys = dict.fromkeys(path.partition(".")[0] for path in (*table.user_paths, *table.user_list_paths))
    objects = _read_objects_as(struct(dict.fromkeys(keys, "JSON")), file)
    if staged is not None:
        objects = f"SELECT * FROM ({objects}) WHERE n IN ({staged})"
    users = f"[{', '.join(map(_at_path, table.user_paths))}]"
    of_lists = [f"coalesce({_items_at(path)}, [])" for path in table.user_list_paths]
    # The usual object has one user, no list of them, and nothing that has users inside.
    first, *others = keys
    rare = [f"strlen(d.{key}) > 2 AND d.{key}::VARCHAR <> 'null'" for key in others]
    if rare:
        users = f"CASE WHEN {' OR '.join(rare)} THEN {' || '.join([users, *of_lists])} ELSE [d.{first}] END"
    return f"""
SELECT j FROM (SELECT unnest({users}) AS j FROM (SELECT data AS d FROM ({objects})))
WHERE {sql.is_object("j")}
GROUP BY j
"""


def embeds_users(table: Table) -> str:
    """Return a condition on ``d``: the object may hold whole users, so that ``users_in`` has to look for them.

    It is false where users are named by id, and null where none is named. A value with a backslash may have any key,
    since escapes can spell one.
    """
    conditions = []
    for path in (*table.user_paths, *table.user_list_paths):
        key, _, inside = path.partition(".")
        value = f"d.{key}::VARCHAR"
        if not inside:
            found = f"starts_with({value}, '{{')" if path in table.user_paths else f"contains({value}, '{{')"
        else:
            last = inside.rpartition(".")[2]
            found = f"contains({value}, '\"{last}\"') OR contains({value}, '\\')"
        conditions.append(f"WHEN {found} THEN true")
    if not conditions:
        return "NULL"
    first = table.user_paths[0]
    return f"CASE {' '.join(conditions)} WHEN d.{first}::VARCHAR <> 'null' THEN false END"


def _at_path(path: str) -> str:
    """Return an expression for the value at a path of an object ``d``."""
    key, _, inside = path.partition(".")
    return f"json_extract(d.{key}, '$.{inside}')" if inside else f"d.{key}"


def _items_at(path: str) -> str:
    """Return an expression for the items of the list at a path. A path with ``*`` yields a list of matches already."""
    found = _at_path(path)
    return found if "*" in path else f"CASE WHEN strlen({found}::VARCHAR) > 2 THEN from_json({found}, '[\"JSON\"]') END"

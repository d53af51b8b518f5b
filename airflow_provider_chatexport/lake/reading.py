"""How the database reads the objects of a file: as JSON, or as a STRUCT of typed fields, which is several times faster.

Queries only; ``stage`` runs them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from airflow_provider_chatexport.core.entities import Entity
from airflow_provider_chatexport.lake import schema, sql
from airflow_provider_chatexport.lake.custom import CustomKeys
from airflow_provider_chatexport.lake.table import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Objects:
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
        lines = sql.read_lines(self.path, {**self.columns, "data": kind}, self.longest_bytes)
        return f"SELECT data, {place} FROM {lines} WHERE {self.condition}"


def passed_messages(path: Path, nulls: Path) -> Objects:
    """Those in the lines that passed by."""
    return Objects(
        path=path,
        columns={"type": "VARCHAR"},
        condition="type = 'message'",
        identity="d.id",
        identity_kind="VARCHAR",
        nulls=nulls,
    )


def sifted_objects(path: Path, nulls: Path, longest_bytes: int) -> Objects:
    """Those that were written anew."""
    return Objects(
        path=path,
        columns={"n": "BIGINT", "owner": "VARCHAR"},
        condition="n IS NOT NULL",
        identity="n",
        identity_kind="BIGINT",
        nulls=nulls,
        longest_bytes=longest_bytes,
    )


def taken_apart(table: Table, objects: Objects, keys: CustomKeys | None, extra_fields: Collection[str]) -> str:
    """A query for objects as ``d`` and ``flat``, with ``_not_cast``: the keys of values that no column can hold, or,
    where ``keys`` are given, only that there are some."""
    if keys is None:
        apart = sql.taken_apart(table, "data", extra_fields)
        apart = sql.with_values(table, f"SELECT n, owner, data, {apart} FROM ({objects.read_as('JSON')})")
        if table.owned_by is not None:
            apart = f"SELECT *, {_owner(table)} AS {table.owned_by} FROM ({apart})"
        return sql.keeping_what_is_not_cast(table, apart, "data")
    members = sql.fields(table, extra_fields) | dict.fromkeys(keys.names, "JSON")
    read = f"SELECT n, data AS d FROM ({objects.read_as(sql.struct(members))})"
    if keys.with_null:
        noted = sql.read_lines(objects.nulls, {"null_in": objects.identity_kind, "nulls": "VARCHAR"})
        read = f"SELECT * FROM ({read}) LEFT JOIN {noted} ON null_in = {objects.identity}"
    apart = sql.with_values(table, f"SELECT n, d, {keys.joined} AS flat FROM ({read})")
    return f"SELECT *, CASE WHEN {sql.any_not_cast(table)} THEN [''] END AS _not_cast FROM ({apart})"


def users_in(table: Table, objects: Objects) -> str:
    """A query for the users embedded in objects, each as JSON ``j``, in the version that stands there.

    A scan of its own: as columns of the objects' rows they would be a third of what those take.
    """
    keys = dict.fromkeys(path.partition(".")[0] for path in (*table.users, *table.user_lists))
    read = f"SELECT data AS d FROM ({objects.read_as(sql.struct(dict.fromkeys(keys, 'JSON')))})"
    singles, lists = [_found_in(path) for path in table.users], [_found_in(path) for path in table.user_lists]
    one_by_one = f"[{', '.join(singles)}]"
    of_lists = [f"coalesce({_items(path, found)}, [])" for path, found in zip(table.user_lists, lists, strict=True)]
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
    author = next(column.sql for column in schema.BY_ENTITY[entity] if column.name == "user_id")
    return f"CASE WHEN ({author}) IN (FROM exported_users) THEN ({author}) ELSE owner END"

"""Who is in tables: the ids of users in stage tables, or in files of a lake."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

import duckdb

from airflow_provider_chatexport.lake import message_ids, schema, sql
from airflow_provider_chatexport.lake.forgotten import Forgotten
from airflow_provider_chatexport.lake.personal import Personal, columns

# How a column's values are had as user ids.
_WAYS: Final[dict[Personal, Callable[[str], str]]] = {
    Personal.USER_ID: str,
    Personal.USER_IDS: "unnest({})".format,
    Personal.MESSAGE_ID: message_ids.author,
}


def user_ids(con: duckdb.DuckDBPyConnection, relations: Mapping[str, str]) -> set[str]:
    """Every user id, also where it begins a message's.

    :param relations: by the table's name, what has its rows.
    :raises duckdb.Error: they cannot be read.
    """
    values = [
        (relations[table.name], way(sql.name(column.name)))
        for table in schema.TABLES
        if table.name in relations
        for kind, way in _WAYS.items()
        for column in columns(table, kind)
    ]
    if not values:
        return set()
    asked = " UNION ".join(f"SELECT {value} AS id FROM {relation}" for relation, value in values)
    return {user_id for (user_id,) in con.execute(f"SELECT id FROM ({asked}) WHERE id IS NOT NULL").fetchall()}


def listed_in_json(con: duckdb.DuckDBPyConnection, relations: Mapping[str, str], listed: Forgotten) -> set[str]:
    """Strings inside JSON, keys as well, that are on the list; ids have nothing in them to be escaped.

    :raises duckdb.Error: they cannot be read.
    """
    return set(_listed_in_json(con, relations, listed)) if listed.keep_messages else set()


def _listed_in_json(con: duckdb.DuckDBPyConnection, relations: Mapping[str, str], listed: Forgotten) -> Iterator[str]:
    for table in schema.TABLES:
        for column in columns(table, Personal.MIXED) if table.name in relations else ():
            strings = f"""unnest(regexp_extract_all({sql.name(column.name)}::VARCHAR, '"([^"\\\\]+)"', 1))"""
            asked = f"SELECT DISTINCT told FROM (SELECT {strings} AS told FROM {relations[table.name]})"
            found = con.execute(f"{asked} WHERE {listed.is_listed('told')}").fetchall()
            yield from (told for (told,) in found)

"""Who is in tables: the ids of users in stage tables, or in files of a lake."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import duckdb

from airflow_provider_chatexport.lake.privacy import message_ids
from airflow_provider_chatexport.lake.privacy.columns import PersonalData, columns
from airflow_provider_chatexport.lake.privacy.suppression_list import SuppressionList
from airflow_provider_chatexport.lake.schema import sql
from airflow_provider_chatexport.lake.schema.tables import TABLES, USER_EXPORT_USERS, USERS


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Who is to be forgotten. ``names``: the display names that the lake knows for the id."""

    user_id: str
    names: tuple[str, ...] = ()
    keep_messages: bool = False

    @property
    def words(self) -> tuple[str, ...]:
        """What must not be found any more, as plain text and as JSON writes it."""
        plain = [self.user_id, *(name for name in self.names if name.strip())]
        return tuple(dict.fromkeys([*plain, *(json.dumps(word)[1:-1] for word in plain)]))


def known_people(
    con: duckdb.DuckDBPyConnection, relations: Mapping[str, str], keep_messages: Mapping[str, bool]
) -> list[Person]:
    """People with the names that the tables of users know.

    :param relations: by the table's name, what has its rows.
    :param keep_messages: by user id.
    :raises duckdb.Error: they cannot be read.
    """
    # An id used as a name is known without it.
    wanted = f"{is_among('id', [*map(sql.quoted, keep_messages)])} AND name <> id"
    names: dict[str, set[str]] = {user_id: set() for user_id in keep_messages}
    for table in (USERS, USER_EXPORT_USERS):
        if table.name in relations:
            found = con.execute(f"SELECT DISTINCT id, name FROM {relations[table.name]} WHERE {wanted}").fetchall()
            for user_id, name in found:
                names[user_id].add(name)
    return [
        Person(user_id=user_id, names=tuple(sorted(names[user_id])), keep_messages=keep)
        for user_id, keep in keep_messages.items()
    ]


def is_among(value: str, quoted: Sequence[str]) -> str:
    """A condition: the expression is one of the texts, as SQL writes them. Null where it is null."""
    return f"{value} IN ({', '.join(quoted)})" if quoted else "false"


# How a column's values are had as user ids.
_WAYS: Final[dict[PersonalData, Callable[[str], str]]] = {
    PersonalData.USER_ID: str,
    PersonalData.USER_IDS: "unnest({})".format,
    PersonalData.MESSAGE_ID: message_ids.author,
}


def user_ids(con: duckdb.DuckDBPyConnection, relations: Mapping[str, str]) -> set[str]:
    """Every user id, also where it begins a message's.

    :param relations: by the table's name, what has its rows.
    :raises duckdb.Error: they cannot be read.
    """
    values = [
        (relations[table.name], way(sql.name(column.name)))
        for table in TABLES
        if table.name in relations
        for kind, way in _WAYS.items()
        for column in columns(table, kind)
    ]
    if not values:
        return set()
    asked = " UNION ".join(f"SELECT {value} AS id FROM {relation}" for relation, value in values)
    return {user_id for (user_id,) in con.execute(f"SELECT id FROM ({asked}) WHERE id IS NOT NULL").fetchall()}


def listed_in_json(con: duckdb.DuckDBPyConnection, relations: Mapping[str, str], listed: SuppressionList) -> set[str]:
    """Strings inside JSON, keys as well, that are on the list; ids have nothing in them to be escaped.

    :raises duckdb.Error: they cannot be read.
    """
    return set(_listed_in_json(con, relations, listed)) if listed.keep_messages else set()


def _listed_in_json(
    con: duckdb.DuckDBPyConnection, relations: Mapping[str, str], listed: SuppressionList
) -> Iterator[str]:
    for table in TABLES:
        for column in columns(table, PersonalData.FREE_FORM) if table.name in relations else ():
            strings = f"""unnest(regexp_extract_all({sql.name(column.name)}::VARCHAR, '"([^"\\\\]+)"', 1))"""
            asked = f"SELECT DISTINCT told FROM (SELECT {strings} AS told FROM {relations[table.name]})"
            found = con.execute(f"{asked} WHERE {listed.is_listed('told')}").fetchall()
            yield from (told for (told,) in found)

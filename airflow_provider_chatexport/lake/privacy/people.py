"""Finding people: the user ids in tables, and the names that belong to an id.

``relations`` always maps a table's name to a relation with its rows: stage tables of a load, or files of a lake.
"""

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
    """A person who is to be forgotten.

    :param names: the display names that the lake knows for the id.
    :param keep_messages: their messages stay as rows without author and text.
    """

    user_id: str
    names: tuple[str, ...] = ()
    keep_messages: bool = False

    @property
    def words(self) -> tuple[str, ...]:
        """The words that must not be found any more, as plain text and as JSON writes them."""
        plain = [self.user_id, *(name for name in self.names if name.strip())]
        return tuple(dict.fromkeys([*plain, *(json.dumps(word)[1:-1] for word in plain)]))


def known_people(
    con: duckdb.DuckDBPyConnection, relations: Mapping[str, str], keep_messages: Mapping[str, bool]
) -> list[Person]:
    """Return people with the names that the tables of users have for them.

    :param keep_messages: by user id.
    :raises duckdb.Error: a relation cannot be read.
    """
    # An id that is also a name is in the words already.
    condition = f"{is_among('id', [*map(sql.quoted, keep_messages)])} AND name <> id"
    names: dict[str, set[str]] = {user_id: set() for user_id in keep_messages}
    for table in (USERS, USER_EXPORT_USERS):
        if table.name in relations:
            query = f"SELECT DISTINCT id, name FROM {relations[table.name]} WHERE {condition}"
            for user_id, name in con.execute(query).fetchall():
                names[user_id].add(name)
    return [
        Person(user_id=user_id, names=tuple(sorted(names[user_id])), keep_messages=keep)
        for user_id, keep in keep_messages.items()
    ]


def is_among(value: str, quoted: Sequence[str]) -> str:
    """Return a condition: an expression is one of these SQL literals. Null where the expression is null."""
    return f"{value} IN ({', '.join(quoted)})" if quoted else "false"


# How to read user ids from a column's values.
_USER_IDS_IN: Final[dict[PersonalData, Callable[[str], str]]] = {
    PersonalData.USER_ID: str,
    PersonalData.USER_IDS: "unnest({})".format,
    PersonalData.MESSAGE_ID: message_ids.author,
}


def user_ids(con: duckdb.DuckDBPyConnection, relations: Mapping[str, str]) -> set[str]:
    """Return every user id in columns of ids, and at the start of message ids.

    :raises duckdb.Error: a relation cannot be read.
    """
    parts = [
        f"SELECT {read(sql.name(column.name))} AS id FROM {relations[table.name]}"
        for table in TABLES
        if table.name in relations
        for kind, read in _USER_IDS_IN.items()
        for column in columns(table, kind)
    ]
    if not parts:
        return set()
    query = f"SELECT id FROM ({' UNION '.join(parts)}) WHERE id IS NOT NULL"
    return {user_id for (user_id,) in con.execute(query).fetchall()}


def listed_in_json(con: duckdb.DuckDBPyConnection, relations: Mapping[str, str], listed: SuppressionList) -> set[str]:
    """Return the user ids inside JSON values, keys included, that are on the suppression list.

    Ids have no character that JSON would escape.

    :raises duckdb.Error: a relation cannot be read.
    """
    return set(_listed_in_json(con, relations, listed)) if listed.keep_messages else set()


def _listed_in_json(
    con: duckdb.DuckDBPyConnection, relations: Mapping[str, str], listed: SuppressionList
) -> Iterator[str]:
    for table in TABLES:
        for column in columns(table, PersonalData.FREE_FORM) if table.name in relations else ():
            texts = con.execute(
                f"""
                SELECT DISTINCT text
                FROM (
                    SELECT unnest(regexp_extract_all({sql.name(column.name)}::VARCHAR, '"([^"\\\\]+)"', 1)) AS text
                    FROM {relations[table.name]}
                )
                WHERE {listed.is_listed("text")}
                """
            ).fetchall()
            yield from (text for (text,) in texts)

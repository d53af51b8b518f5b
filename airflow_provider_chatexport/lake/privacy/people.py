"""Finding people: the user ids in tables, and the names that belong to an id.

``relations`` always maps a table's name to a relation with its rows: stage tables of a load, or files of a lake.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import duckdb

from airflow_provider_chatexport.lake.privacy import matching, message_ids
from airflow_provider_chatexport.lake.privacy.columns import columns
from airflow_provider_chatexport.lake.schema import sql
from airflow_provider_chatexport.lake.schema.tables import TABLES, USER_EXPORT_USERS, USERS
from airflow_provider_chatexport.lake.schema.types import Column, PersonalData, Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """A person who is to be forgotten.

    :param user_id: None if only texts name the person, and the id is not known as the service writes it.
    :param names: the display names that are known for the id.
    :param keep_messages: their messages stay as rows without author and text.
    :param any_word: texts lose their names of one word, and their id even if it is an ordinary word.
    :param spellings: the id as texts write it.
    """

    user_id: str | None
    names: tuple[str, ...] = ()
    keep_messages: bool = False
    any_word: bool = False
    spellings: tuple[str, ...] = ()

    @property
    def ids(self) -> tuple[str, ...]:
        """The id, in every spelling that is known."""
        return (*([] if self.user_id is None else [self.user_id]), *self.spellings)


def with_known_names(
    con: duckdb.DuckDBPyConnection, relations: Mapping[str, str], people: Sequence[Person]
) -> list[Person]:
    """Return people with the names that the tables of users have for them.

    :raises duckdb.Error: a relation cannot be read.
    """
    names: dict[str, set[str]] = {person.user_id: set() for person in people if person.user_id is not None}
    condition = f"{is_among('id', [*map(sql.quoted, names)])} AND name <> ''"
    for table in (USERS, USER_EXPORT_USERS):
        if table.name in relations and names:
            query = f"SELECT DISTINCT id, name FROM {relations[table.name]} WHERE {condition}"
            for user_id, name in con.execute(query).fetchall():
                names[user_id].add(name)
    return [
        replace(person, names=tuple(sorted({*person.names, *names.get(person.user_id or "", ())}))) for person in people
    ]


def is_among(value: str, quoted: Sequence[str]) -> str:
    """Return a condition: an expression is one of these SQL literals. Null where the expression is null."""
    return f"{value} IN ({', '.join(quoted)})" if quoted else "false"


# How to read user ids from a column's values.
_USER_IDS_IN: Final[dict[PersonalData, Callable[[str], str]]] = {
    PersonalData.USER_ID: str,
    PersonalData.USER_IDS: "unnest({})".format,
    PersonalData.MESSAGE_ID: message_ids.author,
    PersonalData.MESSAGE_IDS: lambda column: f"unnest(list_transform({column}, lambda x: {message_ids.author('x')}))",
}


# Tables of users come first: they are small, and most people are there.
_TABLES: Final = (USERS, USER_EXPORT_USERS, *(each for each in TABLES if each not in (USERS, USER_EXPORT_USERS)))


def _queries(relations: Mapping[str, str]) -> Iterator[str]:
    """Yield a query for the user ids in each column of ids, and at the start of message ids."""
    for table in _TABLES:
        for kind, read in _USER_IDS_IN.items():
            for column in columns(table, kind) if table.name in relations else ():
                yield f"SELECT {read(sql.name(column.name))} AS id FROM {relations[table.name]}"


def user_ids(con: duckdb.DuckDBPyConnection, relations: Mapping[str, str]) -> set[str]:
    """Return every user id in columns of ids, and at the start of message ids.

    :raises duckdb.Error: a relation cannot be read.
    """
    if not (parts := [*_queries(relations)]):
        return set()
    query = f"SELECT id FROM ({' UNION '.join(parts)}) WHERE id IS NOT NULL"
    return {user_id for (user_id,) in con.execute(query).fetchall()}


def has_id(con: duckdb.DuckDBPyConnection, relations: Mapping[str, str], ids: Collection[str]) -> bool:
    """Return whether one of the ids is in a column of ids, or at the start of a message id.

    :raises duckdb.Error: a relation cannot be read.
    """
    quoted = [*map(sql.quoted, ids)]
    return _is_anywhere(con, relations, lambda table: [condition for _, condition in id_conditions(table, quoted)])


def has_like_id(con: duckdb.DuckDBPyConnection, relations: Mapping[str, str], user_id: str) -> bool:
    """Return whether an id differs from this one in nothing but case, composition (NFC, NFD) or width.

    :raises duckdb.Error: a relation cannot be read.
    """
    is_like = f"regexp_full_match({{}}, {sql.quoted(matching.pattern(user_id))}, 'i')".format
    return _is_anywhere(con, relations, lambda table: [condition for _, condition in _any_id(table, is_like)])


def id_conditions(table: Table, quoted: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield each column of ids of a table with a condition on ``rows``: it has one of these ids. It is never null.

    :param quoted: the ids as SQL literals.
    """
    for column in columns(table, PersonalData.USER_ID):
        yield column.name, f"coalesce({is_among(_value(column), quoted)}, false)"
    for column in columns(table, PersonalData.USER_IDS):
        yield column.name, f"coalesce(list_has_any({_value(column)}, [{', '.join(quoted)}]::VARCHAR[]), false)"
    if quoted:
        for column in columns(table, PersonalData.MESSAGE_ID):
            yield column.name, message_ids.is_by(_value(column), quoted)
        for column in columns(table, PersonalData.MESSAGE_IDS):
            is_theirs = f"lambda each: {message_ids.is_by('each', quoted)}"
            yield column.name, f"coalesce(len(list_filter({_value(column)}, {is_theirs})) > 0, false)"


def _any_id(table: Table, condition: Callable[[str], str]) -> Iterator[tuple[str, str]]:
    """Yield each column of ids of a table with a condition on ``rows``: a condition holds for one of its user ids."""
    for column in columns(table, PersonalData.USER_ID):
        yield column.name, condition(_value(column))
    for column in columns(table, PersonalData.MESSAGE_ID):
        yield column.name, condition(message_ids.author(_value(column)))
    for column in columns(table, PersonalData.USER_IDS):
        yield column.name, f"len(list_filter({_value(column)}, lambda each: {condition('each')})) > 0"
    for column in columns(table, PersonalData.MESSAGE_IDS):
        is_so = condition(message_ids.author("each"))
        yield column.name, f"len(list_filter({_value(column)}, lambda each: {is_so})) > 0"


def _is_anywhere(
    con: duckdb.DuckDBPyConnection, relations: Mapping[str, str], conditions_on: Callable[[Table], Sequence[str]]
) -> bool:
    """Return whether a row of a table meets one of the conditions on its rows: one query for each table."""
    queries = (
        f"SELECT 1 FROM {relations[table.name]} rows WHERE {either} LIMIT 1"
        for table in _TABLES
        if table.name in relations and (either := " OR ".join(conditions_on(table)))
    )
    return any(con.execute(query).fetchall() for query in queries)


def _value(column: Column) -> str:
    return f"rows.{sql.name(column.name)}"

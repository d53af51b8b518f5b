"""Loads without raw personal data: user ids become keyed hashes, and what describes a person does not land at all.

The same id gives the same pseudonym in every table and every load with the same key, so joins go on working; so does
the author's id that begins a message's. Ids of channels are kept, as are the times, counts and flags. Without
``drop_text`` texts are kept as people wrote them, with whatever names stand in them.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator, Mapping
from typing import Final

import pyarrow as pa

from airflow_provider_chatexport.core.options import LoadOptions
from airflow_provider_chatexport.lake.duckdb_session import Database
from airflow_provider_chatexport.lake.privacy import message_ids
from airflow_provider_chatexport.lake.privacy.columns import PersonalData, columns
from airflow_provider_chatexport.lake.schema import sql
from airflow_provider_chatexport.lake.schema.arrow import arrow_rows
from airflow_provider_chatexport.lake.schema.tables import TABLES
from airflow_provider_chatexport.lake.schema.types import Column, Table

PREFIX: Final = "u_"
_PSEUDONYMS: Final = pa.schema([("id", pa.string()), ("pseudonym", pa.string())])
_DIGITS: Final = 32  # 128 bits: no two of any number of users meet


def pseudonym(user_id: str, key: str) -> str:
    """``u_`` and 32 hex digits: HMAC-SHA256, cut."""
    return PREFIX + hmac.new(key.encode(), user_id.encode(), hashlib.sha256).hexdigest()[:_DIGITS]


def pseudonymize(stage: Database, pseudonyms: Mapping[str, str], options: LoadOptions) -> None:
    """Takes out of the stage tables what the options say, before anything is written.

    :param pseudonyms: of every user in the tables, by id, if there are to be any.
    :raises duckdb.Error: the work folder is full, or the memory limit too small.
    """
    if options.hash_users:
        hashed = arrow_rows(({"id": each, "pseudonym": hidden} for each, hidden in pseudonyms.items()), _PSEUDONYMS)
        with stage.registered("hashed", hashed):
            stage.execute("CREATE OR REPLACE TEMP TABLE pseudonyms AS FROM hashed")
    for table in TABLES:
        replaced = dict(_replaced(table, options))
        if replaced:
            stage.execute(
                f"CREATE OR REPLACE TABLE stage_{table.name} AS SELECT * {_without_authors(table)} REPLACE "
                f"({', '.join(f'{value} AS {sql.name(name)}' for name, value in replaced.items())}) "
                f"FROM ({_with_authors(table)}) rows"
            )


def _with_authors(table: Table) -> str:
    """The stage table with the authors that its ids of messages tell: as columns, they are looked up once each."""
    told = "".join(
        f", {message_ids.author(sql.name(column.name))} AS {_author_of(column)}"
        for column in columns(table, PersonalData.MESSAGE_ID)
    )
    return f"SELECT *{told} FROM stage_{table.name}"


def _without_authors(table: Table) -> str:
    names = ", ".join(map(_author_of, columns(table, PersonalData.MESSAGE_ID)))
    return f"EXCLUDE ({names})" if names else ""


def _author_of(column: Column) -> str:
    return sql.name(f"_author_of_{column.name}")


def _replaced(table: Table, options: LoadOptions) -> Iterator[tuple[str, str]]:
    if options.hash_users:
        for column in columns(table, PersonalData.USER_ID):
            yield column.name, f"(SELECT pseudonym FROM pseudonyms p WHERE p.id = rows.{sql.name(column.name)})"
        for column in columns(table, PersonalData.USER_IDS):
            ids = f"rows.{sql.name(column.name)}"
            listed = f"unnest({ids}) WITH ORDINALITY AS of_list(id, place)"
            hidden = f"(SELECT list(pseudonym ORDER BY place) FROM {listed} JOIN pseudonyms USING (id))"
            # A list of no rows is null, and an empty one says something: nobody is mentioned, everyone may see it.
            yield column.name, f"CASE WHEN len({ids}) > 0 THEN {hidden} ELSE {ids} END"
        for column in columns(table, PersonalData.MESSAGE_ID):
            name, author = f"rows.{sql.name(column.name)}", f"rows.{_author_of(column)}"
            hidden = f"(SELECT pseudonym FROM pseudonyms p WHERE p.id = {author})"
            yield column.name, f"coalesce({hidden} || {message_ids.random_part(name, author)}, {name})"
        for column in columns(table, PersonalData.PROFILE):
            yield column.name, f"NULL::{column.kind.value}"
    if options.drop_text:
        for column in columns(table, PersonalData.CONTENT):
            yield column.name, f"NULL::{column.kind.value}"
    # What may hold anything goes with either: a whole user may stand in it as well as what somebody wrote.
    for column in columns(table, PersonalData.FREE_FORM):
        yield column.name, _emptied(column)


def _emptied(column: Column) -> str:
    match column.name:
        case "custom" | "data":
            return "'{}'::JSON"
        case "raw":
            return "''"
        case _:
            return f"NULL::{column.kind.value}"

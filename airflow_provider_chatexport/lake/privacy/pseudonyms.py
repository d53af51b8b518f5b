"""Loads without raw personal data: user ids become keyed hashes, and what describes a person is not stored at all.

The same id has the same pseudonym in every table and in every load with the same key, so joins still work. That holds
for the author's id at the start of a message id, too. Ids of channels, times, counts and flags are kept. Without
``drop_text``, texts are kept as people wrote them, with whatever names are in them.
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
from airflow_provider_chatexport.lake.privacy.columns import columns
from airflow_provider_chatexport.lake.schema import sql
from airflow_provider_chatexport.lake.schema.arrow import arrow_rows
from airflow_provider_chatexport.lake.schema.tables import CUSTOM, TABLES
from airflow_provider_chatexport.lake.schema.types import Column, PersonalData, Table

PREFIX: Final = "u_"
_PSEUDONYMS: Final = pa.schema([("id", pa.string()), ("pseudonym", pa.string())])
_EITHER: Final = (
    PersonalData.JSON,
    PersonalData.JSON_BY_USER_ID,
    PersonalData.WHOLE_OBJECT,
    PersonalData.RAW_LINE,
)
_DIGITS: Final = 32  # 128 bits: no two users share a pseudonym


def pseudonym(user_id: str, key: str) -> str:
    """Return the pseudonym of a user: ``u_`` and the first 32 hex digits of an HMAC-SHA256."""
    return PREFIX + hmac.new(key.encode(), user_id.encode(), hashlib.sha256).hexdigest()[:_DIGITS]


def pseudonymize(stage: Database, pseudonyms: Mapping[str, str], options: LoadOptions) -> None:
    """Take out of the stage tables what the options say, before anything is written.

    :param pseudonyms: of every user in the tables, by id; empty without ``hash_users``.
    :raises duckdb.Error: the work folder is full, or the memory limit is too small.
    """
    if options.hash_users:
        rows = arrow_rows(({"id": each, "pseudonym": hashed} for each, hashed in pseudonyms.items()), _PSEUDONYMS)
        with stage.registered("pseudonym_rows", rows):
            stage.execute("CREATE OR REPLACE TEMP TABLE pseudonyms AS FROM pseudonym_rows")
    for table in TABLES:
        replacements = [f"{value} AS {sql.name(name)}" for name, value in dict(_replacements(table, options)).items()]
        if replacements:
            stage.execute(
                f"""
                CREATE OR REPLACE TABLE stage_{table.name} AS
                SELECT * {_exclude_authors(table)} REPLACE ({", ".join(replacements)})
                FROM (SELECT * {_authors(table)} FROM stage_{table.name}) rows
                """
            )


def _authors(table: Table) -> str:
    """Return the authors in message ids as further columns, so that each is computed once."""
    return "".join(
        f", {message_ids.author(sql.name(column.name))} AS {_author_of(column)}"
        for column in columns(table, PersonalData.MESSAGE_ID)
    )


def _exclude_authors(table: Table) -> str:
    names = ", ".join(map(_author_of, columns(table, PersonalData.MESSAGE_ID)))
    return f"EXCLUDE ({names})" if names else ""


def _author_of(column: Column) -> str:
    return sql.name(f"_author_of_{column.name}")


def _replacements(table: Table, options: LoadOptions) -> Iterator[tuple[str, str]]:
    """Yield the columns that change, each with its new value. A later value of a column replaces an earlier one."""
    if options.hash_users:
        yield from _hashed_ids(table)
        for column in columns(table, PersonalData.PROFILE):
            yield column.name, f"NULL::{column.kind.value}"
    if options.drop_text:
        for column in columns(table, PersonalData.CONTENT):
            yield column.name, f"NULL::{column.kind.value}"
    # Such a column goes with either option: it may hold a whole user as well as what a person wrote.
    for column in columns(table, *_EITHER):
        yield column.name, _empty(column)


def _hashed_ids(table: Table) -> Iterator[tuple[str, str]]:
    for column in columns(table, PersonalData.USER_ID):
        yield column.name, f"(SELECT pseudonym FROM pseudonyms p WHERE p.id = rows.{sql.name(column.name)})"
    for column in columns(table, PersonalData.USER_IDS):
        ids = f"rows.{sql.name(column.name)}"
        # A list aggregate over no rows is null. An empty list says something else, such as that no one is mentioned.
        yield (
            column.name,
            f"""
            CASE WHEN len({ids}) > 0 THEN (
                SELECT list(pseudonym ORDER BY place)
                FROM unnest({ids}) WITH ORDINALITY AS of_list(id, place)
                JOIN pseudonyms USING (id)
            ) ELSE {ids} END
            """,
        )
    for column in columns(table, PersonalData.MESSAGE_ID):
        message_id, author = f"rows.{sql.name(column.name)}", f"rows.{_author_of(column)}"
        hashed = f"(SELECT pseudonym FROM pseudonyms p WHERE p.id = {author})"
        yield column.name, f"coalesce({hashed} || {message_ids.random_part(message_id, author)}, {message_id})"
    for column in columns(table, PersonalData.MESSAGE_IDS):
        ids = f"rows.{sql.name(column.name)}"
        yield (
            column.name,
            f"""
            CASE WHEN len({ids}) > 0 THEN (
                SELECT list(
                    coalesce(pseudonym || {message_ids.random_part("of_list.id", "p.id")}, of_list.id) ORDER BY place
                )
                FROM unnest({ids}) WITH ORDINALITY AS of_list(id, place)
                LEFT JOIN pseudonyms p ON p.id = {message_ids.author("of_list.id")}
            ) ELSE {ids} END
            """,
        )


def _empty(column: Column) -> str:
    if column.personal is PersonalData.RAW_LINE:
        return "''"
    if column.personal is PersonalData.WHOLE_OBJECT or column.name == CUSTOM.name:
        return "'{}'::JSON"
    return f"NULL::{column.kind.value}"

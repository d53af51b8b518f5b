"""A table without some people, as a query: their own rows go, and they are taken out of the rows that stay.

It works on the files of a lake and on the stage tables of a load. These rows of a person go: memberships, reads,
reactions, their profile, and their messages, also those in the export of another user. With ``keep_messages``, their
messages stay without author and text. From the rows of others, their id goes out of lists, and their id and names go
out of texts and JSON, where a whole user may stand in the middle of a poll.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import duckdb
import pyarrow as pa

from airflow_provider_chatexport.lake.privacy import message_ids
from airflow_provider_chatexport.lake.privacy.columns import columns
from airflow_provider_chatexport.lake.privacy.people import Person, id_conditions, is_among
from airflow_provider_chatexport.lake.privacy.text_redactor import BLANK, TextRedactor
from airflow_provider_chatexport.lake.schema import sql
from airflow_provider_chatexport.lake.schema.tables import (
    ATTACHMENTS,
    CUSTOM,
    MEMBERS,
    MESSAGES,
    REACTIONS,
    READS,
    USER_EXPORT_MESSAGES,
    USER_EXPORT_REACTIONS,
    USERS,
)
from airflow_provider_chatexport.lake.schema.types import Column, Kind, PersonalData, Table

# Planning the queries takes as long for many people as for one, but every text is searched for all of their words.
_AT_ONCE: Final = 50
# The column that says whose row it is, in tables whose rows belong to one person.
_OWNER: Final = {
    REACTIONS.name: "user_id",
    MEMBERS.name: "user_id",
    READS.name: "user_id",
    USERS.name: "id",
    USER_EXPORT_REACTIONS.name: "user_id",
}
_OF_MESSAGES: Final = (MESSAGES, USER_EXPORT_MESSAGES)
# What people wrote, and JSON in which anyone may be.
_TEXTS: Final = (
    PersonalData.CONTENT,
    PersonalData.JSON,
    PersonalData.JSON_BY_USER_ID,
    PersonalData.WHOLE_OBJECT,
    PersonalData.RAW_LINE,
)
_REDACTED_TEXTS: Final = pa.schema([("original", pa.string()), ("redacted", pa.string())])


def in_parts(people: Sequence[Person]) -> Iterator[Sequence[Person]]:
    """Yield as many people at a time as are best searched for together."""
    return (people[start : start + _AT_ONCE] for start in range(0, len(people), _AT_ONCE))


@dataclass(frozen=True, slots=True, kw_only=True)
class RedactionCounts:
    """How many rows of a relation go, and how many stay without the people; true if there are any."""

    removed: int
    blanked: int

    def __bool__(self) -> bool:
        return bool(self.removed or self.blanked)


class Redactor:
    """Finds people in relations, and makes queries without them. Every method raises ``duckdb.Error``.

    :param relations: relations with the rows of tables, by the table's name: which messages the people wrote is read
        from them.
    """

    def __init__(self, con: duckdb.DuckDBPyConnection, people: Sequence[Person], relations: Mapping[str, str]) -> None:
        self._con = con
        self.people = people
        # SQL literals: the ids of all, and of those whose messages go.
        known = [(sql.quoted(each.user_id), each.keep_messages) for each in people if each.user_id is not None]
        self._ids = [user_id for user_id, _ in known]
        self._ids_gone = [user_id for user_id, keep in known if not keep]
        self._list = f"[{', '.join(self._ids)}]::VARCHAR[]"
        self._text_redactor = TextRedactor(people)
        self._redacted_columns: set[str] = set()
        con.execute("CREATE OR REPLACE TEMP TABLE their_messages (id VARCHAR, stays BOOLEAN)")
        for table in _OF_MESSAGES:
            if table.name in relations and self._ids:
                con.execute(
                    f"""
                    INSERT INTO their_messages
                    SELECT DISTINCT id, NOT coalesce({is_among("user_id", self._ids_gone)}, false)
                    FROM {relations[table.name]}
                    WHERE {is_among("user_id", self._ids)}
                    """
                )

    def search(self, table: Table, relation: str, among: Collection[str] | None = None) -> RedactionCounts:
        """Count what a relation with rows of a table holds of the people, and prepare ``query`` for it.

        :param among: columns of texts. The others do not name the people, as ``suspects`` has found.
        """
        self._redact_texts(table, relation, among)
        goes, names = self._goes(table), " OR ".join(each for _, each in self._names(table)) or "false"
        removed, blanked = self._con.execute(
            f"""
            SELECT count(*) FILTER ({goes}), count(*) FILTER (NOT coalesce({goes}, false) AND ({names}))
            FROM {relation} rows
            """
        ).fetchall()[0]
        return RedactionCounts(removed=int(removed), blanked=int(blanked))

    def suspects(self, table: Table, relation: str, file: str) -> dict[str, set[str]]:
        """Return the files that may name the people, each with the columns of texts that may do so.

        One query looks at all rows. It lets no file pass in which ``search`` finds something.

        :param relation: has rows of several files.
        :param file: its column that says which file a row is from.
        """
        texts = columns(table, *_TEXTS)
        goes = f"coalesce({self._goes(table)}, false)"
        names = " OR ".join([goes, *(each for _, each in id_conditions(table, self._ids))])
        either = [f"bool_or({names})"]
        either += [f"bool_or(NOT {goes} AND coalesce({self._mentions(column)}, false))" for column in texts]
        found = self._con.execute(f"SELECT {file}, {', '.join(either)} FROM {relation} rows GROUP BY {file}").fetchall()
        return {
            name: {column.name for column, is_suspect in zip(texts, in_texts, strict=True) if is_suspect}
            for name, is_named, *in_texts in found
            if is_named or any(in_texts)
        }

    def names_user(self, table: Table, relation: str) -> bool:
        """Return whether JSON in a relation names one of the people."""
        of_json = [column for column in columns(table, *_TEXTS) if column.kind is Kind.JSON]
        if not of_json:
            return False
        mentions = ", ".join(f"bool_or(coalesce({self._mentions(column)}, false))" for column in of_json)
        found = self._con.execute(f"SELECT {mentions} FROM {relation} rows").fetchall()[0]
        for column, is_suspect in zip(of_json, found, strict=True):
            redact = self._text_redactor.for_column(column)
            if is_suspect and any(redact(text) != text for text in self._texts(table, relation, column)):
                return True
        return False

    def places(self, table: Table, relation: str) -> dict[str | None, int]:
        """Return in how many rows each column names the people, right after a ``search``; by None, how many rows go."""
        goes, names = f"coalesce({self._goes(table)}, false)", [*self._names(table)]
        counts = [f"count(*) FILTER ({goes})", *(f"count(*) FILTER (NOT {goes} AND {each})" for _, each in names)]
        found = self._con.execute(f"SELECT {', '.join(counts)} FROM {relation} rows").fetchall()[0]
        columns_ = [None, *(column for column, _ in names)]
        return {column: int(n_rows) for column, n_rows in zip(columns_, found, strict=True) if n_rows}

    def query(self, table: Table, relation: str) -> str:
        """Return the query that gives a relation without the people, right after a ``search`` in it."""
        values = ", ".join(f"{value} AS {sql.name(name)}" for name, value in self._replacements(table))
        return f"""
            SELECT * {f"REPLACE ({values})" if values else ""}
            FROM {relation} rows
            WHERE NOT coalesce({self._goes(table)}, false)
        """

    def _goes(self, table: Table) -> str:
        """Return a condition: the row goes."""
        conditions = []
        if table.owned_by is not None:
            conditions.append(is_among(f"rows.{sql.name(table.owned_by)}", self._ids))
        if table.name in _OWNER:
            conditions.append(is_among(f"rows.{_OWNER[table.name]}", self._ids))
        if table in _OF_MESSAGES:
            conditions.append(is_among("rows.user_id", self._ids_gone))
        if table is REACTIONS and self._ids_gone:
            conditions.append("rows.message_id IN (SELECT id FROM their_messages WHERE NOT stays)")
        if table is ATTACHMENTS:
            conditions.append("rows.message_id IN (SELECT id FROM their_messages)")
        return f"({' OR '.join(conditions)})" if conditions else "false"

    def _names(self, table: Table) -> Iterator[tuple[str, str]]:
        """Yield columns, each with the condition that it names one of the people in a row that stays."""
        yield from id_conditions(table, self._ids)
        for name in sorted(self._redacted_columns):
            yield name, f"coalesce(rows.{sql.name(name)}::VARCHAR IN (SELECT original FROM redacted_texts), false)"

    def _redact_texts(self, table: Table, relation: str, among: Collection[str] | None) -> None:
        """Redact every text of the relation that mentions the people, into the table ``redacted_texts``.

        Such texts are few, so Python redacts them: it knows words and JSON.
        """
        redacted_texts: dict[str, str] = {}
        self._redacted_columns.clear()
        for column in columns(table, *_TEXTS):
            if among is not None and column.name not in among:
                continue
            redact = self._text_redactor.for_column(column)
            for original in self._texts(table, relation, column):
                if (redacted := redact(original)) != original:
                    redacted_texts[original] = redacted
                    self._redacted_columns.add(column.name)
        rows = pa.table(
            {"original": list(redacted_texts), "redacted": list(redacted_texts.values())}, schema=_REDACTED_TEXTS
        )
        self._con.register("redacted_text_rows", rows)
        self._con.execute("CREATE OR REPLACE TEMP TABLE redacted_texts AS FROM redacted_text_rows")
        self._con.unregister("redacted_text_rows")

    def _texts(self, table: Table, relation: str, column: Column) -> list[str]:
        """Return the values of a column, in rows that stay, that may name the people."""
        text = f"{_value(column)}::VARCHAR"
        found = self._con.execute(
            f"""
            SELECT DISTINCT {text}
            FROM {relation} rows
            WHERE {text} IS NOT NULL AND ({self._mentions(column)}) AND NOT coalesce({self._goes(table)}, false)
            """
        ).fetchall()
        return [text for (text,) in found]

    def _mentions(self, column: Column) -> str:
        """Return a condition: a value of a column of texts may name the people. It may be null where the value is."""
        text, words = f"{_value(column)}::VARCHAR", self._text_redactor.words
        is_raw = column.personal is PersonalData.RAW_LINE
        mentions = words.may_be_in_json(text) if is_raw or column.kind is Kind.JSON else words.may_be_in(text)
        return f"({mentions} OR rows.raw_encoding = 'base64')" if is_raw else mentions

    def _replacements(self, table: Table) -> Iterator[tuple[str, str]]:
        """Yield the columns in which a row that stays may name the people, each with its new value."""
        for column in columns(table, PersonalData.USER_ID):
            value = _value(column)
            yield column.name, f"CASE WHEN {is_among(value, self._ids)} THEN NULL ELSE {value} END"
        for column in columns(table, PersonalData.USER_IDS):
            is_other = f"lambda each: NOT list_contains({self._list}, each)"
            yield column.name, f"list_filter({_value(column)}, {is_other})"
        for column in columns(table, PersonalData.MESSAGE_ID) if self._ids else ():
            value = _value(column)
            blanked = f"{sql.quoted(BLANK)} || {message_ids.without_author(value)}"
            yield column.name, f"CASE WHEN {message_ids.is_by(value, self._ids)} THEN {blanked} ELSE {value} END"
        for column in columns(table, PersonalData.MESSAGE_IDS) if self._ids else ():
            blanked = f"{sql.quoted(BLANK)} || {message_ids.without_author('each')}"
            is_theirs = message_ids.is_by("each", self._ids)
            change = f"lambda each: CASE WHEN {is_theirs} THEN {blanked} ELSE each END"
            yield column.name, f"list_transform({_value(column)}, {change})"
        for column in columns(table, *_TEXTS):
            value = kept = _value(column)
            # Planning a subquery takes longer than reading the rows: only columns with redacted texts get one.
            if column.name in self._redacted_columns:
                redacted = f"(SELECT t.redacted FROM redacted_texts t WHERE t.original = {value}::VARCHAR)"
                kept = f"coalesce({redacted}, {value}::VARCHAR)::{column.kind.value}"
            if table in _OF_MESSAGES and self._ids:
                blank = "'{}'::JSON" if column.name == CUSTOM.name else f"NULL::{column.kind.value}"
                kept = f"CASE WHEN {is_among('rows.user_id', self._ids)} THEN {blank} ELSE {kept} END"
            if kept != value:
                yield column.name, kept


def _value(column: Column) -> str:
    return f"rows.{sql.name(column.name)}"

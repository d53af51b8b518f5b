"""A table without some people, as a query: their own rows go, and they are taken out of the rows that stay.

It works on the files of a lake and on the stage tables of a load. These rows of a person go: memberships, reads,
reactions, their profile, and their messages. With ``keep_messages``, their messages stay without author and text. From
the rows of others, their id goes out of lists, and their id and names go out of texts and JSON, where a whole user may
stand in the middle of a poll.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import duckdb
import pyarrow as pa

from airflow_provider_chatexport.lake.privacy import message_ids
from airflow_provider_chatexport.lake.privacy.columns import PersonalData, columns
from airflow_provider_chatexport.lake.privacy.people import Person, is_among
from airflow_provider_chatexport.lake.raw_json import (
    Fields,
    NotAnObjectError,
    id_of,
    is_object,
    items_of,
    joined,
    read_object,
)
from airflow_provider_chatexport.lake.schema import sql
from airflow_provider_chatexport.lake.schema.tables import ATTACHMENTS, MEMBERS, MESSAGES, REACTIONS, READS, USERS
from airflow_provider_chatexport.lake.schema.types import Column, Table

BLANK: Final = "[forgotten]"
# Planning the queries takes as long for many people as for one, but every text is searched for all of their words.
_AT_ONCE: Final = 50
# The column that says whose row it is, in tables whose rows belong to one person.
_OWNER: Final = {
    REACTIONS.name: "user_id",
    MEMBERS.name: "user_id",
    READS.name: "user_id",
    USERS.name: "id",
}
_REDACTED_TEXTS: Final = pa.schema([("original", pa.string()), ("redacted", pa.string())])


def in_parts(people: Mapping[str, bool]) -> Iterator[dict[str, bool]]:
    """Yield as many people at a time as are best searched for together."""
    entries = [*people.items()]
    return (dict(entries[start : start + _AT_ONCE]) for start in range(0, len(entries), _AT_ONCE))


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
        # SQL literals: the ids of all, and of those whose messages go.
        self._ids = [sql.quoted(person.user_id) for person in people]
        self._ids_gone = [sql.quoted(person.user_id) for person in people if not person.keep_messages]
        self._list = f"[{', '.join(self._ids)}]"
        self._text_redactor = TextRedactor(people)
        self._words = sql.quoted("|".join(re.escape(word) for person in people for word in person.words))
        self._redacted_columns: set[str] = set()
        con.execute("CREATE OR REPLACE TEMP TABLE their_messages (id VARCHAR, stays BOOLEAN)")
        if MESSAGES.name in relations:
            con.execute(
                f"""
                INSERT INTO their_messages
                SELECT DISTINCT id, NOT {is_among("user_id", self._ids_gone)}
                FROM {relations[MESSAGES.name]}
                WHERE {is_among("user_id", self._ids)}
                """
            )

    def search(self, table: Table, relation: str) -> RedactionCounts:
        """Count what a relation with rows of a table holds of the people, and prepare ``query`` for it."""
        self._redact_texts(table, relation)
        goes, names = self._goes(table), " OR ".join(self._names(table)) or "false"
        removed, blanked = self._con.execute(
            f"""
            SELECT count(*) FILTER ({goes}), count(*) FILTER (NOT coalesce({goes}, false) AND ({names}))
            FROM {relation} rows
            """
        ).fetchall()[0]
        return RedactionCounts(removed=int(removed), blanked=int(blanked))

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
        if table.owned_by is not None:
            return is_among(f"rows.{sql.name(table.owned_by)}", self._ids)
        if table.name in _OWNER:
            own = is_among(f"rows.{_OWNER[table.name]}", self._ids)
            if table is REACTIONS and self._ids_gone:
                own = f"({own} OR rows.message_id IN (SELECT id FROM their_messages WHERE NOT stays))"
            return own
        if table is MESSAGES:
            return is_among("rows.user_id", self._ids_gone)
        if table is ATTACHMENTS:
            return "rows.message_id IN (SELECT id FROM their_messages)"
        return "false"

    def _names(self, table: Table) -> Iterator[str]:
        """Yield the conditions under which a row that stays names one of the people."""
        for column in columns(table, PersonalData.USER_ID):
            yield f"coalesce({is_among(_value(column), self._ids)}, false)"
        for column in columns(table, PersonalData.USER_IDS):
            yield f"coalesce(list_has_any({_value(column)}, {self._list}), false)"
        for column in columns(table, PersonalData.MESSAGE_ID):
            yield message_ids.is_by(_value(column), self._ids)
        for name in sorted(self._redacted_columns):
            yield f"rows.{sql.name(name)}::VARCHAR IN (SELECT original FROM redacted_texts)"

    def _redact_texts(self, table: Table, relation: str) -> None:
        """Redact every text of the relation that mentions the people, into the table ``redacted_texts``.

        Such texts are few, so Python redacts them: it knows words and JSON.
        """
        redacted_texts: dict[str, str] = {}
        self._redacted_columns.clear()
        for column in columns(table, PersonalData.CONTENT, PersonalData.FREE_FORM):
            text = f"{_value(column)}::VARCHAR"
            mentions = f"regexp_matches({text}, {self._words}, 'i')"
            if column.name == "raw":
                mentions += " OR rows.raw_encoding = 'base64'"
            originals = self._con.execute(
                f"""
                SELECT DISTINCT {text}
                FROM {relation} rows
                WHERE {text} IS NOT NULL AND ({mentions}) AND NOT coalesce({self._goes(table)}, false)
                """
            ).fetchall()
            redact = self._text_redactor.for_column(column)
            for (original,) in originals:
                if (redacted := redact(original)) != original:
                    redacted_texts[original] = redacted
                    self._redacted_columns.add(column.name)
        rows = pa.table(
            {"original": list(redacted_texts), "redacted": list(redacted_texts.values())}, schema=_REDACTED_TEXTS
        )
        self._con.register("redacted_text_rows", rows)
        self._con.execute("CREATE OR REPLACE TEMP TABLE redacted_texts AS FROM redacted_text_rows")
        self._con.unregister("redacted_text_rows")

    def _replacements(self, table: Table) -> Iterator[tuple[str, str]]:
        """Yield the columns in which a row that stays may name the people, each with its new value."""
        for column in columns(table, PersonalData.USER_ID):
            value = _value(column)
            yield column.name, f"CASE WHEN {is_among(value, self._ids)} THEN NULL ELSE {value} END"
        for column in columns(table, PersonalData.USER_IDS):
            is_other = f"lambda each: NOT list_contains({self._list}, each)"
            yield column.name, f"list_filter({_value(column)}, {is_other})"
        for column in columns(table, PersonalData.MESSAGE_ID):
            value = _value(column)
            blanked = f"{sql.quoted(BLANK)} || {message_ids.without_author(value)}"
            yield column.name, f"CASE WHEN {message_ids.is_by(value, self._ids)} THEN {blanked} ELSE {value} END"
        for column in columns(table, PersonalData.CONTENT, PersonalData.FREE_FORM):
            value = kept = _value(column)
            # Planning a subquery takes longer than reading the rows: only columns with redacted texts get one.
            if column.name in self._redacted_columns:
                redacted = f"(SELECT t.redacted FROM redacted_texts t WHERE t.original = {value}::VARCHAR)"
                kept = f"coalesce({redacted}, {value}::VARCHAR)::{column.kind.value}"
            if table is MESSAGES:
                blank = "'{}'::JSON" if column.name == "custom" else f"NULL::{column.kind.value}"
                kept = f"CASE WHEN {is_among('rows.user_id', self._ids)} THEN {blank} ELSE {kept} END"
            if kept != value:
                yield column.name, kept


def _value(column: Column) -> str:
    return f"rows.{sql.name(column.name)}"


# Scripts that put no space between words: Thai to Lao, Myanmar, Khmer, kana and Han.
_UNSPACED: Final = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")


def _words_pattern(words: Iterable[str]) -> str:
    """Return a pattern that finds these words, the longest first.

    In a script with spaces, it does not find a word inside a longer one. A message id may follow its author's id.
    """
    longest_first = sorted(words, key=len, reverse=True)
    spaced = "|".join(re.escape(word) for word in longest_first if not _UNSPACED.search(word))
    unspaced = [re.escape(word) for word in longest_first if _UNSPACED.search(word)]
    # The look-behind comes first: where no word can start, none is tried.
    alone = [rf"(?<![\w-])(?:{spaced})(?=(?:{message_ids.RANDOM_PART})?(?![\w-]))"] if spaced else []
    return "|".join(alone + unspaced)


class TextRedactor:
    """Takes people out of texts: words that name them, and whole JSON objects that are about them."""

    def __init__(self, people: Sequence[Person]) -> None:
        self._ids = frozenset(person.user_id for person in people)
        words = {word for person in people for word in person.words}
        self._words = re.compile(_words_pattern(words), re.IGNORECASE)

    def for_column(self, column: Column) -> Callable[[str], str]:
        """Return the method that redacts the values of a column."""
        match column.name:
            case "raw":
                return self.raw_line
            case "data":
                return self.whole_object
            case _:
                return self.text

    def text(self, text: str) -> str:
        """Return what people wrote, or JSON, without the people."""
        if text[:1] in ("{", "["):
            try:
                return self._value(text.encode()).decode()
            except (NotAnObjectError, ValueError):
                pass
        return self._words.sub(BLANK, text)

    def whole_object(self, text: str) -> str:
        """Return an object of an unknown entity as it is, or nothing of it: all of it may be about them."""
        return '{"forgotten":true}' if self._words.search(text) else text

    def raw_line(self, text: str) -> str:
        """Return a rejected line as it is, or nothing of it. In base64, no word can be seen."""
        try:
            decoded = base64.b64decode(text, validate=True).decode("utf-8", "replace")
        except ValueError:
            decoded = ""
        return "" if self._words.search(text) or self._words.search(decoded) else text

    def _value(self, raw: bytes) -> bytes:
        """Return a JSON value without the people. Numbers and everything else of others keep their bytes."""
        raw = raw.strip()
        if is_object(raw):
            _, fields = read_object(raw)
            if self._is_theirs(fields):
                return b'{"id":%b}' % json.dumps(BLANK).encode()
            others = {key: value for key, value in fields.items() if key not in self._ids}
            return joined({self._words.sub(BLANK, key): self._value(value) for key, value in others.items()})
        if raw[:1] == b"[":
            return b"[" + b",".join(self._value(item) for item in items_of(raw)) + b"]"
        if raw[:1] == b'"':
            text = json.loads(raw)
            redacted = self._words.sub(BLANK, text)
            return raw if redacted == text else json.dumps(redacted, ensure_ascii=False).encode()
        return raw

    def _is_theirs(self, fields: Fields) -> bool:
        """Return whether an object is one of the people, or says that it is of one: a vote, or a quoted message."""
        user = fields.get("user", b"null")
        of_user = id_of(read_object(user)[1], "id") if is_object(user) else id_of(fields, "user")
        return not self._ids.isdisjoint((id_of(fields, "id"), id_of(fields, "user_id"), of_user))

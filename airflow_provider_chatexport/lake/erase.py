"""A table without a person, as a query: whose rows go, what is blanked in those that stay.

The same for the files of a lake and for the stage tables of a load. Rows of the person go: memberships, reads,
reactions, their own description, their messages or at least who wrote them and what. From the rows of others their id
goes out of lists, and their id and names out of texts and JSON, where a whole user may stand in the middle of a poll.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import duckdb
import pyarrow as pa

from airflow_provider_chatexport.lake import message_ids, schema, sql
from airflow_provider_chatexport.lake.personal import Personal, columns
from airflow_provider_chatexport.lake.rawjson import (
    Fields,
    NotAnObjectError,
    is_object,
    items_of,
    joined,
    read_object,
    text_of,
)
from airflow_provider_chatexport.lake.table import Table

BLANK: Final = "[forgotten]"
_OWN_ROWS: Final = {
    schema.REACTIONS.name: "user_id",
    schema.MEMBERS.name: "user_id",
    schema.READS.name: "user_id",
    schema.USERS.name: "id",
}


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Touch:
    """Rows of a relation that go because they are the person's, and rows that stay without them."""

    removed: int
    blanked: int

    def __bool__(self) -> bool:
        return bool(self.removed or self.blanked)


class Eraser:
    """:param con: a connection with a table ``their_messages`` (``id``): those that the person wrote."""

    def __init__(self, con: duckdb.DuckDBPyConnection, person: Person) -> None:
        self._con = con
        self._person = person
        self._id = sql.quoted(person.user_id)
        self._scrub = Scrubber(person)
        self._scrubbed_columns: set[str] = set()

    def look(self, table: Table, relation: str) -> Touch:
        """What a relation holds of the person. ``query`` is about the relation that was looked at last.

        :raises duckdb.Error: it cannot be read.
        """
        self._learn(table, relation)
        goes, stays = self._goes(table), " OR ".join(self._hits(table)) or "false"
        removed, blanked = self._con.execute(
            f"SELECT count(*) FILTER ({goes}), count(*) FILTER (NOT coalesce({goes}, false) AND ({stays})) "
            f"FROM {relation} rows"
        ).fetchall()[0]
        return Touch(removed=int(removed), blanked=int(blanked))

    def query(self, table: Table, relation: str) -> str:
        """The relation without the person, after a look at it."""
        replaced = dict(self._replaced(table))
        replacing = ", ".join(f"{value} AS {sql.name(name)}" for name, value in replaced.items())
        what = f"* REPLACE ({replacing})" if replaced else "*"
        return f"SELECT {what} FROM {relation} rows WHERE NOT coalesce({self._goes(table)}, false)"

    def _goes(self, table: Table) -> str:
        if table.owned_by is not None:
            return f"rows.{sql.name(table.owned_by)} = {self._id}"
        if table.name in _OWN_ROWS:
            own = f"rows.{_OWN_ROWS[table.name]} = {self._id}"
            if table is schema.REACTIONS and not self._person.keep_messages:
                own = f"({own} OR rows.message_id IN (FROM their_messages))"
            return own
        if table is schema.MESSAGES:
            return "false" if self._person.keep_messages else f"rows.user_id = {self._id}"
        if table is schema.ATTACHMENTS:
            return "rows.message_id IN (FROM their_messages)"
        return "false"

    def _hits(self, table: Table) -> Iterator[str]:
        """Conditions under which a row that stays names the person."""
        for column in columns(table, Personal.USER_ID):
            yield f"coalesce(rows.{sql.name(column.name)} = {self._id}, false)"
        for column in columns(table, Personal.USER_IDS):
            yield f"coalesce(list_contains(rows.{sql.name(column.name)}, {self._id}), false)"
        for column in columns(table, Personal.MESSAGE_ID):
            yield message_ids.is_by(f"rows.{sql.name(column.name)}", self._id)
        for name in sorted(self._scrubbed_columns):
            yield f"rows.{sql.name(name)}::VARCHAR IN (SELECT told FROM scrubbed)"

    def _mentions(self, text: str) -> str:
        found = " OR ".join(f"contains(lower({text}), lower({sql.quoted(word)}))" for word in self._person.words)
        return f"coalesce({found}, false)"

    def _learn(self, table: Table, relation: str) -> None:
        """What becomes of each text that mentions the person. They are few, and Python knows words and JSON."""
        scrubbed: dict[str, str] = {}
        self._scrubbed_columns.clear()
        for column in columns(table, Personal.WRITTEN, Personal.MIXED):
            scrub = {"raw": self._scrub.raw_line, "data": self._scrub.whole_object}.get(column.name, self._scrub.text)
            text = f"rows.{sql.name(column.name)}::VARCHAR"
            hit = self._mentions(text) + (" OR rows.raw_encoding = 'base64'" if column.name == "raw" else "")
            for (told,) in self._con.execute(
                f"SELECT DISTINCT {text} FROM {relation} rows WHERE {text} IS NOT NULL AND ({hit}) "
                f"AND NOT coalesce({self._goes(table)}, false)"
            ).fetchall():
                if (left_over := scrub(told)) != told:
                    scrubbed[told] = left_over
                    self._scrubbed_columns.add(column.name)
        mapped = pa.table({"told": list(scrubbed), "left_over": list(scrubbed.values())}, _SCRUBBED)
        self._con.register("mapped", mapped)
        self._con.execute("CREATE OR REPLACE TEMP TABLE scrubbed AS FROM mapped")
        self._con.unregister("mapped")

    def _replaced(self, table: Table) -> Iterator[tuple[str, str]]:
        for column in columns(table, Personal.USER_ID):
            yield column.name, f"nullif(rows.{sql.name(column.name)}, {self._id})"
        for column in columns(table, Personal.USER_IDS):
            yield column.name, f"list_filter(rows.{sql.name(column.name)}, lambda each: each <> {self._id})"
        for column in columns(table, Personal.MESSAGE_ID):
            name = f"rows.{sql.name(column.name)}"
            blanked = f"{sql.quoted(BLANK)} || {message_ids.random_part(name, self._id)}"
            yield column.name, f"CASE WHEN {message_ids.is_by(name, self._id)} THEN {blanked} ELSE {name} END"
        for column in columns(table, Personal.WRITTEN, Personal.MIXED):
            name = kept = f"rows.{sql.name(column.name)}"
            # Planning a subquery for each column takes longer than the rows: only where something was found is one.
            if column.name in self._scrubbed_columns:
                left_over = f"(SELECT left_over FROM scrubbed s WHERE s.told = {name}::VARCHAR)"
                kept = f"coalesce({left_over}, {name}::VARCHAR)::{column.kind.value}"
            if table is schema.MESSAGES:
                blank = "'{}'::JSON" if column.name == "custom" else f"NULL::{column.kind.value}"
                kept = f"CASE WHEN rows.user_id = {self._id} THEN {blank} ELSE {kept} END"
            if kept != name:
                yield column.name, kept


# Scripts that put no space between words: Thai to Lao, Myanmar, Khmer, kana and Han.
_UNSPACED: Final = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")


def _as_word(word: str) -> str:
    """A pattern that finds a word, and not a longer one that it is part of, where its script tells words apart. A
    message's id may go on after its author's."""
    if _UNSPACED.search(word):
        return re.escape(word)
    return rf"(?<![\w-]){re.escape(word)}(?=(?:{message_ids.RANDOM_PART})?(?![\w-]))"


_SCRUBBED: Final = pa.schema([("told", pa.string()), ("left_over", pa.string())])


class Scrubber:
    """Takes a person out of a text: out of JSON whole objects that are them, and whole words that name them."""

    def __init__(self, person: Person) -> None:
        self._id = person.user_id
        words = sorted(person.words, key=len, reverse=True)
        self._words = re.compile("|".join(map(_as_word, words)), re.IGNORECASE)

    def text(self, text: str) -> str:
        """What people wrote, or JSON, without the person."""
        if text[:1] in ("{", "["):
            try:
                return self._value(text.encode()).decode()
            except (NotAnObjectError, ValueError):
                pass
        return self._words.sub(BLANK, text)

    def whole_object(self, text: str) -> str:
        """An object that was kept whole: all of it, or nothing, because all of it may be theirs."""
        return '{"forgotten":true}' if self._words.search(text) else text

    def raw_line(self, text: str) -> str:
        """A line that was kept as it stood, perhaps in base64, where no word can be seen."""
        try:
            inside = base64.b64decode(text, validate=True).decode("utf-8", "replace")
        except ValueError:
            inside = ""
        return "" if self._words.search(text) or self._words.search(inside) else text

    def _value(self, raw: bytes) -> bytes:
        """A JSON value without them; numbers and what else is not theirs stay as the bytes that they are."""
        raw = raw.strip()
        if is_object(raw):
            _, fields = read_object(raw)
            if self._is_theirs(fields):
                return b'{"id":%b}' % json.dumps(BLANK).encode()
            return joined(
                {self._words.sub(BLANK, key): self._value(value) for key, value in fields.items() if key != self._id}
            )
        if raw[:1] == b"[":
            return b"[" + b",".join(self._value(item) for item in items_of(raw)) + b"]"
        if raw[:1] == b'"':
            told = json.loads(raw)
            left_over = self._words.sub(BLANK, told)
            return raw if told == left_over else json.dumps(left_over, ensure_ascii=False).encode()
        return raw

    def _is_theirs(self, fields: Fields) -> bool:
        """An object that is the person, or that says to be of them: a vote, a message that a reminder holds."""
        user = fields.get("user", b"null")
        of_user = text_of(read_object(user)[1], "id") if is_object(user) else text_of(fields, "user")
        return self._id in (text_of(fields, "id"), text_of(fields, "user_id"), of_user)


def names_of(user_id: str, rows: Iterable[str | None]) -> tuple[str, ...]:
    """Display names that stand for a person; an id used as a name is in the list already."""
    return tuple(sorted({name for name in rows if name and name != user_id}))

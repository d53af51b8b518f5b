"""A table without some people, as a query: whose rows go, what is blanked in those that stay.

The same for the files of a lake and for the stage tables of a load. Rows of a person go: memberships, reads,
reactions, their own description, their messages or at least who wrote them and what. From the rows of others their id
goes out of lists, and their id and names out of texts and JSON, where a whole user may stand in the middle of a poll.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from airflow_provider_chatexport.lake.schema.types import Table

BLANK: Final = "[forgotten]"
# Planning the queries takes as long for many people as for one; what is looked for in each text should stay short.
_AT_ONCE: Final = 50
_OWN_ROWS: Final = {
    REACTIONS.name: "user_id",
    MEMBERS.name: "user_id",
    READS.name: "user_id",
    USERS.name: "id",
}


def in_parts(people: Mapping[str, bool]) -> Iterator[dict[str, bool]]:
    """As many at a time as are best looked for together."""
    listed = [*people.items()]
    return (dict(listed[at : at + _AT_ONCE]) for at in range(0, len(listed), _AT_ONCE))


@dataclass(frozen=True, slots=True, kw_only=True)
class RedactionCounts:
    """Rows of a relation that go because they are somebody's, and rows that stay without them."""

    removed: int
    blanked: int

    def __bool__(self) -> bool:
        return bool(self.removed or self.blanked)


class Redactor:
    """:param relations: by the table's name, what has its rows: there it is learnt which messages they wrote.
    :raises duckdb.Error: they cannot be read. So do the methods.
    """

    def __init__(self, con: duckdb.DuckDBPyConnection, people: Sequence[Person], relations: Mapping[str, str]) -> None:
        self._con = con
        # As SQL writes them: all, and those whose messages go as well.
        self._quoted = [sql.quoted(person.user_id) for person in people]
        self._gone = [sql.quoted(person.user_id) for person in people if not person.keep_messages]
        self._listed = f"[{', '.join(self._quoted)}]"
        self._scrub = TextRedactor(people)
        self._words = sql.quoted("|".join(re.escape(word) for person in people for word in person.words))
        self._scrubbed_columns: set[str] = set()
        con.execute("CREATE OR REPLACE TEMP TABLE their_messages (id VARCHAR, stays BOOLEAN)")
        if MESSAGES.name in relations:
            con.execute(
                f"INSERT INTO their_messages SELECT DISTINCT id, NOT {is_among('user_id', self._gone)} "
                f"FROM {relations[MESSAGES.name]} WHERE {is_among('user_id', self._quoted)}"
            )

    def look(self, table: Table, relation: str) -> RedactionCounts:
        """What a relation holds of them. ``query`` is about the relation that was looked at last."""
        self._learn(table, relation)
        goes, stays = self._goes(table), " OR ".join(self._hits(table)) or "false"
        removed, blanked = self._con.execute(
            f"SELECT count(*) FILTER ({goes}), count(*) FILTER (NOT coalesce({goes}, false) AND ({stays})) "
            f"FROM {relation} rows"
        ).fetchall()[0]
        return RedactionCounts(removed=int(removed), blanked=int(blanked))

    def query(self, table: Table, relation: str) -> str:
        """The relation without them, after a look at it."""
        replaced = dict(self._replaced(table))
        replacing = ", ".join(f"{value} AS {sql.name(name)}" for name, value in replaced.items())
        what = f"* REPLACE ({replacing})" if replaced else "*"
        return f"SELECT {what} FROM {relation} rows WHERE NOT coalesce({self._goes(table)}, false)"

    def _goes(self, table: Table) -> str:
        if table.owned_by is not None:
            return is_among(f"rows.{sql.name(table.owned_by)}", self._quoted)
        if table.name in _OWN_ROWS:
            own = is_among(f"rows.{_OWN_ROWS[table.name]}", self._quoted)
            if table is REACTIONS and self._gone:
                own = f"({own} OR rows.message_id IN (SELECT id FROM their_messages WHERE NOT stays))"
            return own
        if table is MESSAGES:
            return is_among("rows.user_id", self._gone)
        if table is ATTACHMENTS:
            return "rows.message_id IN (SELECT id FROM their_messages)"
        return "false"

    def _hits(self, table: Table) -> Iterator[str]:
        """Conditions under which a row that stays names one of them."""
        for column in columns(table, PersonalData.USER_ID):
            yield f"coalesce({is_among(f'rows.{sql.name(column.name)}', self._quoted)}, false)"
        for column in columns(table, PersonalData.USER_IDS):
            yield f"coalesce(list_has_any(rows.{sql.name(column.name)}, {self._listed}), false)"
        for column in columns(table, PersonalData.MESSAGE_ID):
            yield message_ids.is_by(f"rows.{sql.name(column.name)}", self._quoted)
        for name in sorted(self._scrubbed_columns):
            yield f"rows.{sql.name(name)}::VARCHAR IN (SELECT told FROM scrubbed)"

    def _learn(self, table: Table, relation: str) -> None:
        """What becomes of each text that mentions them. Such are few, and Python knows words and JSON."""
        scrubbed: dict[str, str] = {}
        self._scrubbed_columns.clear()
        for column in columns(table, PersonalData.CONTENT, PersonalData.FREE_FORM):
            scrub = {"raw": self._scrub.raw_line, "data": self._scrub.whole_object}.get(column.name, self._scrub.text)
            text = f"rows.{sql.name(column.name)}::VARCHAR"
            hit = f"regexp_matches({text}, {self._words}, 'i')"
            if column.name == "raw":
                hit += " OR rows.raw_encoding = 'base64'"
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
        for column in columns(table, PersonalData.USER_ID):
            name = f"rows.{sql.name(column.name)}"
            yield column.name, f"CASE WHEN {is_among(name, self._quoted)} THEN NULL ELSE {name} END"
        for column in columns(table, PersonalData.USER_IDS):
            others = f"lambda each: NOT list_contains({self._listed}, each)"
            yield column.name, f"list_filter(rows.{sql.name(column.name)}, {others})"
        for column in columns(table, PersonalData.MESSAGE_ID):
            name = f"rows.{sql.name(column.name)}"
            blanked = f"{sql.quoted(BLANK)} || {message_ids.without_author(name)}"
            by_them = message_ids.is_by(name, self._quoted)
            yield column.name, f"CASE WHEN {by_them} THEN {blanked} ELSE {name} END"
        for column in columns(table, PersonalData.CONTENT, PersonalData.FREE_FORM):
            name = kept = f"rows.{sql.name(column.name)}"
            # Planning a subquery for each column takes longer than the rows: only where something was found is one.
            if column.name in self._scrubbed_columns:
                left_over = f"(SELECT left_over FROM scrubbed s WHERE s.told = {name}::VARCHAR)"
                kept = f"coalesce({left_over}, {name}::VARCHAR)::{column.kind.value}"
            if table is MESSAGES:
                blank = "'{}'::JSON" if column.name == "custom" else f"NULL::{column.kind.value}"
                kept = f"CASE WHEN {is_among('rows.user_id', self._quoted)} THEN {blank} ELSE {kept} END"
            if kept != name:
                yield column.name, kept


# Scripts that put no space between words: Thai to Lao, Myanmar, Khmer, kana and Han.
_UNSPACED: Final = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")


def _as_words(words: Iterable[str]) -> str:
    """A pattern that finds words, the longest first, and none in a longer one that it is part of, where its script
    tells words apart. A message's id may go on after its author's."""
    longest_first = sorted(words, key=len, reverse=True)
    spaced = "|".join(re.escape(word) for word in longest_first if not _UNSPACED.search(word))
    unspaced = [re.escape(word) for word in longest_first if _UNSPACED.search(word)]
    # Where a word may begin is asked before all of them are tried.
    alone = [rf"(?<![\w-])(?:{spaced})(?=(?:{message_ids.RANDOM_PART})?(?![\w-]))"] if spaced else []
    return "|".join(alone + unspaced)


_SCRUBBED: Final = pa.schema([("told", pa.string()), ("left_over", pa.string())])


class TextRedactor:
    """Takes people out of a text: out of JSON whole objects that are them, and whole words that name them."""

    def __init__(self, people: Sequence[Person]) -> None:
        self._ids = frozenset(person.user_id for person in people)
        self._words = re.compile(_as_words({word for person in people for word in person.words}), re.IGNORECASE)

    def text(self, text: str) -> str:
        """What people wrote, or JSON, without them."""
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
            others = {key: value for key, value in fields.items() if key not in self._ids}
            return joined({self._words.sub(BLANK, key): self._value(value) for key, value in others.items()})
        if raw[:1] == b"[":
            return b"[" + b",".join(self._value(item) for item in items_of(raw)) + b"]"
        if raw[:1] == b'"':
            told = json.loads(raw)
            left_over = self._words.sub(BLANK, told)
            return raw if told == left_over else json.dumps(left_over, ensure_ascii=False).encode()
        return raw

    def _is_theirs(self, fields: Fields) -> bool:
        """An object that is one of them, or says to be of one: a vote, a message that a reminder holds."""
        user = fields.get("user", b"null")
        of_user = id_of(read_object(user)[1], "id") if is_object(user) else id_of(fields, "user")
        return not self._ids.isdisjoint((id_of(fields, "id"), id_of(fields, "user_id"), of_user))

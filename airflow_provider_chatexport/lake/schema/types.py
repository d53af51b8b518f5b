"""Tables and columns of the registry, and short ways to define a column."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from airflow_provider_chatexport.core.entities import Entity
from airflow_provider_chatexport.core.times import EARLIEST, LATEST

EARLIEST_S: Final = int(EARLIEST.timestamp())
LATEST_S: Final = int(LATEST.timestamp())


class Kind(enum.Enum):
    """The kind of a column's values. The enum's value is the DuckDB type."""

    TEXT = "VARCHAR"
    TIME = "TIMESTAMP WITH TIME ZONE"
    BOOL = "BOOLEAN"
    INT = "BIGINT"
    JSON = "JSON"
    TEXTS = "VARCHAR[]"
    DATE = "DATE"
    FLOAT = "DOUBLE"


class Placement(enum.Enum):
    """What decides the day and the folder of a row, and which of two rows is visible."""

    EVENT = "event"  # the UTC day of the message; by the truth rule, coverage decides
    SNAPSHOT = "snapshot"  # the UTC day of the export; the newest row of a key is visible
    LOG = "log"  # the UTC day of the export; every row is visible


class PersonalData(enum.Enum):
    """What a column may contain about a person. It decides what pseudonyms and the removal of a person change."""

    NOTHING = "nothing"  # times, counts, flags, ids of things
    USER_ID = "user id"
    USER_IDS = "user ids"
    MESSAGE_ID = "message id"  # may start with the author's id
    MESSAGE_IDS = "message ids"
    PROFILE = "profile"  # a person's own description: picture, language, devices
    CONTENT = "content"  # written by people, for people
    JSON = "JSON"  # may contain whole users, and anything that people wrote
    JSON_BY_USER_ID = "JSON by user id"  # a JSON object whose keys are user ids
    WHOLE_OBJECT = "whole object"  # the JSON object of an entity without a table
    RAW_LINE = "raw line"  # a line that could not be read


_TEXTUAL: Final = (Kind.TEXT, Kind.TEXTS, Kind.JSON)


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column.

    In its SQL, ``d`` is the object as a STRUCT of the fields that the registry reads.

    :param field: the JSON key that the column is read from; None for a computed column.
    :param sql: an expression over ``d``, if reading the field and casting is not enough.
    :param alternatives: keys, each with an expression over ``d`` that reads nothing else. ``sql`` is the first of their
        values that is not null.
    :param reads: the JSON keys that ``sql`` reads, as JSON text.
    :param reads_text: the JSON keys that ``sql`` reads, as text.
    :param otherwise: SQL over the values of the row, for a field that is cast and has no value.
    :param fails_on: keys, each with a condition on ``d``: ``sql`` does not read what the key holds, and would lose it.
    :param once: ``sql`` is computed once for a row, as ``_NAME``, since other expressions need the value.
    :param nested: the field may be in ``custom`` instead.
    :param default: SQL for the rows that staging does not compute the column of; null by default.
    :param promoted: read from the key of this name in ``custom``, where it stays as well.
    :param added_in: the version of the schema that added the column; files of older versions do not have it.
    :param personal: what it may contain about a person. A column of text has to say it.
    :raises ValueError: a column of text does not say what it may contain about a person.
    """

    name: str
    kind: Kind
    doc: str
    field: str | None = None
    sql: str | None = None
    reads: tuple[str, ...] = ()
    reads_text: tuple[str, ...] = ()
    otherwise: str | None = None
    fails_on: tuple[tuple[str, str], ...] = ()
    alternatives: tuple[tuple[str, str], ...] = ()
    once: bool = False
    nested: bool = False
    promoted: bool = False
    default: str | None = None
    added_in: int = 1
    personal: PersonalData | None = None

    def __post_init__(self) -> None:
        # Without this, a new column would stay in the lake after the removal of a person, unnoticed.
        if self.personal is None and self.kind in _TEXTUAL:
            raise ValueError(f"the column {self.name} does not say what it may contain about a person (personal)")

    @property
    def is_read(self) -> bool:
        """Whether the column is read from the object, rather than computed."""
        return self.field is not None or self.sql is not None

    @property
    def keys(self) -> set[str]:
        """The JSON keys that the column is read from."""
        return {*([self.field] if self.field is not None else []), *self.reads, *self.reads_text}


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One table.

    :param key: the columns that identify a row within a load.
    :param sort: the order of rows in a file.
    :param bloom: columns with a bloom filter.
    :param plain_encoded: columns without a dictionary.
    :param entity: the entity whose objects become rows.
    :param staged: columns that only the stage has, as ``_NAME``: rows of other tables are made from them.
    :param ignored_keys: keys that are known and go into no column.
    :param nested_lists: keys whose lists become rows of other tables.
    :param user_paths: keys that hold a user, or paths (``key.path``) to a user inside an object.
    :param user_list_paths: keys that hold a list of users, or paths to such a list.
    :param day_column: the column with the moment of a row, in an event table.
    :param owned_by: the column with the user whose export a row comes from. All visible rows of one user come from the
        newest export of that user.
    """

    name: str
    doc: str
    placement: Placement
    columns: tuple[Column, ...]
    key: tuple[str, ...] = ()
    sort: tuple[str, ...] = ()
    bloom: tuple[str, ...] = ()
    plain_encoded: tuple[str, ...] = ("custom",)
    entity: Entity | None = None
    staged: tuple[Column, ...] = ()
    ignored_keys: tuple[str, ...] = ()
    nested_lists: tuple[str, ...] = ()
    user_paths: tuple[str, ...] = ()
    user_list_paths: tuple[str, ...] = ()
    day_column: str | None = None
    owned_by: str | None = None

    def __iter__(self) -> Iterator[Column]:
        return iter(self.columns)

    @property
    def date_column(self) -> str:
        """The column with the row's UTC day. It is the last column of every view."""
        return "event_date" if self.placement is Placement.EVENT else "export_date"

    @property
    def date_doc(self) -> str:
        """What that column is, for people."""
        return f"The UTC day of `{self.day_column or '_exported_at'}`."

    @property
    def folder_key(self) -> str:
        """The key of a folder's name: event tables have a folder per month, other tables per day of the export."""
        return "event_month" if self.placement is Placement.EVENT else "export_date"

    def folder_of(self, day: str) -> str:
        """Return the folder of a file, relative to the lake.

        :param day: such as ``2026-01-31``: the file's last. A file of an event table lies within one month.
        """
        return f"{self.name}/{self.folder_key}={day[:7] if self.placement is Placement.EVENT else day}"

    @property
    def fields(self) -> dict[str, str]:
        """The JSON keys that staging reads, with the type to read each as. Nested values are read as JSON text."""
        read: dict[str, str] = {}
        for column in (*self.columns, *self.staged):
            if column.field is not None:
                read[column.field] = "VARCHAR" if column.kind is not Kind.JSON else "JSON"
            read.update(dict.fromkeys(column.reads, "JSON"))
            read.update(dict.fromkeys(column.reads_text, "VARCHAR"))
        return read

    @property
    def known_keys(self) -> tuple[str, ...]:
        """The JSON keys that do not belong into ``custom``."""
        return (*self.fields, *(key for key in self.ignored_keys if key not in self.fields), "custom")


def first_of(alternatives: Iterable[tuple[str, str]]) -> str:
    """Return an expression: the first value that is not null."""
    values = ", ".join(value for _, value in alternatives)
    return f"coalesce({values})" if values else "NULL"


def text(name: str, doc: str, personal: PersonalData) -> Column:
    """Return a column of text."""
    # Go writes an id that is not set as an empty text, which would be equal to any other.
    value = f"nullif(d.{name}, '')" if name in ("id", "message_id") else None
    return Column(name=name, kind=Kind.TEXT, doc=doc, field=name, sql=value, personal=personal)


def reference(name: str, doc: str, personal: PersonalData) -> Column:
    """Return a column of the id of something else."""
    return Column(
        name=name,
        kind=Kind.TEXT,
        doc=doc,
        sql=id_in(name),
        reads=(name,),
        fails_on=((name, loses_id(name)),),
        personal=personal,
    )


def time(name: str, doc: str) -> Column:
    """Return a column of times."""
    return Column(name=name, kind=Kind.TIME, doc=doc, field=name)


def boolean(name: str, doc: str) -> Column:
    """Return a column of flags."""
    return Column(name=name, kind=Kind.BOOL, doc=doc, field=name)


def integer(name: str, doc: str, *, personal: PersonalData | None = None) -> Column:
    """Return a column of whole numbers."""
    return Column(name=name, kind=Kind.INT, doc=doc, field=name, personal=personal)


def json_text(name: str, doc: str, personal: PersonalData) -> Column:
    """Return a column of JSON values, each kept as it is."""
    return Column(name=name, kind=Kind.JSON, doc=doc, field=name, personal=personal)


def text_list(name: str, doc: str, personal: PersonalData, *, or_ids_in: str | None = None) -> Column:
    """Return a column of lists of text.

    :param or_ids_in: a field with a list of objects, which has a column of its own. The text is their ids if the list
        of text is absent or empty.
    """
    items = {name: f"json_extract_string(d.{name}, '$[*]')"}
    if or_ids_in is None:
        return _list(name, doc, items, personal)
    column = _list(name, doc, items | {or_ids_in: _IDS_IN.format(or_ids_in)}, personal)
    return replace(column, fails_on=column.fails_on[:1])


# An item is an object with an id, or the id itself. A list of objects has nothing else, as a rule: its ids are then
# found in one step, which is several times faster.
_IDS_IN: Final = """CASE
    WHEN starts_with(d.{0}::VARCHAR, '["') OR len(json_extract(d.{0}, '$[*].id')) < json_array_length(d.{0}) THEN
        list_transform(json_extract(d.{0}, '$[*]'), lambda item: CASE
            WHEN json_type(item) = 'OBJECT' THEN json_extract_string(item, '$.id')
            WHEN left(item::VARCHAR, 1) <= '9' THEN json_extract_string(item, '$') END)
    ELSE json_extract_string(d.{0}, '$[*].id')
END"""


def ids_of(name: str, field: str, doc: str, *, or_field: str | None = None) -> Column:
    """Return a column of the ids of the users in a list.

    :param field: holds the list, of objects or of their ids.
    :param or_field: holds the list of ids if that in ``field`` is absent or empty.
    """
    fields = (field,) if or_field is None else (field, or_field)
    return _list(name, doc, {each: _IDS_IN.format(each) for each in fields}, PersonalData.USER_IDS)


def _list(name: str, doc: str, items: dict[str, str], personal: PersonalData) -> Column:
    """Return a column of the texts in the first of some lists that has any.

    :param items: the items, by the field that holds the list. An item that is not text is null.
    """
    texts = {field: f"list_filter({of}, lambda item: item <> '')" for field, of in items.items()}
    # Most lists are empty, and an empty one is recognised by its length.
    has_some = {field: f"(strlen(d.{field}::VARCHAR) > 2 AND d.{field}::VARCHAR <> 'null')" for field in items}
    values = [(field, f"CASE WHEN {has_some[field]} THEN {texts[field]} END") for field in items]
    empty = [(field, f"CASE WHEN NOT {has_some[field]} THEN []::VARCHAR[] END") for field in items]
    alternatives = (*values, *empty)
    loses = {field: f"len({texts[field]}) < json_array_length(d.{field})" for field in items}
    first, *others = items
    for field in others:
        loses[field] += f" OR ({has_some[first]} AND NOT list_has_all({texts[first]}, {texts[field]}))"
    # AND computes both of its sides for every row, and CASE only what it needs.
    loses_some = {field: f"CASE WHEN {has_some[field]} THEN {condition} END" for field, condition in loses.items()}
    return Column(
        name=name,
        kind=Kind.TEXTS,
        doc=doc,
        sql=first_of(alternatives),
        alternatives=alternatives,
        reads=tuple(items),
        fails_on=tuple((field, f"({not_a_list(field)}) OR ({loses})") for field, loses in loses_some.items()),
        personal=personal,
    )


def not_a_list(field: str) -> str:
    """Return a condition on ``d``: a field holds something else than a list. Go writes an empty list as null."""
    return f"d.{field}::VARCHAR NOT LIKE '[%' AND {is_something(field)}"


def is_something(field: str) -> str:
    """Return a condition on ``d``: a field is there, and is not empty in any of Go's ways."""
    return f"d.{field}::VARCHAR NOT IN ('null', '{{}}', '[]', '\"\"')"


def id_of(name: str, field: str, doc: str, *, or_field: str | None = None) -> Column:
    """Return a column of the id of an embedded user.

    :param field: holds the object, or its id in the object's place.
    :param or_field: holds the id if ``field`` does not. Another id than that of ``field`` goes to ``custom``.
    """
    own_id = id_in(field)
    alternatives = [(field, own_id)]
    fails_on = [(field, loses_id(field))]
    if or_field is not None:
        differs = f"CASE WHEN d.{or_field} IS NOT NULL THEN ({own_id}) <> ({id_in(or_field)}) END"
        fails_on.append((or_field, f"({differs}) OR ({loses_id(or_field)})"))
        alternatives.append((or_field, id_in(or_field)))
    return Column(
        name=name,
        kind=Kind.TEXT,
        doc=doc,
        sql=first_of(alternatives),
        alternatives=tuple(alternatives),
        reads=(field,) if or_field is None else (field, or_field),
        fails_on=tuple(fails_on),
        personal=PersonalData.USER_ID,
    )


def channel_of(doc: str, *, own_type_and_id: bool = False) -> Column:
    """Return the column ``cid``: the channel that an object names, in any of the ways in which exports do.

    A channel in ``channel_cid``, ``channel_type`` or ``channel_id`` that is not that of ``cid`` goes to ``custom``.

    :param own_type_and_id: the object is a channel, and may have nothing but ``type`` and ``id``.
    """
    pairs = [("channel_type", "channel_id"), *([("type", "id")] if own_type_and_id else [])]
    joined = [f"nullif(d.{first}, '') || ':' || nullif(d.{second}, '')" for first, second in pairs]
    # The usual object names its channel once, so that there is nothing to compare.
    names_it_once = "d.cid IS NULL AND d.channel_cid IS NULL AND d.channel_type <> '' AND d.channel_id <> ''"
    parts = {
        "channel_cid": "_cid",
        "channel_type": "split_part(_cid, ':', 1)",
        "channel_id": "substr(_cid, strpos(_cid, ':') + 1)",
    }

    def differs(key: str, part: str) -> str:
        return f"CASE WHEN {names_it_once} THEN false ELSE d.{key} <> '' AND d.{key} <> {part} END"

    return Column(
        name="cid",
        kind=Kind.TEXT,
        doc=doc,
        field="cid",
        sql=f"coalesce(nullif(d.cid, ''), nullif(d.channel_cid, ''), {', '.join(joined)})",
        reads_text=tuple(parts),
        fails_on=tuple(
            (key, f"CASE WHEN d.{key} IS NOT NULL THEN {differs(key, part)} END") for key, part in parts.items()
        ),
        once=True,
        personal=PersonalData.NOTHING,
    )


# What an id is: a text that is not empty, or a number. Go writes an id that is not set as an empty text, which would be
# equal to any other. Nearly all values are texts, or objects that start with one: those are recognised without parsing.


def id_in(field: str) -> str:
    """Return an expression: the id in a field, which holds it or an object that has it; null if it has none."""
    value = f"d.{field}::VARCHAR"
    of_object = f"nullif(json_extract_string(d.{field}, '$.id'), '')"
    can_be_id = _can_be_id(f"json_extract(d.{field}, '$.id')")
    return f"""CASE
        WHEN starts_with({value}, '{{"id":"') THEN {of_object}
        WHEN starts_with({value}, '{{') THEN CASE WHEN {can_be_id} THEN {of_object} END
        WHEN {_can_be_id(f"d.{field}")} THEN nullif(json_extract_string(d.{field}, '$'), '')
    END"""


def _can_be_id(value: str) -> str:
    # Of the values of JSON, text and numbers come first in ASCII.
    return f"left({value}::VARCHAR, 1) <= '9'"


def loses_id(field: str) -> str:
    """Return a condition on ``d``: a field holds something, and ``id_in`` does not read it."""
    value = f"d.{field}::VARCHAR"
    return f"""CASE
        WHEN starts_with({value}, '{{"id":"') THEN starts_with({value}, '{{"id":""') AND ({id_in(field)}) IS NULL
        WHEN NOT starts_with({value}, '"') THEN {is_something(field)} AND ({id_in(field)}) IS NULL
    END"""


def link_end(fields: Iterable[str]) -> str:
    """Return an expression: when the first of some links ends, by the signature in its query; null if none says.

    ``Expires`` counts unix seconds. ``X-Amz-Date`` is the start, and ``X-Amz-Expires`` counts seconds from there.
    """
    ends = []
    for field in fields:
        link = f"d.{field}"
        seconds = rf"TRY_CAST(regexp_extract({link}, '[?&]Expires=(\d{{1,11}})(?:[&#]|$)', 1) AS BIGINT)"
        start = rf"regexp_extract({link}, '[?&]X-Amz-Date=(\d{{8}}T\d{{6}})Z', 1)"
        valid_s = rf"TRY_CAST(regexp_extract({link}, '[?&]X-Amz-Expires=(\d{{1,9}})(?:[&#]|$)', 1) AS BIGINT)"
        start_s = f"epoch(try_strptime({start}, '%Y%m%dT%H%M%S'))::BIGINT"
        # Most attachments are links without a signature.
        ends.append(f"CASE WHEN contains({link}, 'Expires=') THEN coalesce({seconds}, {start_s} + {valid_s}) END")
    end_s = f"least({', '.join(ends)})"
    return f"CASE WHEN {end_s} >= {EARLIEST_S} AND {end_s} < {LATEST_S} THEN make_timestamptz({end_s} * 1000000) END"


def computed(
    name: str, kind: Kind, doc: str, *, default: str | None = None, personal: PersonalData | None = None
) -> Column:
    """Return a column that is not read from the object."""
    return Column(name=name, kind=kind, doc=doc, default=default, personal=personal)

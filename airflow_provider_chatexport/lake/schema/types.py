"""What a table and a column of the registry are."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from airflow_provider_chatexport.core.entities import Entity


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

"""Tables and columns of the registry, and short ways to define a column."""

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
    """What decides the day folder of a row, and which of two rows is visible."""

    EVENT = "event_date"  # the UTC day of the message; by the truth rule, coverage decides
    SNAPSHOT = "export_date"  # the UTC day of the export; the newest row of a key is visible
    LOG = "log"  # the UTC day of the export; every row is visible


PARTITION_DOC: Final = "The UTC day of the row's folder."


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column.

    In its SQL, ``d`` is the object as a STRUCT of the fields that the registry reads.

    :param field: the JSON key that the column is read from; None for a computed column.
    :param sql: an expression over ``d``, if reading the field and casting is not enough.
    :param reads: the JSON keys that ``sql`` reads, as JSON text.
    :param fails_on: a condition on ``d``: ``sql`` cannot read what the first key of ``reads`` holds, and would lose it.
    :param nested: the field may be in ``custom`` instead.
    :param default: SQL for the rows of a computed column that staging does not compute.
    :param promoted: read from the key of this name in ``custom``, where it stays as well.
    """

    name: str
    kind: Kind
    doc: str
    field: str | None = None
    sql: str | None = None
    reads: tuple[str, ...] = ()
    fails_on: str | None = None
    nested: bool = False
    promoted: bool = False
    default: str | None = None

    @property
    def is_read(self) -> bool:
        """Whether the column is read from the object, rather than computed."""
        return self.field is not None or self.sql is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One table.

    :param key: the columns that identify a row within a load.
    :param sort: the order of rows in a file.
    :param bloom: columns with a bloom filter.
    :param plain_encoded: columns without a dictionary.
    :param entity: the entity whose objects become rows.
    :param ignored_keys: keys that are known and go into no column.
    :param nested_lists: keys whose lists become rows of other tables.
    :param user_paths: keys that hold a user, or paths (``key.path``) to a user inside an object.
    :param user_list_paths: keys that hold a list of users, or paths to such a list.
    :param day_column: the column whose UTC day is the row's day folder, in an event table.
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
    ignored_keys: tuple[str, ...] = ()
    nested_lists: tuple[str, ...] = ()
    user_paths: tuple[str, ...] = ()
    user_list_paths: tuple[str, ...] = ()
    day_column: str | None = None
    owned_by: str | None = None

    def __iter__(self) -> Iterator[Column]:
        return iter(self.columns)

    @property
    def partition(self) -> str:
        """The key of the day folder's name: ``event_date`` or ``export_date``."""
        return "event_date" if self.placement is Placement.EVENT else "export_date"

    @property
    def fields(self) -> dict[str, str]:
        """The JSON keys that staging reads, with the type to read each as. Nested values are read as JSON text."""
        read: dict[str, str] = {}
        for column in self.columns:
            if column.field is not None:
                read[column.field] = "VARCHAR" if column.kind is not Kind.JSON else "JSON"
            read.update(dict.fromkeys(column.reads, "JSON"))
        return read

    @property
    def known_keys(self) -> tuple[str, ...]:
        """The JSON keys that do not belong into ``custom``."""
        return (*self.fields, *(key for key in self.ignored_keys if key not in self.fields), "custom")


def text(name: str, doc: str, field: str | None = None) -> Column:
    """Return a column of text."""
    return Column(name=name, kind=Kind.TEXT, doc=doc, field=field or name)


def time(name: str, doc: str) -> Column:
    """Return a column of times."""
    return Column(name=name, kind=Kind.TIME, doc=doc, field=name)


def boolean(name: str, doc: str) -> Column:
    """Return a column of flags."""
    return Column(name=name, kind=Kind.BOOL, doc=doc, field=name)


def integer(name: str, doc: str) -> Column:
    """Return a column of whole numbers."""
    return Column(name=name, kind=Kind.INT, doc=doc, field=name)


def json_text(name: str, doc: str) -> Column:
    """Return a column of JSON values, each kept as it is."""
    return Column(name=name, kind=Kind.JSON, doc=doc, field=name)


def text_list(name: str, doc: str) -> Column:
    """Return a column of lists of text."""
    return _list(name, name, "$[*]", doc)


def ids_of(name: str, field: str, doc: str) -> Column:
    """Return a column of the ids in a list of objects."""
    return _list(name, field, "$[*].id", doc)


def _list(name: str, field: str, path: str, doc: str) -> Column:
    items = f"json_extract_string(d.{field}, '{path}')"
    texts = f"list_filter({items}, lambda item: item <> '')"
    # Most lists are empty, and an empty one is recognised by its length.
    has_some = f"strlen(d.{field}::VARCHAR) > 2"
    loses_some = f"{has_some} AND len({texts}) < json_array_length(d.{field})"
    return Column(
        name=name,
        kind=Kind.TEXTS,
        doc=doc,
        sql=f"CASE WHEN {has_some} THEN {texts} ELSE {items} END",
        reads=(field,),
        fails_on=f"({not_a_list(field)}) OR ({loses_some})",
    )


def not_a_list(field: str) -> str:
    """Return a condition on ``d``: a field holds something else than a list. Go writes an empty list as null."""
    return f"d.{field}::VARCHAR NOT LIKE '[%' AND {is_something(field)}"


def is_something(field: str) -> str:
    """Return a condition on ``d``: a field is there, and is not empty in any of Go's ways."""
    return f"d.{field}::VARCHAR NOT IN ('null', '{{}}', '[]', '\"\"')"


def id_of(name: str, field: str, doc: str, *, or_field: str | None = None) -> Column:
    """Return a column of the id of an embedded object.

    :param field: holds the object, or its id in the object's place.
    :param or_field: holds the id if ``field`` does not.
    """
    has_empty_id = f"""d.{field}::VARCHAR LIKE '{{"id":""%'"""
    ids = [
        f"CASE WHEN NOT ({has_empty_id}) THEN json_extract_string(d.{field}, '$.id') END",
        f"CASE WHEN json_type(d.{field}) = 'VARCHAR' THEN {non_empty_text(field)} END",
    ]
    if or_field:
        ids.append(non_empty_text(or_field))
    # The usual object starts with its id, and is recognised without parsing it.
    is_unusual = f"""d.{field}::VARCHAR NOT LIKE '{{"id":"%' OR {has_empty_id}"""
    return Column(
        name=name,
        kind=Kind.TEXT,
        doc=doc,
        sql=f"coalesce({', '.join(ids)})",
        reads=(field, or_field) if or_field else (field,),
        fails_on=f"({is_unusual}) AND {is_something(field)} AND coalesce({', '.join(ids[:2])}) IS NULL",
    )


def non_empty_text(field: str) -> str:
    """Return an expression: the field's value as text; null if it is empty."""
    return f"nullif(json_extract_string(d.{field}, '$'), '')"


def computed(name: str, kind: Kind, doc: str, *, default: str | None = None) -> Column:
    """Return a column that is not read from the object."""
    return Column(name=name, kind=kind, doc=doc, default=default)

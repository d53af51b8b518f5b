"""What a table and a column of the registry are, and short ways to write a column down."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from airflow_provider_chatexport.core.entities import Entity


class Kind(enum.Enum):
    """How a column's value is had from the JSON field of the same name. The value is its DuckDB type."""

    TEXT = "VARCHAR"
    TIME = "TIMESTAMP WITH TIME ZONE"
    BOOL = "BOOLEAN"
    INT = "BIGINT"
    JSON = "JSON"
    TEXTS = "VARCHAR[]"
    DATE = "DATE"
    FLOAT = "DOUBLE"


class Placement(enum.Enum):
    """What decides the day folder of a row, and which of two rows wins."""

    EVENT = "event_date"  # the UTC day of the message; the truth rule over coverage decides
    SNAPSHOT = "export_date"  # the UTC day of the export; the newest row of a key wins
    LOG = "log"  # the UTC day of the export; every row stands for itself


PARTITION_DOC: Final = "The day folder."


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column.

    :param field: the JSON key that it is read from; None for what the converter adds itself.
    :param sql: an expression over the object's fields ``d``, where reading the field and casting is not enough.
    :param reads: the JSON keys that ``sql`` reads, with JSON columns read as JSON text.
    :param fails_on: a condition on ``d``: what the first of ``reads`` holds is not what ``sql`` is made for, and would
        be lost.
    :param nested: the field may stand in ``custom`` instead.
    :param default: of a column that the converter adds itself, for the rows that it does not visit.
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
        """From the object, and not made by the converter."""
        return self.field is not None or self.sql is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One table. ``key`` names the columns that tell two rows of one load apart; ``sort`` the order inside a file.

    ``owned_by``: the column whose value says in whose export a row stands; all rows of one owner that are to be seen
    come from the newest export of that owner. ``drawn``: keys whose lists become rows of other tables. ``users``,
    ``user_list_paths``: keys that hold a user, or a list of them, or the paths (``key.path``) of such inside objects.
    ``ignored_keys``: keys that are known and go into no column. ``day_column``: the column whose UTC day is the row's
    day     folder. ``bloom``, ``plain_encoded``: columns with a bloom filter, and without a dictionary.
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
    drawn: tuple[str, ...] = ()
    user_paths: tuple[str, ...] = ()
    user_list_paths: tuple[str, ...] = ()
    day_column: str | None = None
    owned_by: str | None = None

    def __iter__(self) -> Iterator[Column]:
        return iter(self.columns)

    @property
    def partition(self) -> str:
        """The name of the day folder's key: ``event_date`` or ``export_date``."""
        return "event_date" if self.placement is Placement.EVENT else "export_date"

    @property
    def fields(self) -> dict[str, str]:
        """JSON keys that the converter reads, with the type to read them as. Nested values are read as JSON text."""
        read: dict[str, str] = {}
        for column in self.columns:
            if column.field is not None:
                read[column.field] = "VARCHAR" if column.kind is not Kind.JSON else "JSON"
            read.update(dict.fromkeys(column.reads, "JSON"))
        return read

    @property
    def known_keys(self) -> tuple[str, ...]:
        """JSON keys that do not belong into ``custom``."""
        return (*self.fields, *(key for key in self.ignored_keys if key not in self.fields), "custom")


def text(name: str, doc: str, field: str | None = None) -> Column:
    return Column(name=name, kind=Kind.TEXT, doc=doc, field=field or name)


def time(name: str, doc: str) -> Column:
    return Column(name=name, kind=Kind.TIME, doc=doc, field=name)


def boolean(name: str, doc: str) -> Column:
    return Column(name=name, kind=Kind.BOOL, doc=doc, field=name)


def integer(name: str, doc: str) -> Column:
    return Column(name=name, kind=Kind.INT, doc=doc, field=name)


def json_text(name: str, doc: str) -> Column:
    return Column(name=name, kind=Kind.JSON, doc=doc, field=name)


def text_list(name: str, doc: str) -> Column:
    return _list(name, name, "$[*]", doc)


def ids_of(name: str, field: str, doc: str) -> Column:
    return _list(name, field, "$[*].id", doc)


def _list(name: str, field: str, path: str, doc: str) -> Column:
    found = f"json_extract_string(d.{field}, '{path}')"
    ids = f"list_filter({found}, lambda item: item <> '')"
    # The usual list has nothing in it, which is told first.
    has_some = f"strlen(d.{field}::VARCHAR) > 2"
    lacks_some = f"{has_some} AND len({ids}) < json_array_length(d.{field})"
    return Column(
        name=name,
        kind=Kind.TEXTS,
        doc=doc,
        sql=f"CASE WHEN {has_some} THEN {ids} ELSE {found} END",
        reads=(field,),
        fails_on=f"({not_a_list(field)}) OR ({lacks_some})",
    )


def not_a_list(field: str) -> str:
    """A condition on ``d``. Go writes a list without items as null, and some maps stand for lists."""
    return f"d.{field}::VARCHAR NOT LIKE '[%' AND {is_something(field)}"


def is_something(field: str) -> str:
    """A condition on ``d``: a key is there, and not empty in any of Go's ways."""
    return f"d.{field}::VARCHAR NOT IN ('null', '{{}}', '[]', '\"\"')"


def id_of(name: str, field: str, doc: str, *, or_field: str | None = None) -> Column:
    """The id of an embedded object, or of what stands in its place as a plain id, or of the plain id beside it."""
    nobody = f"""d.{field}::VARCHAR LIKE '{{"id":""%'"""
    found = [
        f"CASE WHEN NOT ({nobody}) THEN json_extract_string(d.{field}, '$.id') END",
        f"CASE WHEN json_type(d.{field}) = 'VARCHAR' THEN {non_empty_text(field)} END",
    ]
    if or_field:
        found.append(non_empty_text(or_field))
    unusual = f"""d.{field}::VARCHAR NOT LIKE '{{"id":"%' OR {nobody}"""
    return Column(
        name=name,
        kind=Kind.TEXT,
        doc=doc,
        sql=f"coalesce({', '.join(found)})",
        reads=(field, or_field) if or_field else (field,),
        # The usual object begins with its id, which is told without looking into it.
        fails_on=f"({unusual}) AND {is_something(field)} AND coalesce({', '.join(found[:2])}) IS NULL",
    )


def non_empty_text(field: str) -> str:
    """A value that stands by itself, as text; an empty one tells nothing."""
    return f"nullif(json_extract_string(d.{field}, '$'), '')"


def computed(name: str, kind: Kind, doc: str, *, default: str | None = None) -> Column:
    return Column(name=name, kind=kind, doc=doc, default=default)

"""The registry, compared with the objects of the newest official Python SDK; and each column, through a conversion."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from export_objects import AT, CID, channel, convert_lines, line, member, message, reaction, read, user
from getstream import models

from airflow_provider_chatexport.lake.schema.tables import ATTACHMENTS, TABLE_BY_NAME, TABLES
from airflow_provider_chatexport.lake.schema.types import Column, Kind, Table

MODELS = {
    "messages": models.MessageResponse,
    "reactions": models.ReactionResponse,
    "attachments": models.Attachment,
    "channels": models.ChannelResponse,
    "members": models.ChannelMemberResponse,
    "reads": models.ReadStateResponse,
    "users": models.UserResponse,
}
# Fields of a model that the registry does not keep, with the reason.
NOT_KEPT = {
    ("messages", "latest_reactions"): "rows of reactions",
    ("messages", "own_reactions"): "always empty for a server",
    ("channels", "members"): "rows of members",
}
KINDS = {bool: Kind.BOOL, int: Kind.INT, datetime: Kind.TIME, str: Kind.TEXT, dict: Kind.JSON}


def of_model(table: str) -> dict[str, Any]:
    """Return the Python type of each field, without None."""
    hints = typing.get_type_hints(MODELS[table])
    return {
        field.name: next(
            (part for part in typing.get_args(hints[field.name]) if part is not types.NoneType), hints[field.name]
        )
        if typing.get_origin(hints[field.name]) in (typing.Union, types.UnionType)
        else hints[field.name]
        for field in dataclasses.fields(MODELS[table])
    }


@pytest.mark.parametrize("table", MODELS)
def test_every_field_of_the_service_has_its_place(table: str) -> None:
    """A field that is new in the service fails here, and then gets a column or a reason."""
    known = {*TABLE_BY_NAME[table].fields, "custom"}
    missing = {field for field in of_model(table) if field not in known and (table, field) not in NOT_KEPT}
    assert set() == missing
    ignored_keys = {field for of_table, field in NOT_KEPT if of_table == table}
    assert ignored_keys == set(TABLE_BY_NAME[table].ignored_keys)
    assert ignored_keys <= of_model(table).keys(), "a reason for a field that is gone"


@pytest.mark.parametrize("table", MODELS)
def test_every_field_has_the_type_that_the_service_gives_it(table: str) -> None:
    """A flag kept as text, or a time as a number, would mislead every query."""
    by_field = {column.field: column.kind for column in TABLE_BY_NAME[table] if column.field}
    types_of_model = {field: typing.get_origin(kind) or kind for field, kind in of_model(table).items()}
    expected = {field: KINDS[kind] for field, kind in types_of_model.items() if kind in KINDS and field in by_field}
    assert expected == {field: by_field[field] for field in expected}


def value_of(column: Column) -> tuple[Any, Any]:
    """Return a value for a column, as the service writes it and as the table has it."""
    match column.kind:
        case Kind.TEXT:
            return f"the {column.name}", f"the {column.name}"
        case Kind.TIME:
            return "2026-01-01T10:00:00.123456Z", datetime(2026, 1, 1, 10, 0, 0, 123_456, tzinfo=UTC)
        case Kind.BOOL:
            return True, True
        case Kind.INT:
            return 7, 7
        case _:
            return {"a": [1, {"b": None}]}, {"a": [1, {"b": None}]}


OBJECTS: dict[str, tuple[str, Any]] = {
    "messages": ("message", message()),
    "reactions": ("reaction", reaction()),
    "channels": ("channel", channel()),
    "members": ("member", member(cid=CID)),
    "reads": ("read", read(cid=CID)),
    "users": ("user", user()),
}


@pytest.mark.parametrize("table", [table for table in TABLES if table.name in OBJECTS], ids=lambda t: t.name)
def test_every_column_that_is_a_field_comes_out_as_it_went_in(table: Table, tmp_path: Path) -> None:
    """Every field is in this test: a new one does not have to be added."""
    name, fields = OBJECTS[table.name]
    plain = [column for column in table if column.field and column.field not in (*table.key, "cid", "created_at")]
    values = {column.field: value_of(column)[0] for column in plain}
    lines = [line("message", message())] if table.name == "reactions" else []
    converted = convert_lines(tmp_path, *lines, line(name, fields | values))
    row = next(row for row in converted.rows[table.name] if plain[0].name in row and row[plain[0].name] is not None)
    row_values = {
        column.name: json.loads(row[column.name]) if column.kind is Kind.JSON else row[column.name] for column in plain
    }
    assert {column.name: value_of(column)[1] for column in plain} == row_values
    assert ({}, "{}") == (converted.counts.cast_failures, row["custom"])


def test_an_attachment_keeps_every_field(tmp_path: Path) -> None:
    """Attachments have no lines of their own."""
    plain = [column for column in ATTACHMENTS if column.field]
    item = {column.field: value_of(column)[0] for column in plain}
    row = convert_lines(tmp_path, line("message", message(attachments=[item], updated_at=AT))).one("attachments")
    assert {column.name: value_of(column)[1] for column in plain} == {
        column.name: json.loads(row[column.name]) if column.kind is Kind.JSON else row[column.name] for column in plain
    }

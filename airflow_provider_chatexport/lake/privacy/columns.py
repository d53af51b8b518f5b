"""Choosing a table's columns by what they may contain about a person. The registry says that of each column."""

from __future__ import annotations

from airflow_provider_chatexport.lake.schema.types import Column, PersonalData, Table


def columns(table: Table, *kinds: PersonalData) -> list[Column]:
    """Return the table's columns of these kinds, without promoted ones: those are computed from ``custom``."""
    return [column for column in table if not column.promoted and column.personal in kinds]

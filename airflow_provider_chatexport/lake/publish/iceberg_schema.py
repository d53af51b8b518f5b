"""What a table of a lake is in Iceberg: its schema, its partitions, and its data files with what records say of them.

The data files have no field ids, so each Iceberg table has a name mapping, the property ``NAME_MAPPING``. A file of an
event table lies within one UTC month of the table's moment, and so within one partition of ``month(moment)``. Other
tables have no partitions.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from typing import Final

from pyiceberg.manifest import DataFile as IcebergFile
from pyiceberg.manifest import DataFileContent, FileFormat
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC, PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import MonthTransform
from pyiceberg.typedef import Record
from pyiceberg.types import (
    BooleanType,
    DateType,
    DoubleType,
    IcebergType,
    ListType,
    LongType,
    NestedField,
    StringType,
    TimestamptzType,
)

from airflow_provider_chatexport.core.times import EPOCH, parse_written
from airflow_provider_chatexport.lake.commits.record import DataFile
from airflow_provider_chatexport.lake.schema.types import Kind, Placement, Table

NAME_MAPPING: Final = "schema.name-mapping.default"
# Iceberg counts the fields of partitions from here.
_FIRST_PARTITION_FIELD: Final = 1000
_TYPES: Final[Mapping[Kind, IcebergType]] = {
    Kind.TEXT: StringType(),
    Kind.TIME: TimestamptzType(),
    Kind.BOOL: BooleanType(),
    Kind.INT: LongType(),
    Kind.JSON: StringType(),
    Kind.DATE: DateType(),
    Kind.FLOAT: DoubleType(),
}


def schema_of(table: Table) -> Schema:
    """Return a table's columns, with their descriptions. Those of event tables have the day of each row as well.

    The catalog that creates the table may give its fields other ids.
    """
    ids = itertools.count(1)
    fields = [
        NestedField(field_id=next(ids), name=name, field_type=_type(kind, ids), required=False, doc=doc)
        for name, kind, doc in columns_of(table)
    ]
    return Schema(*fields)


def columns_of(table: Table) -> Iterator[tuple[str, Kind, str]]:
    """Yield the name, kind and description of each column that the files of a table have."""
    for column in table:
        yield column.name, column.kind, f"{column.doc} As JSON text." if column.kind is Kind.JSON else column.doc
    if table.placement is Placement.EVENT:
        yield table.date_column, Kind.DATE, table.date_doc


def _type(kind: Kind, ids: Iterator[int]) -> IcebergType:
    if kind is Kind.TEXTS:
        return ListType(element_id=next(ids), element_type=StringType(), element_required=False)
    return _TYPES[kind]


def new_column_type(kind: Kind) -> IcebergType:
    """Return the type of a column that is added to a table. The table gives it its ids."""
    return _type(kind, itertools.count(1))


def partitions_of(table: Table, schema: Schema) -> PartitionSpec:
    """Return how a table is partitioned: by the UTC month of its moment, or not at all."""
    if table.placement is not Placement.EVENT or table.day_column is None:
        return UNPARTITIONED_PARTITION_SPEC
    return PartitionSpec(
        PartitionField(
            source_id=schema.find_field(table.day_column).field_id,
            field_id=_FIRST_PARTITION_FIELD,
            transform=MonthTransform(),
            name=f"{table.day_column}_month",
        )
    )


def listed_file(table: Table, file: DataFile, url: str, schema: Schema, spec: PartitionSpec) -> IcebergFile:
    """Return a data file as a table lists it, from its record alone: no footer is read.

    :param url: the address of its bytes.
    :param schema: of the Iceberg table, with the field ids that it gave.
    """
    fields = {field.name: field for field in schema.fields}
    days = [(table.date_column, file.first_day, file.last_day)] if table.placement is Placement.EVENT else []
    bounds = [(fields[name], least, greatest) for name, least, greatest in (*file.bounds, *days) if name in fields]
    listed = IcebergFile.from_args(
        content=DataFileContent.DATA,
        file_path=url,
        file_format=FileFormat.PARQUET,
        partition=Record() if spec.is_unpartitioned() else Record(_month_number(file.first_day)),
        record_count=file.rows,
        file_size_in_bytes=file.size_bytes,
        lower_bounds={field.field_id: _bound(field, least) for field, least, _ in bounds},
        upper_bounds={field.field_id: _bound(field, greatest) for field, _, greatest in bounds},
    )
    listed.spec_id = spec.spec_id
    return listed


def _month_number(day: str) -> int:
    """Return the month of a day as Iceberg counts it: months since January 1970, negative before.

    :param day: such as ``2026-01-31``.
    """
    return (int(day[:4]) - EPOCH.year) * 12 + int(day[5:7]) - 1


def _bound(field: NestedField, text: str) -> bytes:
    """Return a bound of a record as Iceberg writes it: microseconds or days since 1970, or the bytes of text."""
    match field.field_type:
        case TimestamptzType():
            return ((parse_written(text) - EPOCH) // timedelta(microseconds=1)).to_bytes(8, "little", signed=True)
        case DateType():
            return (date.fromisoformat(text) - EPOCH.date()).days.to_bytes(4, "little", signed=True)
        case _:
            return text.encode()

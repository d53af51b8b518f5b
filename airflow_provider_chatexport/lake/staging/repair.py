"""Objects that DuckDB refused, or that lack what a row needs: repaired and read again, or rejected with the reason."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from airflow_provider_chatexport.core.entities import Entity
from airflow_provider_chatexport.lake.duckdb_session import Database
from airflow_provider_chatexport.lake.normalize.entities import NormalizedObject
from airflow_provider_chatexport.lake.normalize.export_file import Line
from airflow_provider_chatexport.lake.normalize.output import (
    EntityFile,
    NormalizedFile,
    decode_line,
    encode_line,
    number_of,
)
from airflow_provider_chatexport.lake.normalize.rejects import Reject
from airflow_provider_chatexport.lake.normalize.shapes import missing_from, own_channel, with_cid
from airflow_provider_chatexport.lake.raw_json import NotAnObjectError, read_object
from airflow_provider_chatexport.lake.schema.types import Table

# Numbers of staged objects that are fetched at a time.
NUMBERS: Final = 100_000


def repair(obj: NormalizedObject, cid: str | None) -> NormalizedObject | Reject:
    """Return an object in a form that DuckDB's JSON reader takes, or the reason for a reject.

    :param cid: the channel that the object belongs to by its place in the file.
    """
    try:
        payload, fields = read_object(obj.data)
    except NotAnObjectError as error:
        return _reject(obj, str(error))
    channel = own_channel(fields) or (cid if obj.entity is not Entity.REACTION else None)
    if missing := missing_from(obj.entity, fields, channel):
        return _reject(obj, f"{obj.entity.value} without {missing}")
    data = with_cid(payload, fields, channel)
    return NormalizedObject(entity=obj.entity, line=obj.line, offset=obj.offset, data=data)


def repair_missing(
    database: Database, table: Table, number: int, file: EntityFile, normalized: NormalizedFile
) -> EntityFile | None:
    """Repair those objects of an entity file that are not staged, or reject them.

    :param number: of the export file.
    :param normalized: gets the rejects, and knows which channel an object belongs to by its place.
    :return: the repaired objects, to be read again; None if there are none.
    """
    path = file.path.with_suffix(".repaired")
    n_repaired = 0
    with path.open("wb") as repaired:
        for n, obj in _not_staged(database, table, number, file):
            outcome = (
                repair(obj, normalized.cid_before(n))
                if table.owned_by is None
                else _reject(obj, f"{file.entity.value} of none of the users exported")
            )
            if isinstance(outcome, Reject):
                normalized.rejects.append(outcome)
            else:
                n_repaired += 1
                repaired.write(encode_line(n, outcome))
    return replace(file, path=path, n_objects=n_repaired, keys=None) if n_repaired else None


def reject_missing(database: Database, table: Table, number: int, file: EntityFile, normalized: NormalizedFile) -> None:
    """Reject those repaired objects that are still not staged."""
    for _, obj in _not_staged(database, table, number, file):
        normalized.rejects.append(_reject(obj, f"{file.entity.value} with a key or a time that no row can hold"))


def _not_staged(
    database: Database, table: Table, number: int, file: EntityFile
) -> Iterator[tuple[int, NormalizedObject]]:
    """Yield the objects that are not rows, with their numbers. The file has them in that order."""
    rows = f"SELECT _n FROM stage_{table.name} WHERE _input = {number} ORDER BY _n"
    numbers = (n for batch in database.query(rows).to_arrow_reader(NUMBERS) for n in batch.column(0).to_pylist())
    staged = next(numbers, None)
    with file.path.open("rb") as lines:
        for raw in lines:
            n = number_of(raw)
            while staged is not None and staged < n:
                staged = next(numbers, None)
            if staged != n:
                yield n, decode_line(file.entity, raw)


def _reject(obj: NormalizedObject, reason: str) -> Reject:
    """Return a reject of an object, with its line as it stood if that is known."""
    raw = obj.data if obj.start is None else obj.start[:-1] + obj.data + b"}"
    return Reject(Line(obj.line, obj.offset, raw, len(raw)), reason)

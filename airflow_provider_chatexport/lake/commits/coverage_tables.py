"""Coverage entries as tables of DuckDB: one with the entries, and one with the channels of each set of channels.

Both together are small, however many channels an entry has. A query that compares rows with coverage reads
``per_channel``, which joins the two.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Final

import pyarrow as pa

from airflow_provider_chatexport.lake.commits.channels import ChannelSet
from airflow_provider_chatexport.lake.commits.coverage import CoverageEntry
from airflow_provider_chatexport.lake.duckdb_session import Database
from airflow_provider_chatexport.lake.schema.arrow import UTC_TIME, arrow_rows

# A coverage entry, with the number of its set of channels.
ENTRY_SCHEMA: Final = pa.schema(
    [
        ("set_number", pa.int64()),
        ("since", UTC_TIME),
        ("until", UTC_TIME),
        ("exported_at", UTC_TIME),
        ("load_id", pa.string()),
    ]
)
# A channel of a set.
SET_SCHEMA: Final = pa.schema([("set_number", pa.int64()), ("cid", pa.string())])


def entry_rows(entries: Iterable[CoverageEntry], sets: dict[ChannelSet, int]) -> pa.Table:
    """Return a row of ``ENTRY_SCHEMA`` for each coverage entry, without nulls.

    :param sets: the number of each set of channels; gets those that it lacks.
    """
    return arrow_rows(
        (
            {
                "set_number": sets.setdefault(entry.channels, len(sets)),
                "since": entry.since,
                "until": entry.until,
                "exported_at": entry.exported_at,
                "load_id": entry.load_id,
            }
            for entry in entries
        ),
        ENTRY_SCHEMA,
    )


def set_rows(sets: Mapping[ChannelSet, int], only: Collection[str] | None = None) -> pa.Table:
    """Return a row of ``SET_SCHEMA`` for each channel of each set.

    :param only: leave out all other channels.
    """
    return arrow_rows(
        (
            {"set_number": number, "cid": cid}
            for channels, number in sets.items()
            for cid in channels.names
            if only is None or cid in only
        ),
        SET_SCHEMA,
    )


def per_channel(entries: str, sets: str) -> str:
    """Return the query for a row for each channel of each entry: ``cid, since, until, exported_at, load_id``.

    :param entries: a relation of ``ENTRY_SCHEMA``.
    :param sets: a relation of ``SET_SCHEMA``.
    """
    # Qualified: in a macro, a name alone would be the macro's parameter of that name.
    return f"""
        SELECT sets.cid, entries.since, entries.until, entries.exported_at, entries.load_id
        FROM {entries} entries JOIN {sets} sets ON entries.set_number = sets.set_number
    """


def create_table(
    database: Database, name: str, entries: Iterable[CoverageEntry], *, only: Collection[str] | None = None
) -> None:
    """Create or replace a table with the columns of ``per_channel``.

    :param only: leave out all other channels.
    """
    sets: dict[ChannelSet, int] = {}
    rows = entry_rows(entries, sets)
    with database.registered("new_entries", rows), database.registered("new_sets", set_rows(sets, only)):
        database.execute(f"CREATE OR REPLACE TABLE {name} AS {per_channel('new_entries', 'new_sets')}")


@contextlib.contextmanager
def table(
    database: Database, name: str, entries: Iterable[CoverageEntry], *, only: Collection[str] | None = None
) -> Iterator[None]:
    """Hold a table of ``create_table`` while the context lasts."""
    create_table(database, name, entries, only=only)
    yield
    database.execute(f"DROP TABLE {name}")

"""The queries behind the views of tables: which files each reads, and what of them newer exports hide.

Where no exports overlap, a view is a list of files. If a newer export may hide some rows of a file, the view reads that
file, and only that one, through the truth rule as a filter.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

from airflow_provider_chatexport.lake.catalog import empty_files, metadata_views
from airflow_provider_chatexport.lake.catalog.metadata_views import internal_name
from airflow_provider_chatexport.lake.commits import visibility
from airflow_provider_chatexport.lake.commits.coverage import TimeSpan
from airflow_provider_chatexport.lake.commits.coverage_tables import per_channel
from airflow_provider_chatexport.lake.commits.file_state import FileState
from airflow_provider_chatexport.lake.commits.snapshot import Snapshot
from airflow_provider_chatexport.lake.schema import promoted, sql
from airflow_provider_chatexport.lake.schema.tables import USER_EXPORT_USERS
from airflow_provider_chatexport.lake.schema.types import Placement, Table
from airflow_provider_chatexport.lake.storage.store import LakeStore

# The table with the coverage entries that hide rows of live files.
MASKING_ENTRIES: Final = internal_name("masking_coverage")
_MASKING: Final = f"({per_channel(MASKING_ENTRIES, metadata_views.CHANNEL_SETS)})"

# So many files are read as one list. A condition on days makes a query of all days a third slower, and opening these
# files takes some 40 ms.
_MOST_TOGETHER: Final = 200
# Planning a group of files takes as long as opening so many.
_FILES_PER_GROUP: Final = 10


def visible_rows(store: LakeStore, table: Table, snapshot: Snapshot) -> str:
    """Return the query over a table's live files that leaves out what newer exports hide."""
    live = list(snapshot.live_files_of(table))
    if table.placement is Placement.EVENT:
        return _visible_events(store, table, live)
    parts = _read(store, table, live)
    newest = visibility.newest(table, _owners(store, snapshot) if table.owned_by else None)
    if newest and len(parts) > 1:
        return f"SELECT * FROM ({' UNION ALL '.join(parts)}) rows{newest}"
    return " UNION ALL ".join(parts) + newest


def _visible_events(store: LakeStore, table: Table, live: Sequence[FileState]) -> str:
    contested = [each for each in live if each.is_contested]
    parts = _read_unmasked(store, table, [each for each in live if not each.is_contested])
    if newest := visibility.newest_of_loose_keys(store, table, contested, _MASKING):
        rows = " UNION ALL ".join(_read_unmasked(store, table, contested))
        parts.append(visibility.unless_outdated(table, rows, f"({newest})"))
    return " UNION ALL ".join(parts or _read(store, table, []))


def _read_unmasked(store: LakeStore, table: Table, files: Sequence[FileState]) -> list[str]:
    """Return queries for the rows of an event table's files that coverage does not hide."""
    return [
        part + condition
        for of_kind, condition in visibility.by_mask(table, files, _MASKING)
        for part in _read(store, table, of_kind)
    ]


def _owners(store: LakeStore, snapshot: Snapshot) -> str:
    users = USER_EXPORT_USERS
    return _scan(store, users, list(snapshot.live_files_of(users)))


def versions(store: LakeStore, table: Table, snapshot: Snapshot) -> str:
    """Return the query over all rows of messages that can be read, whether newer exports hide them or not."""
    readable = snapshot.readable_files_of(table)
    rows = " UNION ALL ".join(_read(store, table, readable))
    if all(each.is_live for each in readable):
        return rows
    # A rewrite may have put one row both into a live file and into a file of history.
    return f"SELECT * FROM ({rows}) QUALIFY row_number() OVER (PARTITION BY id, _exported_at, _load_id) = 1"


def _read(store: LakeStore, table: Table, files: Sequence[FileState]) -> list[str]:
    """Return a query for each group of files that hold the same promoted columns; for no files, one without rows."""
    groups: dict[frozenset[str], list[FileState]] = defaultdict(list)
    for each in files:
        groups[promoted.held_by(table, each.file.promoted)].append(each)
    return [
        f"SELECT {visibility.columns(table, held)} FROM {_scan(store, table, of_group)} rows"
        for held, of_group in (groups or {frozenset[str](): []}).items()
    ]


def _scan(store: LakeStore, table: Table, files: Sequence[FileState]) -> str:
    """Return the relation over these files; over the table's empty file if there are none.

    DuckDB opens each file of a list to see from its statistics whether a query needs it. So many files are read in
    groups that have few days each, with the days as a condition: what contradicts it opens no file of the group.
    """
    if not files:
        return visibility.scan(table, [store.url(empty_files.empty_file(store, table))])
    if table.placement is not Placement.EVENT or len(files) <= _MOST_TOGETHER:
        return visibility.scan_files(store, table, files)
    groups = (
        f"FROM {visibility.scan_files(store, table, group)} WHERE {_within_days(table, group)}"
        for group in _by_days(files)
    )
    return f"({' UNION ALL BY NAME '.join(groups)})"


def _by_days(files: Sequence[FileState]) -> Iterator[list[FileState]]:
    """Yield files in groups of equal size, by day."""
    in_order = sorted(files, key=lambda each: (each.file.first_day, each.file.last_day, each.file.path))
    size = math.ceil(math.sqrt(len(files) * _FILES_PER_GROUP))
    return (in_order[start : start + size] for start in range(0, len(in_order), size))


def _within_days(table: Table, files: Sequence[FileState]) -> str:
    """Return a condition that holds for all rows of some files of an event table."""
    first, last = min(each.file.first_day for each in files), max(each.file.last_day for each in files)
    span = TimeSpan.of_days(first, last)
    return (
        f"{table.date_column} BETWEEN DATE {sql.quoted(first)} AND DATE {sql.quoted(last)} AND "
        f"{table.day_column} >= {sql.instant(span.since)} AND {table.day_column} < {sql.instant(span.until)}"
    )

"""Searching all files of a lake for people, with one database."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path

import duckdb

from airflow_provider_chatexport.lake.commits import visibility
from airflow_provider_chatexport.lake.commits.record import DataFile
from airflow_provider_chatexport.lake.commits.snapshot import Snapshot
from airflow_provider_chatexport.lake.duckdb_session import Database, lake_errors
from airflow_provider_chatexport.lake.maintenance.rewrite import MEMORY_LIMIT
from airflow_provider_chatexport.lake.schema.tables import TABLES
from airflow_provider_chatexport.lake.storage.store import LakeStore
from airflow_provider_chatexport.lake.storage.workdir import work_folder


@contextlib.contextmanager
def search(store: LakeStore, snapshot: Snapshot, work_dir: Path | None) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a database to search the files of a snapshot in. An object store is not asked how large they are."""
    with (
        removal_errors(store),
        work_folder(store, work_dir) as folder,
        closing(Database(folder, memory_limit=MEMORY_LIMIT)) as database,
    ):
        store.let_read(database.connection, visibility.sizes_of(store, snapshot.readable_states))
        yield database.connection


def relations(store: LakeStore, snapshot: Snapshot, among: Collection[DataFile] | None = None) -> dict[str, str]:
    """Return the readable files of each table as a relation.

    :param among: choose the files that may have rows of one of these files; by default all.
    """
    return {
        table.name: visibility.scan_files(store, table, files)
        for table in TABLES
        if (
            files := [
                each
                for each in snapshot.readable_files_of(table)
                if among is None or any(other.table == table.name and each.file.shares_days(other) for other in among)
            ]
        )
    }


def removal_errors(store: LakeStore) -> AbstractContextManager[None]:
    """Raise errors of the database as a ``LakeError`` that says that the removal is incomplete."""
    return lake_errors(
        f"removal is incomplete: the lake at {store.uri} could not be read or written",
        hint="run chatexport verify, then run forget-user again",
    )

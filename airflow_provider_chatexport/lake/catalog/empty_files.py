"""The files without rows of the tables. They let people query an empty lake, and fix the types that readers see."""

from __future__ import annotations

import tempfile
from pathlib import Path, PurePosixPath
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from airflow_provider_chatexport.lake.catalog.stand_ins import stand_in
from airflow_provider_chatexport.lake.parquet import write_empty
from airflow_provider_chatexport.lake.schema.tables import SCHEMA_VERSION, TABLES
from airflow_provider_chatexport.lake.schema.types import Table
from airflow_provider_chatexport.lake.storage.store import EMPTY_FILE_PREFIX, LakeStore

_EMPTY_FILE_DAY: Final = "1970-01-01"


def empty_file(store: LakeStore, table: Table) -> str:
    """Return the path of the table's file without rows, which lets people query an empty lake."""
    return store.empty_file(table.folder_of(_EMPTY_FILE_DAY), f"{EMPTY_FILE_PREFIX}{SCHEMA_VERSION}")


def write_missing(store: LakeStore, *, check: bool = False) -> bool:
    """Write the tables' files without rows, where they are missing, and return whether one was.

    :param check: write also those that are damaged.
    :raises LakeError: the lake cannot be written.
    """
    missing = [
        table
        for table in TABLES
        if not store.exists(path := empty_file(store, table)) or (check and not _is_parquet(store.read(path)))
    ]
    if missing:
        with tempfile.TemporaryDirectory() as folder:
            for table in missing:
                local = Path(folder) / f"{table.name}.parquet"
                write_empty(table, local)
                store.publish(local, empty_file(store, table))
                # Of two keys in the names of folders, DuckDB can make no column of a glob.
                if table.folder_key != table.date_column and not store.is_remote:
                    store.delete(path for path, _ in store.walk(_old_folder(table), ".parquet"))
    return bool(missing)


def delete_older(store: LakeStore) -> None:
    """Delete the files without rows of older versions, which the last catalog read: their columns have other types."""
    for table in TABLES:
        current = empty_file(store, table)
        folder, _, _ = current.rpartition("/")
        files = store.list_folder(folder, PurePosixPath(current).suffix)
        store.delete(path for path in files if path != current and path.startswith(f"{folder}/{EMPTY_FILE_PREFIX}"))


def _old_folder(table: Table) -> str:
    """Return the folder that had the empty file of an event table when its folders were days."""
    return f"{table.name}/{table.date_column}={_EMPTY_FILE_DAY}"


def _is_parquet(content: bytes) -> bool:
    try:
        return bool(pq.read_metadata(pa.BufferReader(content)))
    except pa.ArrowException:
        return False


def contents(store: LakeStore) -> dict[str, bytes]:
    """Return the content of the tables' files without rows, by path."""
    return {empty_file(store, table): stand_in(table, SCHEMA_VERSION, frozenset()) for table in TABLES}

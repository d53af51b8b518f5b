"""The third step of a load: its rows are written as Parquet files into the work folder."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Final

from airflow_provider_chatexport.core.progress import WRITE, Progress
from airflow_provider_chatexport.lake.commits.coverage import CoverageEntry
from airflow_provider_chatexport.lake.commits.record import WRITER, DataFile
from airflow_provider_chatexport.lake.normalize.input_file import InputFile
from airflow_provider_chatexport.lake.parquet import write_table
from airflow_provider_chatexport.lake.schema.types import Table
from airflow_provider_chatexport.lake.staging.conversion import Conversion

# Tables that are written at a time.
WRITERS: Final = 2


def write_files(
    conversion: Conversion,
    tables: Sequence[Table],
    folder: Path,
    *,
    load_id: str,
    files: Sequence[InputFile],
    coverage: Sequence[CoverageEntry],
    progress: Progress,
) -> dict[DataFile, Path]:
    """Write the rows of a load, and return its data files, each with the place where it lies now.

    :param folder: the work folder of this attempt.
    :raises LakeError: the work folder is full.
    """
    n_uncovered, n_unplaced = conversion.uncovered(coverage), conversion.unplaced()
    # Two attempts at the same load may run at once: each has names of its own, and the record says whose files count.
    attempt = hashlib.sha256(str(folder).encode()).hexdigest()[:8]
    metadata = {
        "chatexport.load_id": load_id,
        "chatexport.writer": WRITER,
        "chatexport.source_sha256": ",".join(file.sha256 for file in files),
        "chatexport.window": ",".join(str(file.window) for file in files),
    }
    n_rows, n_written = sum(conversion.counts.rows.values()), 0
    progress(WRITE, 0, n_rows)

    def write(table: Table) -> list[tuple[DataFile, Path]]:
        return list(write_table(conversion, table, folder / "files", stem=f"{load_id}-{attempt}", metadata=metadata))

    written: dict[DataFile, Path] = {}
    # Messages take the longest. The other tables are written next to them.
    with ThreadPoolExecutor(WRITERS) as writers:
        for of_table in writers.map(write, tables):
            for file, path in of_table:
                written[replace(file, n_uncovered=_in(file, n_uncovered), n_unplaced=_in(file, n_unplaced))] = path
                n_written += file.rows
            progress(WRITE, n_written, n_rows)
    return written


def _in(file: DataFile, n_rows: Mapping[tuple[str, str], int]) -> int:
    """Return how many rows lie in a file.

    :param n_rows: rows by table and day.
    """
    return sum(
        n for (table, day), n in n_rows.items() if table == file.table and file.first_day <= day <= file.last_day
    )

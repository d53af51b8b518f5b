"""One peer's conversion of an export file to Parquet, as a process of its own: `python peers.py NAME FILE FOLDER`.

The peers write the messages table only. They do not keep custom keys apart and check nothing. They run at their
defaults. ``INSTEAD`` has the settings that their documentation offers where the defaults fail.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


def payload_key(file: str) -> str:
    """Return the key of the object in the lines of a file."""
    with Path(file).open("rb") as lines:
        return "item" if "item" in json.loads(lines.readline()) else "data"


def line_scan(file: str, folder: Path) -> None:  # noqa: ARG001 - the signature of all peers
    """Read every line into one text column and do nothing else: the floor for every other figure."""
    import duckdb

    duckdb.sql(
        f"SELECT count(*), sum(length(line)) FROM read_csv('{file}', columns = {{line: 'VARCHAR'}}, delim = '\x01', "
        "quote = '', escape = '', header = false, strict_mode = false, auto_detect = false, max_line_size = 100000000)"
    ).fetchall()


def duckdb_copy(file: str, folder: Path) -> None:
    """Let DuckDB detect the types from the first 20,480 lines, and copy the messages to one file."""
    _duckdb_copy(file, folder, "")


def duckdb_copy_whole_sample(file: str, folder: Path) -> None:
    """Let DuckDB detect the types from the whole file, for keys that come late."""
    _duckdb_copy(file, folder, ", sample_size = -1")


def _duckdb_copy(file: str, folder: Path, options: str) -> None:
    import duckdb

    duckdb.sql(
        f"COPY (SELECT unnest({payload_key(file)}) FROM read_json_auto('{file}'{options}) WHERE type = 'message') "
        f"TO '{folder}/messages.parquet' (COMPRESSION zstd)"
    )


def pyarrow_json(file: str, folder: Path) -> None:
    """Read the file with pyarrow.json and write the messages."""
    _pyarrow_json(file, folder, None)


def pyarrow_json_one_block(file: str, folder: Path) -> None:
    """Read the file as one block, for lines and keys that do not fit the first one."""
    _pyarrow_json(file, folder, (1 << 31) - 1)


def _pyarrow_json(file: str, folder: Path, block_size: int | None) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.json as pj
    import pyarrow.parquet as pq

    table = pj.read_json(file, read_options=pj.ReadOptions(block_size=block_size))
    messages = table.filter(pc.equal(table["type"], "message"))[payload_key(file)].combine_chunks()
    if isinstance(messages, pa.ChunkedArray):
        messages = messages.chunk(0)
    pq.write_table(pa.Table.from_struct_array(messages), folder / "messages.parquet", compression="zstd")


def pandas_json(file: str, folder: Path) -> None:
    """Read the file with pandas and write the messages."""
    import pandas as pd

    lines = pd.read_json(file, lines=True, dtype=False, convert_dates=False)
    messages = pd.DataFrame(list(lines.loc[lines["type"] == "message", payload_key(file)]))
    # A column with objects, lists or values of several types can only be written as text.
    for name in messages.columns[[kind.kind == "O" for kind in messages.dtypes]]:
        messages[name] = messages[name].map(lambda value: value if isinstance(value, str) else json.dumps(value))
    messages.to_parquet(folder / "messages.parquet", compression="zstd")


def dlt_filesystem(file: str, folder: Path) -> None:
    """Load the messages with a dlt pipeline to Parquet files."""
    os.environ.update(
        DLT_DATA_DIR=str(folder / "dlt"), RUNTIME__DLTHUB_TELEMETRY="false", RUNTIME__LOG_LEVEL="CRITICAL"
    )
    import dlt

    key = payload_key(file)

    def messages() -> Iterator[dict[str, Any]]:
        with Path(file).open("rb") as lines:
            for line in lines:
                entity = json.loads(line)
                if entity["type"] == "message":
                    yield entity[key]

    pipeline = dlt.pipeline(
        "peer", destination=dlt.destinations.filesystem(f"file://{folder}/lake"), dataset_name="chat"
    )
    pipeline.run(
        dlt.resource(messages, name="messages", max_table_nesting=1), loader_file_format="parquet"
    ).raise_on_failed_jobs()


PEERS: dict[str, Callable[[str, Path], None]] = {
    "bare line scan": line_scan,
    "DuckDB COPY": duckdb_copy,
    "DuckDB COPY, sample_size = -1": duckdb_copy_whole_sample,
    "pyarrow.json": pyarrow_json,
    "pyarrow.json, one block": pyarrow_json_one_block,
    "pandas": pandas_json,
    "dlt": dlt_filesystem,
}
INSTEAD = {"DuckDB COPY": "DuckDB COPY, sample_size = -1", "pyarrow.json": "pyarrow.json, one block"}

if __name__ == "__main__":
    PEERS[sys.argv[1]](sys.argv[2], Path(sys.argv[3]))

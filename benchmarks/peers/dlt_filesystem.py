"""dlt with its own file reader, a folder as destination, Parquet. ``dlt_filesystem.py FILE FOLDER``.

Its best case: lines come in lists of 10,000, and nested values stay JSON (nesting 0) rather than becoming child tables.
"""

import os
import sys
from pathlib import Path

file, folder = Path(sys.argv[1]), Path(sys.argv[2])
# dlt reads these as it is imported: its own files stay in the folder, and it calls nobody.
os.environ.update(DLT_DATA_DIR=str(folder / "dlt"), RUNTIME__DLTHUB_TELEMETRY="false", RUNTIME__LOG_LEVEL="CRITICAL")

import dlt  # noqa: E402
from dlt.sources.filesystem import filesystem, read_jsonl  # noqa: E402

lines = filesystem(bucket_url=f"file://{file.parent}", file_glob=file.name) | read_jsonl(chunksize=10_000)
messages = lines.add_filter(lambda line: line["type"] == "message").add_map(lambda line: line["data"])
messages = messages.with_name("messages")
messages.max_table_nesting = 0
pipeline = dlt.pipeline("peer", destination=dlt.destinations.filesystem(f"file://{folder}/lake"), dataset_name="chat")
pipeline.run(messages, loader_file_format="parquet").raise_on_failed_jobs()

"""pyarrow.json in, Parquet out. ``pyarrow_json.py FILE FOLDER``.

One block holds the whole file: pyarrow takes a column's type from the block at hand and refuses the next one that
differs (a list that was empty so far, say), so with its default of 1 MB it does not get through an export.
"""

import sys

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import json

file, folder = sys.argv[1:]
lines = json.read_json(file, read_options=json.ReadOptions(block_size=1 << 30))
messages = lines.filter(pc.equal(lines["type"], "message"))["data"].combine_chunks()
pq.write_table(pa.Table.from_struct_array(messages), f"{folder}/messages.parquet")

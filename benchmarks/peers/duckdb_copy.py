"""Plain DuckDB: types detected, messages copied into one file. ``duckdb_copy.py FILE FOLDER DEPTH``.

Types are detected from the whole file: detected from the first 20,480 lines, as by default, they end the read at the
first key that comes later (``Object ... has unknown key``).

DEPTH is how deep they are detected. At 3 the columns of a message have types and what is nested stays JSON: the fastest
that works, and the best case. At -1, DuckDB's default, nested objects become structs.
"""

import sys

import duckdb

file, folder, depth = sys.argv[1:]
duckdb.sql(
    f"COPY (SELECT unnest(data) FROM read_json_auto('{file}', format = 'newline_delimited', sample_size = -1, "
    f"maximum_depth = {depth}) WHERE type = 'message') TO '{folder}/messages.parquet'"
)

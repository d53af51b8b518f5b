"""The floor: DuckDB reads every line into one text column, and nothing else. ``bare_line_scan.py FILE FOLDER``."""

import sys

import duckdb

duckdb.sql(
    f"SELECT count(*), sum(length(line)) FROM read_csv('{sys.argv[1]}', columns = {{line: 'VARCHAR'}}, "
    "delim = '\x01', quote = '', escape = '', header = false, strict_mode = false, auto_detect = false, "
    "max_line_size = 100000000)"
).fetchall()

"""A lake in a bucket as people read it: DuckDB 1.5 with its own S3 client, in an environment of its own."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Final

from lakes import LakeProbe, load_file, write_export
from s3_server import S3Server

from airflow_provider_chatexport.lake import Lake
from airflow_provider_chatexport.lake.catalog.macros import MACROS, Macro

READER: Final = Path(__file__).parents[3] / ".venv-readers" / "bin" / "python"
# What each macro is called with, in the order of its parameters.
ARGUMENTS: Final = {
    "thread": ["'b'"],
    "activity": ["'a:1'", "TIMESTAMPTZ '2026-01-01 00:00:00+00'", "TIMESTAMPTZ '2026-01-02 00:00:00+00'"],
    "missing_replies": [],
    "custom_value": ["(SELECT custom FROM messages WHERE id = 'b')", "'mood'"],
}
# Attaches the catalog as docs/object-storage.md says, and queries every view and every macro.
SCRIPT: Final = """
import json, sys, duckdb, duckdb_extension_httpfs
from pathlib import Path
catalog, secret, calls = sys.argv[1:]
con = duckdb.connect()
(extension,) = Path(duckdb_extension_httpfs.__file__).parent.rglob("httpfs.duckdb_extension")
con.execute(f"LOAD '{extension}'")
con.execute(secret)
con.execute("SET TimeZone = 'UTC'")
con.execute("SET enable_http_metadata_cache = true; SET parquet_metadata_cache = true")
con.execute("SET validate_external_file_cache = 'NO_VALIDATION'")
con.execute(f"ATTACH '{catalog}' AS lake (READ_ONLY); USE lake")
views = [name for (name,) in con.execute(
    "SELECT view_name FROM duckdb_views() WHERE NOT internal AND schema_name = 'main' AND database_name = 'lake'"
).fetchall()]
macros = con.execute(
    "SELECT DISTINCT function_name FROM duckdb_functions() WHERE database_name = 'lake' AND schema_name = 'main' "
    "AND function_type IN ('macro', 'table_macro')"
).fetchall()
rows = {name: con.execute(f'SELECT count(*) FROM (FROM "{name}") rows').fetchone()[0] for name in views}
called = {name: con.execute(query).fetchall() for name, query in json.loads(calls).items()}
texts = dict(con.execute("SELECT id, text FROM messages").fetchall())
for name in views:
    con.execute(f'FROM "{name}"').fetchall()
print(json.dumps({"rows": rows, "texts": texts, "macros": [name for (name,) in macros], "called": called}))
"""


def call_of(macro: Macro) -> str:
    """Return a query of what a macro answers, each row as JSON."""
    call = f"{macro.name}({', '.join(ARGUMENTS[macro.name])})"
    answer = f"FROM {call}" if macro.is_table else f"SELECT {call} AS value"
    return f"SELECT to_json(rows)::VARCHAR FROM ({answer}) rows"


def test_duckdb_reads_every_view_and_macro_straight_from_the_bucket(
    bucket: LakeProbe, s3: S3Server, tmp_path: Path
) -> None:
    """BI tools bring such a DuckDB; one view that it cannot read would make the lake useless to them."""
    assert READER.exists(), "the reader's environment is missing; run `make .venv-readers/.ready`"
    load_file(bucket, write_export(tmp_path / "one", {"a": (8, "a1"), "b": (9, "b1")}), 8, 10, "2026-01-02T01:00:00Z")
    load_file(
        bucket,
        write_export(tmp_path / "two", {"b": (9, "b2"), "c": (10, "c2")}, mood="good"),
        9,
        11,
        "2026-01-02T02:00:00Z",
    )
    secret = (
        f"CREATE SECRET (TYPE s3, KEY_ID '{s3.storage_options['key']}', SECRET '{s3.storage_options['secret']}', "
        f"ENDPOINT '127.0.0.1:{s3.port}', URL_STYLE 'path', USE_SSL false, REGION 'us-east-1')"
    )
    calls = {macro.name: call_of(macro) for macro in MACROS}
    with Lake(bucket.uri) as lake:
        done = subprocess.run(
            [str(READER), "-c", SCRIPT, lake.catalog, secret, json.dumps(calls)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert 0 == done.returncode, done.stderr
        read = json.loads(done.stdout)
        assert {"a": "a1", "b": "b2", "c": "c2"} == read["texts"] == bucket.texts()
        assert {"messages", "users", "loads", "coverage"} <= read["rows"].keys()
        for view in ("messages", "reactions", "channels", "loads", "rejects"):
            assert lake.fetch(f"SELECT count(*) FROM {view}").rows == [[read["rows"][view]]]
        assert {macro.name for macro in MACROS} == set(read["macros"])
        for name, query in calls.items():
            assert lake.fetch(query).rows == read["called"][name], name
        assert ["thread", "activity", "custom_value"] == [name for name in ARGUMENTS if read["called"][name]]

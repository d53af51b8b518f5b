"""Apache Spark reads the plain Parquet of a lake. Its libraries for Delta and Iceberg are on Maven, not on PyPI."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest
from lakes import LakeProbe, at, write_export

from airflow_provider_chatexport.lake import Lake

pytestmark = pytest.mark.long

SPARK: Final = Path(__file__).parents[3] / ".venv-spark" / "bin" / "python"
SCRIPT: Final = """
import json, sys
from pyspark.sql import SparkSession
spark = (
    SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
    .config("spark.sql.session.timeZone", "UTC").config("spark.driver.bindAddress", "127.0.0.1").getOrCreate()
)
messages = spark.read.parquet(sys.argv[1])
rows = messages.selectExpr(
    "id", "text", "date_format(created_at, 'yyyy-MM-dd HH:mm:ss')", "cast(event_date AS string)", "event_month",
    "get_json_object(custom, '$.mood')", "mentioned_user_ids",
).orderBy("id").collect()
print(json.dumps({"rows": [list(row) for row in rows], "types": dict(messages.dtypes)}))
"""


def test_spark_reads_the_files_of_a_lake(lake: LakeProbe, tmp_path: Path) -> None:
    """Times, lists, JSON and the folders of months are what they are to other readers, and a reload replaces rows."""
    if shutil.which("java") is None:
        pytest.skip("there is no Java; on Debian, apt-get install default-jre-headless")
    assert SPARK.exists(), "Spark is missing; run `make test-spark`"
    with Lake(lake.uri) as opened:
        for number, texts in enumerate(({"a": (8, "a1"), "b": (9, "b1")}, {"a": (8, "a2"), "c": (23, "c2")}), 1):
            path = write_export(tmp_path / str(number), texts, mood="good", mentioned_users=[{"id": "ann"}])
            opened.load(path, since=at(0), until=at(0, day=2), exported_at=f"2026-02-0{number}T00:00:00Z")
    command = [str(SPARK), "-c", SCRIPT, f"{lake.uri}/messages"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert 0 == done.returncode, done.stderr[-2_000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert [
        ["a", "a2", "2026-01-01 08:30:00", "2026-01-01", "2026-01", "good", ["ann"]],
        ["c", "c2", "2026-01-01 23:30:00", "2026-01-01", "2026-01", "good", ["ann"]],
    ] == found["rows"]
    types = {name: found["types"][name] for name in ("created_at", "mentioned_user_ids", "custom", "reply_count")}
    assert {
        "created_at": "timestamp",
        "mentioned_user_ids": "array<string>",
        "custom": "string",
        "reply_count": "bigint",
    } == types

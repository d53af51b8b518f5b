"""Many processes load overlapping windows at once: the lake ends as if one had loaded them in order."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from lakes import LakeProbe, at, load_file, write_export

# Each process has four loads, so that all of them write at once for most of the time.
N_PROCESSES, N_LOADS = 8, 32
# Each process loads its share with an interpreter of its own, as workers do; the files say which window they are of.
LOADER = """
import json, sys
from pathlib import Path
from airflow_provider_chatexport.core.options import LoadOptions
from airflow_provider_chatexport.core.times import parse_rfc3339
from airflow_provider_chatexport.core.window import Window
from airflow_provider_chatexport.lake.load.job import load_files

for path, since, until, exported_at in json.loads(sys.argv[2]):
    load_files(
        [Path(path)], lake_uri=sys.argv[1], window=Window.parse(since, until), exported_at=parse_rfc3339(exported_at),
        options=LoadOptions(accept_shrink=True),
    )
"""


@pytest.mark.timeout(1800)
def test_overlapping_loads_from_8_processes_end_as_from_one(tmp_path: Path) -> None:
    """No lock, no lost load, no doubled row, in whatever order they finish."""
    chosen = random.Random(7)
    exports, expected = [], {}
    for number in range(N_LOADS):
        since = chosen.randrange(0, 20)
        until = chosen.randrange(since + 1, 23)
        texts = {f"{hour}-{chosen.randrange(3)}": (hour, f"of {number}") for hour in range(since, until)}
        exported_at = f"2026-01-02T{number // 60:02}:{number % 60:02}:00Z"
        kept = {key: (hour, text) for key, (hour, text) in expected.items() if not since <= hour < until}
        expected = kept | texts
        path = write_export(tmp_path / f"export-{number}", texts)
        exports.append([str(path), at(since), at(until), exported_at])
    lake = LakeProbe(str(tmp_path / "lake"))
    chosen.shuffle(exports)
    loaders = [
        subprocess.Popen([sys.executable, "-c", LOADER, lake.uri, json.dumps(exports[share::N_PROCESSES])])
        for share in range(N_PROCESSES)
    ]
    assert [0] * N_PROCESSES == [loader.wait(timeout=900) for loader in loaders]
    assert {key: text for key, (_, text) in expected.items()} == lake.texts()
    assert N_LOADS == lake.value("SELECT count(*) FROM loads")
    # Whichever load finished last has refreshed the lake for all of them.
    lake.assert_tidy()
    assert load_file(lake, Path(exports[0][0]), None, None, exports[0][3], accept_shrink=True)

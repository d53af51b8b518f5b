"""Maintenance while loads commit: where a load takes a file away that is being read, it looks again."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest
from lakes import LakeProbe, load_file, write_export

from airflow_provider_chatexport.lake import Lake

N_LOADS: Final = 6
# Each load covers the one before it, whose files are dead from then on.
LOADS: Final = """
import sys
from datetime import UTC, datetime
from airflow_provider_chatexport.lake import Lake

lake, *paths = sys.argv[1:]
for number, path in enumerate(paths):
    Lake(lake).load(
        path, since="2026-01-01", until="2026-01-02", exported_at=datetime(2026, 1, 3, 0, number, tzinfo=UTC)
    )
"""


@pytest.mark.parametrize(
    "work",
    [
        lambda lake: [each.what for each in lake.verify().findings if each.is_fault],
        lambda lake: lake.vacuum(keep=timedelta(0)) and [],
        lambda lake: lake.forget_user(f"person-{datetime.now(UTC)}", even_if_unknown=True) and [],
    ],
    ids=["verify", "vacuum", "forget-user"],
)
def test_maintenance_succeeds_while_loads_commit(work: Callable[[Lake], list[str]], tmp_path: Path) -> None:
    """Regression: they failed, or reported a fault, because of a file that a load had superseded meanwhile."""
    lake = LakeProbe(str(tmp_path / "lake"))
    load_file(lake, write_export(tmp_path / "first", {"z": (1, "z")}, "a:2"), 0, 23, "2026-01-02T00:00:00Z")
    texts = {f"m{hour:02}": (hour, "") for hour in range(24)}
    paths = [
        write_export(tmp_path / str(number), {each: (hour, f"{number}") for each, (hour, _) in texts.items()})
        for number in range(N_LOADS)
    ]
    loads = subprocess.Popen([sys.executable, "-c", LOADS, lake.uri, *map(str, paths)])
    found: list[str] = []
    n_runs = 0
    while loads.poll() is None:
        found += work(Lake(lake.uri))
        n_runs += 1
    assert 0 == loads.returncode
    assert n_runs > 1
    assert [] == found
    assert {"z": "z"} | {each: str(N_LOADS - 1) for each in texts} == lake.texts()
    assert Lake(lake.uri).verify().ok

"""A catalog that another process has opened to write it, and one that no process can."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from lakes import LakeProbe, load_file, write_export

from airflow_provider_chatexport.lake import Lake
from airflow_provider_chatexport.lake.catalog import catalog_file
from airflow_provider_chatexport.lake.storage.address import open_store

# As ``duckdb lake/catalog.duckdb`` without ``-readonly`` does.
SHELL = """
import sys, duckdb
con = duckdb.connect(sys.argv[1])
print("open", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def lake(tmp_path: Path) -> LakeProbe:
    lake = LakeProbe(str(tmp_path / "lake"))
    load_file(lake, write_export(tmp_path / "from", {"a": (8, "old")}), 8, 12, "2026-01-02T00:00:00Z")
    return lake


@pytest.fixture
def shell(lake: LakeProbe) -> Iterator[subprocess.Popen[str]]:
    """A shell that has opened the catalog to write it."""
    catalog = Path(lake.uri) / catalog_file.NAME
    catalog.chmod(0o644)
    command = [sys.executable, "-c", SHELL, str(catalog)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as shell:
        assert shell.stdout is not None
        assert "open\n" == shell.stdout.readline()
        yield shell


def test_a_shell_that_writes_the_catalog_keeps_no_query_and_no_load_out(
    lake: LakeProbe, shell: subprocess.Popen[str], tmp_path: Path
) -> None:
    """Regression: queries failed, and the error said to rebuild the catalog. A load replaces the locked file."""
    assert f"(PID {shell.pid})" in str(catalog_file.writer(open_store(lake.uri)))
    assert {"a": "old"} == lake.texts()
    assert Lake(lake.uri).verify().ok
    load_file(lake, write_export(tmp_path / "from", {"a": (8, "new")}), 8, 12, "2026-01-03T00:00:00Z")
    assert {"a": "new"} == lake.texts()
    assert catalog_file.writer(open_store(lake.uri)) is None


def test_no_process_can_write_the_catalog_in_place(lake: LakeProbe, tmp_path: Path) -> None:
    """DuckDB then opens it only with -readonly, unless it runs as root. A load replaces the file all the same."""
    catalog = Path(lake.uri) / catalog_file.NAME
    for text in ("new", "newest"):
        assert 0o444 & ~_umask() == catalog.stat().st_mode & 0o777
        exported_at = f"2026-01-0{len(text)}T00:00:00Z"
        load_file(lake, write_export(tmp_path / "from", {"a": (8, text)}), 8, 12, exported_at)
        assert {"a": text} == lake.texts()
    Lake(lake.uri).rebuild_catalog()
    assert 0 == catalog.stat().st_mode & 0o222


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask

"""A catalog that another process has opened to write it, and one that no process can write."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from lakes import LakeProbe, load_file, shell_on, write_export

from airflow_provider_chatexport.lake import Lake
from airflow_provider_chatexport.lake.catalog import catalog_file
from airflow_provider_chatexport.lake.storage.address import open_store


@pytest.fixture
def lake(tmp_path: Path) -> LakeProbe:
    lake = LakeProbe(str(tmp_path / "lake"))
    load_file(lake, write_export(tmp_path / "from", {"a": (8, "old")}), 8, 12, "2026-01-02T00:00:00Z")
    return lake


def test_a_shell_that_writes_the_catalog_keeps_no_query_and_no_load_out(lake: LakeProbe, tmp_path: Path) -> None:
    """Regression: queries failed, and the error said to rebuild the catalog. A load replaces the locked file."""
    with shell_on(Path(lake.uri) / catalog_file.NAME) as shell:
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

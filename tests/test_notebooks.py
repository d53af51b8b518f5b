"""The notebooks, executed as a reader would, over a lake with data and over an empty one."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from export_objects import channel, line, message, write_lines
from lakes import client_of, exports_of
from make_pictures import NOTEBOOKS, execute

from airflow_provider_chatexport import pipeline
from airflow_provider_chatexport.lake import Lake
from airflow_provider_chatexport.sandbox import Sandbox

pytestmark = pytest.mark.slow

CHANNELS = ("livestream:ubuntu", "messaging:ubuntu-support")
# Notebook -> how many plots it has.
PLOTS = {"tour": 5, "operations": 3}


@pytest.fixture
def lake(sandbox: Sandbox, tmp_path: Path) -> str:
    """A lake with days that were loaded twice, a change in between, a gap, and a reject."""
    lake = str(tmp_path / "lake")
    with client_of(sandbox) as client:
        for since, until in (("2025-01-06", "2025-01-08"), ("2025-01-07", "2025-01-09"), ("2025-01-10", "2025-01-11")):
            pipeline.load_exports(client, exports_of(client, since, until, channels=CHANNELS), lake_uri=lake)
            edited = next(
                each["id"] for each in sandbox.world.messages(CHANNELS[0]) if each["created_at"] > "2025-01-07T01"
            )
            sandbox.control.edit_message(edited, text=until)
    bad = write_lines(tmp_path / "bad", [line("channel", channel()), line("message", message()), b"no JSON"])
    Lake(lake).load(bad)
    return lake


@pytest.mark.parametrize("name", PLOTS)
def test_a_notebook_runs_over_a_lake(name: str, lake: str) -> None:
    """Every cell runs, and every plot is there."""
    pictures = list(execute(NOTEBOOKS / f"{name}.ipynb", lake))
    assert PLOTS[name] == len(pictures)
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)


@pytest.mark.parametrize("name", PLOTS)
def test_a_notebook_runs_over_an_empty_lake(name: str, tmp_path: Path) -> None:
    """Before the first load there is nothing to see, and nothing fails."""
    Lake(tmp_path / "lake").rebuild_catalog()
    assert PLOTS[name] == len(list(execute(NOTEBOOKS / f"{name}.ipynb", str(tmp_path / "lake"))))


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.name)
def test_notebooks_are_stored_without_output(path: Path) -> None:
    """Output is large, differs with each run, and may hold what people wrote."""
    assert path.stem in PLOTS
    for cell in nbformat.read(path, as_version=4).cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None

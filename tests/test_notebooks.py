"""The notebooks, executed as a reader would, over a lake with data and over an empty one."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import nbformat
import pytest
from export_objects import channel, line, message, write_lines
from lakes import client_of, exports_of
from make_pictures import NOTEBOOKS, PAGES, PLOTS, captioned, execute, page_of, pictures_of

from airflow_provider_chatexport import pipeline
from airflow_provider_chatexport.lake import Lake
from airflow_provider_chatexport.sandbox import Sandbox

CHANNELS = ("livestream:ubuntu", "messaging:ubuntu-support")


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
    book = execute(NOTEBOOKS / f"{name}.ipynb", lake)
    pictures = pictures_of(book)
    assert len(PLOTS[name]) == len(pictures)
    assert all(captioned(picture, "a caption").startswith(b"\x89PNG") for picture in pictures)
    assert all(f"({plot}.png)" in page_of(book, name).replace("../pictures/", "") for plot in PLOTS[name])


@pytest.mark.parametrize("name", PLOTS)
def test_a_notebook_runs_over_an_empty_lake(name: str, tmp_path: Path) -> None:
    """Before the first load there is nothing to see, and nothing fails."""
    Lake(tmp_path / "lake").rebuild_catalog()
    assert len(PLOTS[name]) == len(pictures_of(execute(NOTEBOOKS / f"{name}.ipynb", str(tmp_path / "lake"))))


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.name)
def test_notebooks_are_stored_without_output(path: Path) -> None:
    """Output is large, differs with each run, and may hold what people wrote."""
    assert path.stem in PLOTS
    for cell in nbformat.read(path, as_version=4).cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.parametrize("name", PLOTS)
def test_a_page_shows_the_notebook_of_today(name: str) -> None:
    """The page would show code that the notebook has no more, without `python scripts/make_pictures.py`."""
    without_outputs = page_of(nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4), name)
    outputs = re.compile(r"^(```text\n.*?^```|!\[[a-z ]+\]\(\S+\))\n\n?", re.MULTILINE | re.DOTALL)
    assert without_outputs.strip() == outputs.sub("", (PAGES / f"{name}.md").read_text()).strip()


@pytest.mark.parametrize("name", PLOTS)
def test_a_notebook_needs_what_an_analyst_has(name: str) -> None:
    """A reader of a lake need not have the package that loaded it."""
    code = "\n".join(cell.source for cell in nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4).cells)
    imported = set(re.findall(r"^(?:import|from) (\w+)", code, re.MULTILINE))
    assert {"duckdb", "pandas", "matplotlib"} == imported - sys.stdlib_module_names
    assert "pip install duckdb pandas matplotlib jupyterlab" in code

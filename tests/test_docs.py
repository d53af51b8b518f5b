"""What the documents promise."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from make_docs import tables_page

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def test_the_table_reference_is_the_registry() -> None:
    """A column that is added without `python scripts/make_docs.py` would be missing from the page."""
    assert (ROOT / "docs" / "tables.md").read_text() == tables_page()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    """A reader who follows a link must not stand before nothing."""
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_the_readme_dag_is_a_dag(tmp_path: Path) -> None:
    """The first thing that people copy must parse on their Airflow."""
    code = next(block for block in _blocks("python") if "DAG(" in block)
    assert code.count("\n") <= 20
    file = tmp_path / "chat.py"
    file.write_text(code)
    subprocess.run([sys.executable, file], check=True, env={"AIRFLOW_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"})


def test_the_readme_commands_are_make_targets_and_chatexport_commands() -> None:
    """A renamed command would leave the README behind."""
    shell = "\n".join(_blocks("sh"))
    targets = set(re.findall(r"^([a-z0-9-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^make ([a-z-]+)", shell, re.MULTILINE)) <= targets
    help_text = subprocess.run(
        [Path(sys.executable).with_name("chatexport"), "--help"], check=True, capture_output=True, text=True
    ).stdout
    commands = set(re.findall(r"^  ([a-z-]+) ", help_text, re.MULTILINE))
    assert set(re.findall(r"^chatexport ([a-z-]+)", shell, re.MULTILINE)) <= commands


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)

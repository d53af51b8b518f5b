"""The documents: what they promise holds."""

from __future__ import annotations

import gzip
import re
import shlex
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from export_objects import channel, line, message
from make_docs import cli_page, tables_page, with_backfill_table

from airflow_provider_chatexport.sandbox import Sandbox

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def test_the_table_reference_is_the_registry() -> None:
    """The page would lack a column that was added without `python scripts/make_docs.py`."""
    assert (ROOT / "docs" / "tables.md").read_text() == tables_page()


def test_the_page_of_the_command_line_is_the_commands() -> None:
    """The page would lack an option that was added without `python scripts/make_docs.py`."""
    assert (ROOT / "docs" / "cli.md").read_text() == cli_page()


def test_the_table_of_backfills_is_what_plan_calculates() -> None:
    """A model that changes would leave the page behind; `python scripts/make_docs.py` writes it."""
    page = (ROOT / "docs" / "scaling.md").read_text()
    assert with_backfill_table(page) == page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    """A link to a page that was moved would be dead."""
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


@pytest.fixture
def home(tmp_path: Path, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder to type commands in: it has export files, and the environment points to a sandbox."""
    messages = [message(), message("of-ann", user={"id": "ann-17"})]
    content = b"\n".join([line("channel", channel()), *(line("message", each) for each in messages)])
    for name in ("an-export-that-is-already-here.ndjson.gz", "export.ndjson.gz"):
        (tmp_path / name).write_bytes(gzip.compress(content))
    monkeypatch.setenv("STREAM_API_KEY", sandbox.api_key)
    monkeypatch.setenv("STREAM_API_SECRET", sandbox.api_secret)
    monkeypatch.setenv("STREAM_BASE_URL", sandbox.url)
    return tmp_path


def test_the_commands_of_the_pages_do_what_they_say(home: Path) -> None:
    """A reader copies them line by line, from the first one of the README to the last one on the CLI page."""
    chatexport = str(Path(sys.executable).with_name("chatexport"))
    commands = [
        text
        for page in ("README.md", "docs/cli.md")
        for block in _blocks("sh", page)
        for text in block.splitlines()
        if text.startswith("chatexport ") and not text.startswith("chatexport sandbox")
    ]
    assert len(commands) > 15
    for number, text in enumerate(commands):
        command = shlex.split(text.replace("./chat-dbt", f"./dbt-{number}"), comments=True)
        ran = subprocess.run([chatexport, *command[1:]], cwd=home, check=False, capture_output=True, text=True)
        assert (0, "") == (ran.returncode, ran.stderr), text
    (in_python,) = [block for block in _blocks("python", "README.md") if "Lake(" in block]
    ran = subprocess.run([sys.executable, "-c", in_python], cwd=home, check=True, capture_output=True, text=True)
    assert "livestream:ubuntu" in ran.stdout
    (query,) = _blocks("sql", "README.md")
    with duckdb.connect(str(home / "lake" / "catalog.duckdb"), read_only=True) as lake:
        assert lake.sql(query).to_arrow_table().num_rows > 0


def _blocks(language: str, page: str = "README.md") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)

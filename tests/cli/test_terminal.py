"""Progress as people see it, on a real terminal and in a log; and tables."""

from __future__ import annotations

import io
import re
import subprocess
from pathlib import Path

import pytest
from command_line import COMMAND, on_a_terminal
from export_objects import channel, line, message, write_lines
from rich.console import Console

from airflow_provider_chatexport.cli.terminal import TerminalProgress, print_table


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """An export of some 30 MB: it takes long enough for every stage to be drawn."""
    lines = [line("message", message(f"m{number}", text="x" * 1000)) for number in range(20_000)]
    return write_lines(tmp_path / "export", [line("channel", channel()), *lines])


@pytest.mark.parametrize("columns", [80, 200])
def test_a_terminal_shows_stages_with_amounts(large: Path, tmp_path: Path, columns: int) -> None:
    """A person sees the stage, how far it is, and how long it still takes; then the bar goes away."""
    seen = on_a_terminal("load", str(large), "--lake", str(tmp_path / "lake"), columns=columns)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen)
    for stage in ("read", "convert", "write"):
        assert stage in text
    assert re.search(r"[\d.]+ MB of [\d.]+ MB", text)
    assert re.search(r"[\d,]+ of [\d,]+ rows", text)
    assert max(len(each) for each in re.split(r"[\r\n]+", text)) <= columns
    assert seen.rstrip().endswith(("\x1b[2K", "\x1b[?25h"))


@pytest.mark.parametrize("width", [80, 200])
def test_a_terminal_shows_rates_and_how_long_a_wait_has_taken(width: int) -> None:
    """The first second has no rate that says anything. An export says nothing of how long it still takes."""
    seen, now_s = io.StringIO(), 0.0
    console = Console(file=seen, force_terminal=True, width=width)
    with TerminalProgress(console, clock=lambda: now_s) as progress:
        progress.stage("read", 0, 100_000_000)
        now_s = 0.5
        progress.stage("read", 20_000_000, 100_000_000)
        progress.stage("download", 0, 100_000_000)
        now_s = 2.5
        progress.stage("download", 50_000_000, 100_000_000)
        progress.say(f"waiting for {'a:general, ' * 20}")
        now_s = 67.5
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.getvalue())
    amounts = set(re.findall(r"[25]0\.0 MB of 100\.0 MB(?:, [^ ]+ MB/s)? (?:-|0):", text))
    assert {"20.0 MB of 100.0 MB -:", "50.0 MB of 100.0 MB, 25.0 MB/s 0:"} == amounts
    assert "waiting for a:general" in text
    assert {"0:00:02", "0:01:05"} <= set(re.findall(r"\d:\d\d:\d\d", text)), "50 MB at 25 MB/s, and the wait"
    assert max(map(len, re.split(r"[\r\n]+", text))) <= width


def test_a_log_gets_one_line_per_stage_and_only_if_asked(large: Path, tmp_path: Path) -> None:
    """Cron mails what a command prints: without --verbose, nothing."""
    quiet = [*COMMAND, "load", str(large), "--lake", str(tmp_path / "quiet")]
    assert "" == subprocess.run(quiet, check=True, capture_output=True, text=True).stderr
    # Before the command, ``-v`` does the same; people add it at the end.
    loud = [*COMMAND, "load", str(large), "--lake", str(tmp_path / "loud"), "-v"]
    log = subprocess.run(loud, check=True, capture_output=True, text=True).stderr
    assert "\x1b" not in log
    assert 1 == len(re.findall(r"^INFO read is done: [\d.]+ MB of [\d.]+ MB, ", log, re.MULTILINE))
    assert 1 == len(re.findall(r"^INFO write is done: [\d,]+ of [\d,]+ rows, ", log, re.MULTILINE))


@pytest.mark.parametrize(("columns", "broken"), [(80, ["text"]), (120, []), (40, ["text", "id"])])
def test_a_table_breaks_long_text_before_ids(
    columns: int, broken: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An id or a time in two pieces cannot be copied. If there is no room for everything, nothing is left out."""
    monkeypatch.setenv("COLUMNS", str(columns))
    row = {"id": "u-1234567890-1234567890", "at": "2025-01-01T09:14:00", "text": "long " * 10 + "end", "n": 1}
    print_table(list(row), [list(row.values())])
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= columns
    assert broken == [name for name in ("text", "id") if str(row[name]) not in shown]
    assert sorted("".join(map(str, [*row, *row.values()])).replace(" ", "")) == sorted("".join(shown.split()))


def test_a_line_goes_to_stdout_while_a_bar_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """The library of the bar takes stdout over by default: ``chatexport sync > log`` would leave the log empty."""
    console = Console(file=io.StringIO(), force_terminal=True)
    with TerminalProgress(console) as progress:
        progress.stage("read", 1, 2)
        progress.print_line("one window loaded")
        progress.stage("read", 2, 2)
    assert "one window loaded\n" == capsys.readouterr().out

"""The command line as people type it, over a real sandbox; in a process of its own where the process matters."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import psutil
import pytest
from command_line import CHATEXPORT, REPORT_KEYS, WINDOW, Ran, Run, assert_one_sentence
from export_objects import channel, line, message, user, write_lines

from airflow_provider_chatexport import __version__
from airflow_provider_chatexport.cli import cli
from airflow_provider_chatexport.sandbox import Sandbox, SandboxControl

DOCS = Path(__file__).resolve().parents[2] / "docs"


# Help


def commands() -> dict[str, click.Command]:
    """Return all commands by what people type: ``load``, ``dbt init``."""
    context = click.Context(cli)
    by_name: dict[str, click.Command] = {}
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        within = command.commands if isinstance(command, click.Group) else {"": command}
        by_name |= {f"{name} {inner}".strip(): each for inner, each in within.items()}
    return by_name


@pytest.mark.parametrize("name", commands())
def test_every_command_has_an_example_that_parses(name: str, run: Run) -> None:
    """People copy the example: its command and its options have to exist."""
    ran = run(*name.split(), "--help")
    assert 0 == ran.code
    (example,) = re.findall(r"Example: chatexport (.*)", " ".join(ran.out.split()))
    typed = shlex.split(example)
    words = name.split()
    assert words == typed[: len(words)]
    assert commands()[name].make_context(name, typed[len(words) :], resilient_parsing=False).params


def test_help_names_every_command(run: Run) -> None:
    """The first page that a person reads lists what there is."""
    page = run("--help").out
    assert all(name.split()[0] in page for name in commands())


@pytest.mark.parametrize("group", [[], ["dbt"]])
def test_a_command_without_its_subcommand_prints_its_help(group: list[str], run: Run) -> None:
    """The page is printed as it is: people copy the example from it."""
    ran = run(*group)
    assert (2, "", run(*group, "--help").out) == (ran.code, ran.out, ran.err)


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_no_help_text_is_cut(columns: int, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page says all at any width, and its example is on one line: people copy it into a shell."""
    monkeypatch.setenv("COLUMNS", str(columns))
    for name, command in {"": cli, **commands()}.items():
        page = run(*name.split(), "--help").out
        assert f"\n  {(command.epilog or '').removeprefix('Example: ')}\n" in page
        assert not [each for each in page.splitlines() if each.endswith("...") and not each.startswith("Usage")]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [(["lode"], "load"), (["forget"], "forget-user"), (["dbt", "ini"], "init"), (["verify", "--lakes", "y"], "--lake")],
)
def test_a_mistyped_name_is_answered_with_a_suggestion(typed: list[str], meant: str, run: Run) -> None:
    """Nothing has to be looked up to try again; a name that resembles none gets no suggestion."""
    assert_one_sentence(run(*typed), 2, f"{typed[-1] if len(typed) < 3 else '--lakes'}'. Did you mean '{meant}'? See ")
    assert "Did you mean" not in run("xyzzy").err


def test_a_shell_completes_commands_and_options() -> None:
    """The line that docs/cli.md gives for ``~/.bashrc`` registers the completion, and that knows the names."""
    (setup,) = re.findall(r"`(eval .*?bash_source chatexport\)\")`", (DOCS / "cli.md").read_text())
    script = f"""
        PATH={Path(CHATEXPORT).parent}:$PATH; {setup}; complete -p chatexport
        _CHATEXPORT_COMPLETE=bash_complete COMP_WORDS="chatexport ta" COMP_CWORD=1 chatexport
        _CHATEXPORT_COMPLETE=bash_complete COMP_WORDS="chatexport sql --c" COMP_CWORD=2 chatexport"""
    ran = subprocess.run(["bash", "-c", script], check=True, capture_output=True, text=True)
    registered, *names = ran.stdout.splitlines()
    assert registered.startswith("complete ")
    assert ["plain,tables", "plain,--csv"] == names


def test_the_lake_is_given_once_in_the_environment(
    run: Run, small_lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """People work with one lake. An option wins over the variable. An empty variable counts as absent."""
    monkeypatch.setenv("CHATEXPORT_LAKE", str(small_lake))
    for name, command in commands().items():
        takes_lake = any(each.name == "lake" for each in command.params)
        assert takes_lake == ("CHATEXPORT_LAKE" in run(*name.split(), "--help").out)
    assert "messaging:general" in run("coverage").out
    assert_one_sentence(run("coverage", "--lake", tmp_path / "other"), 1, "there is no lake")
    monkeypatch.setenv("CHATEXPORT_LAKE", "")
    assert_one_sentence(run("coverage"), 2, "Missing option '--lake'", "CHATEXPORT_LAKE")


def test_the_version_is_printed(run: Run) -> None:
    """It is the first question about any bug report."""
    assert f"chatexport, version {__version__}\n" == run("--version").out


# load, coverage, sql, catalog


def test_load_prints_one_json_object(run: Run, export_file: Path, tmp_path: Path) -> None:
    """Scripts read it: it has the contract's keys, and stdout has nothing else."""
    report = run("load", export_file, "--lake", tmp_path / "lake", "--json").json
    assert REPORT_KEYS <= report.keys()
    assert ({"since": None, "until": None}, 2, 1) == (report["window"], report["lines"], report["rows"]["messages"])


def test_load_prints_what_it_did(run: Run, export_file: Path, tmp_path: Path) -> None:
    """A person sees counts and how to go on, and the second time that nothing was written."""
    first = run("load", export_file, "--lake", tmp_path / "lake")
    assert (0, "") == (first.code, first.err)
    assert "2 lines, 0 rejected, 0 out of window, 0 duplicates" in first.out
    assert f", or duckdb -readonly {tmp_path}/lake/catalog.duckdb" in first.out
    (query,) = re.findall(r"query it: chatexport (.*), or", first.out)
    columns = run(*shlex.split(query), "--json").json["columns"]
    assert ["event_date", "cid", "user_id", "text"] == columns, "no more than 80 columns can show"
    assert "is already in the lake; nothing was written" in run("load", export_file, "--lake", tmp_path / "lake").out
    assert "duckdb" not in run("load", export_file, "--lake", "memory://printed/lake").out, "it takes an extension"
    assert "shows all loads" in run("doctor", "--lake", "memory://printed/lake").out


def test_load_warns_of_rejects_on_stderr(tmp_path: Path) -> None:
    """A script reads the report from stdout. Logging is set up once in a process, so this needs one of its own."""
    bad = write_lines(tmp_path / "bad", [line("message", message()), b"{", b"}"])
    code = "import sys; from airflow_provider_chatexport.cli import main; main(sys.argv[1:])"
    command = [
        sys.executable,
        "-c",
        code,
        "load",
        str(bad),
        "--lake",
        str(tmp_path / "lake"),
        "--json",
        "--max-rejected",
        "2",
    ]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert 2 == json.loads(ran.stdout)["rejected"]
    assert re.fullmatch(r"WARNING 2 lines or entities of load \w+ could not become rows; the table .*\n", ran.stderr)


def test_load_takes_a_window_and_a_time(run: Run, export_file: Path, tmp_path: Path) -> None:
    """A person may know what a file covers, and when it was made."""
    report = run(
        "load", export_file, "--lake", tmp_path / "lake", "--since", "2026-01-02", "--until", "2026-01-03",
        "--exported-at", "2026-01-04T00:00:00+01:00", "--json",
    ).json  # fmt: skip
    assert ("2026-01-02T00:00:00.000000Z", "2026-01-03T23:00:00.000000Z") == (
        report["window"]["since"],
        report["exported_at"],
    )
    assert (1, 0) == (report["out_of_window"], report["rows"]["messages"])


def test_load_promotes_custom_fields(run: Run, tmp_path: Path) -> None:
    """Values of another type than their column's are counted, for scripts and for people."""
    path = write_lines(
        tmp_path / "export",
        [line("message", message(f"m{at}", priority=value)) for at, value in enumerate((1, "high", 2))],
    )
    arguments = ("load", path, "--promote", "messages.priority=BIGINT", "--lake")
    assert {"messages.priority": 1} == run(*arguments, tmp_path / "lake", "--json").json["cast_failures"]
    assert "kept in custom: messages.priority (1)" in run(*arguments, tmp_path / "other").out
    result = run("sql", "SELECT max(priority) AS n FROM messages", "--lake", tmp_path / "lake", "--json").json
    assert [[2]] == result["rows"]
    wrong = ("load", path, "--promote", "priority=BIGINT", "--lake", tmp_path / "lake")
    assert_one_sentence(run(*wrong), 2, "write TABLE.KEY=TYPE")


def test_load_takes_limits(run: Run, export_file: Path, tmp_path: Path) -> None:
    """A line that is too long is a reject; a file that unpacks to too much and a load with too many rejects fail."""
    lake = ("--lake", tmp_path / "lake")
    assert 1 == run("load", export_file, *lake, "--max-line-bytes", 230, "--json").json["rejected"]
    packed = tmp_path / "packed"
    packed.write_bytes(gzip.compress(export_file.read_bytes()))
    refused = run("load", packed, "--lake", tmp_path / "b", "--max-unpacked-bytes", 100)
    assert_one_sentence(refused, 1, "unpacks to more than 100 bytes", "allow more with --max-unpacked-bytes")
    write_lines(export_file, [line("message", message()), b"{"])
    for limit, code in (("50%", 0), ("49.9%", 1), ("0%", 1), ("1", 0), ("0", 1)):
        ran = run("load", export_file, "--lake", tmp_path / f"at {limit}", "--max-rejected", limit)
        assert (code, "could not become rows" in ran.err) == (ran.code, code == 1)
    assert_one_sentence(run("load", export_file, *lake, "--max-line-bytes", 0), 2, "--max-line-bytes is 0")


def test_load_takes_an_export_of_users(run: Run, tmp_path: Path) -> None:
    """The service's answer about one user, saved to a file, goes into tables of its own."""
    path = tmp_path / "user.json"
    path.write_text(json.dumps({"user": user("u1"), "messages": [message()], "reactions": []}, indent=2))
    rows = run("load", path, "--lake", tmp_path / "lake", "--json").json["rows"]
    assert {"user_export_users": 1, "user_export_messages": 1} == {name: count for name, count in rows.items() if count}
    other = run("load", path, "--lake", tmp_path / "other", "--kind", "channels", "--json").json["rows"]
    assert (1, 1, 0) == (other["messages"], other["users"], other["user_export_users"])
    assert_one_sentence(run("load", path, "--lake", tmp_path / "lake", *WINDOW), 1, "export of users", "no window")


def test_coverage_sql_and_catalog_print_one_json_object_each(run: Run, small_lake: Path) -> None:
    """Scripts read them."""
    lake = small_lake
    (span,) = run("coverage", "--lake", lake, "--json").json["coverage"]
    assert ("messaging:general", "2026-01-01T10:00:00.000000Z", 1, 1) == (
        span["cid"], span["since"], span["loads"], span["messages"],
    )  # fmt: skip
    query = "SELECT id, created_at, created_at - created_at AS none FROM messages"
    result = run("sql", query, "--lake", lake, "--json").json
    assert ["id", "created_at", "none"] == result["columns"]
    assert [["m1", "2026-01-01T10:00:00.000000Z", "0:00:00"]] == result["rows"]
    assert {"catalog": f"{lake}/catalog.duckdb"} == run("catalog", "--lake", lake, "--json").json


def test_coverage_sql_and_catalog_print_tables_for_people(run: Run, small_lake: Path) -> None:
    """Text that looks like markup is printed as it is, and not as colours."""
    lake = small_lake
    assert "messaging:general" in run("coverage", "--lake", lake).out
    assert "[bold]x[/]" in run("sql", "SELECT '[bold]x[/]' AS text, [1, 2] AS many, NULL AS none", "--lake", lake).out
    assert f"wrote {lake}/catalog.duckdb" in run("catalog", "--lake", lake).out


def test_coverage_can_be_drawn(run: Run, overlapping: Path, tmp_path: Path) -> None:
    """The picture is for a wiki or a weekly mail; the table is printed all the same."""
    ran = run("coverage", "--lake", overlapping, "--png", tmp_path / "a.png", "--json")
    assert {"coverage", "png"} == ran.json.keys()
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert "drawn in" in run("coverage", "--lake", overlapping, "--png", tmp_path / "b.png").out
    nowhere = run("coverage", "--lake", overlapping, "--png", tmp_path / "none" / "c.png")
    assert_one_sentence(nowhere, 2, "cannot write", "No such file or directory")
    assert_one_sentence(run("coverage", "--lake", tmp_path, "--png", tmp_path / "d.png"), 1, "there is no lake")


def test_a_picture_without_its_library_is_one_sentence(overlapping: Path, tmp_path: Path) -> None:
    """Drawing is an extra: without it the error names it, and every other command works."""
    code = (
        "import sys; sys.modules['matplotlib'] = None; from airflow_provider_chatexport.cli import main; "
        "main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, "coverage", "--lake", str(overlapping)]
    ran = subprocess.run([*command, "--png", str(tmp_path / "a.png")], check=False, capture_output=True, text=True)
    assert_one_sentence(Ran(ran.returncode, ran.stdout, ran.stderr), 2, "airflow-provider-chatexport[plot]")
    assert 0 == subprocess.run(command, check=False, capture_output=True).returncode


@pytest.fixture
def overlapping(run: Run, tmp_path: Path) -> Path:
    """A lake of one hour that was loaded twice; the second export lacks one message and has a new one."""
    lake = tmp_path / "lake"
    for number, ids in ((1, ("m1", "m2")), (2, ("m1", "m3"))):
        path = write_lines(
            tmp_path / f"export{number}",
            [line("channel", channel()), *(line("message", message(each)) for each in ids)],
        )
        day = f"2026-02-0{number}T00:00:00Z"
        window = ("--since", "2026-01-01T10:00:00Z", "--until", f"2026-01-01T1{3 - number}:00:00Z")
        loaded = run("load", path, "--lake", lake, *window, "--exported-at", day)
        assert 0 == loaded.code, loaded.err
    return lake


def test_maintenance_prints_one_json_object_each(run: Run, overlapping: Path) -> None:
    """Nightly jobs read them."""
    compaction = run("compact", "--lake", overlapping, "--json").json
    assert compaction["rows_hidden"] > 0
    assert compaction["record"]
    vacuum = run("vacuum", "--lake", overlapping, "--keep", "0s", "--json").json
    assert {"superseded", "unknown", "leftovers"} <= vacuum.keys()
    receipt = run("forget-user", "u1", "--lake", overlapping, "--json").json
    assert 2 == receipt["removed"]["messages"]
    assert "u1" not in json.dumps(receipt)


def test_maintenance_prints_what_it_did(run: Run, overlapping: Path) -> None:
    """When it is run again, it says that there is nothing to do."""
    assert "hidden ones left out" in run("compact", "--lake", overlapping).out
    assert "nothing to do" in run("compact", "--lake", overlapping).out
    assert "superseded files" in run("vacuum", "--lake", overlapping, "--keep", "0s").out
    receipt = run("forget-user", "u1", "--lake", overlapping).out
    assert "rows removed" in receipt
    assert "later loads leave the person out" in receipt
    assert "the lake has nothing of this person" in run("forget-user", "u1", "--lake", overlapping).out
    assert 1 == run("forget-user", "u1", "--lake", overlapping / "elsewhere").code


@pytest.mark.parametrize("command", ["verify", "compact", "vacuum", "coverage", "sql", "catalog", "dbt init"])
def test_a_lake_that_does_not_exist_is_an_error(run: Run, tmp_path: Path, command: str) -> None:
    """A nightly job with a typo in its address would be green for ever."""
    arguments = {"sql": ["FROM loads"], "dbt init": [tmp_path / "project"]}.get(command, [])
    assert_one_sentence(run(*command.split(), *arguments, "--lake", tmp_path / "typo"), 1, "there is no lake")
    assert not (tmp_path / "typo").exists()


@pytest.mark.parametrize("address", ["s3:/bucket/lake", "zip://x", "github://x", "back\\slash"])
def test_an_address_that_cannot_be_a_lake_is_one_sentence(
    address: str, run: Run, export_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It must not become a folder ``s3:``, a lake whose catalog does not open, or an error of a library."""
    monkeypatch.chdir(tmp_path)
    assert_one_sentence(run("load", export_file, "--lake", address), 1, f"the lake address {address}")
    assert [export_file] == list(tmp_path.iterdir())


def test_a_folder_may_have_the_name_of_a_scheme(run: Run, export_file: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert 0 == run("load", export_file, "--lake", "./s3:/lake").code
    assert 0 == run("coverage", "--lake", "s3:/lake").code
    assert 0 == run("coverage", "--lake", f"file:{tmp_path}/s3:/lake").code


LOAD = ["load", "x", "--lake", "y"]
EXPORT = ["export", *WINDOW, "--lake", "y"]
WRONG_CALLS = {
    "no command of that name": (["lode"], "lode"),
    "an option that is not there": (["load", "x", "--lakes", "y"], "--lakes"),
    "no lake": (["load", "x"], "--lake"),
    "an empty lake": (["load", "x", "--lake", ""], "--lake is empty; give a folder"),
    "a lake of nothing": (["vacuum", "--lake", "None"], "--lake is empty; give a folder"),
    "no file": (["load", "--lake", "y"], "FILES"),
    "half a window": ([*LOAD, "--since", "2026-01-01"], "give both --since and --until"),
    "a naive time": ([*LOAD, "--since", "2026-01-01T10:00", "--until", "2026-01-02"], "has no time zone"),
    "no time": ([*LOAD, "--since", "yesterday", "--until", "2026-01-02"], "is not a time"),
    "a zero-length window": ([*LOAD, "--since", "2026-01-01", "--until", "2026-01-01"], "zero length"),
    "no duration": ([*EXPORT, "--channel", "a:b", "--lookback", "a week"], "write 90s, 15m, 36h or 7d"),
    "no channel": ([*EXPORT, "--channel", "general"], "write TYPE:ID"),
    "no key": ([*EXPORT, "--channel", "a:b"], "--api-key"),
    "no shape": (["sandbox", "--shape", "round"], "typed"),
    "a type and another": (
        [*LOAD, "--promote", "messages.x=BIGINT", "--promote", "messages.x=DOUBLE"], "messages.x is promoted twice"
    ),
    "no corpus": (["sandbox", "--data", "no-such-file"], "there is no corpus file"),
    "a folder for a corpus": (["sandbox", "--data", "/"], "there is no corpus file"),
    "no host": (["sandbox", "--host", ""], "an empty host"),
    "no port": (["sandbox", "--port", "-1"], "port"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG_CALLS)
def test_a_wrong_call_exits_with_2(wrong: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script can distinguish its own mistake from work that failed; the sentence names the argument."""
    for name in ("STREAM_API_KEY", "STREAM_API_SECRET", "STREAM_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    arguments, part = WRONG_CALLS[wrong]
    ran = run(*arguments)
    assert (2, "") == (ran.code, ran.out)
    assert part in ran.err
    assert "Traceback" not in ran.err


def test_work_that_fails_exits_with_1(run: Run, export_file: Path, tmp_path: Path) -> None:
    """Each error is one sentence: what failed, where, and what to do."""
    lake = tmp_path / "lake"
    page = write_lines(tmp_path / "page.html", [b"<html>"])
    assert_one_sentence(run("load", page, "--lake", lake), 1, "page.html is an HTML page, and not an export file")
    assert_one_sentence(run("load", tmp_path / "none", "--lake", lake), 1, "none cannot be read: No such file")
    assert_one_sentence(run("load", export_file, "--lake", f"{export_file}/lake"), 1, "cannot write the lake at")
    assert_one_sentence(run("coverage", "--lake", lake / "other"), 1, "there is no lake at")
    nothing = write_lines(tmp_path / "nothing", [b'{"a":1}'])
    assert_one_sentence(
        run("load", nothing, "--lake", lake),
        1,
        "1 of 1 lines could not become rows, and 50 % are allowed; nothing was loaded. The first is line 1 of nothing",
        "allow more (--max-rejected)",
    )
    assert not lake.exists()
    bad = write_lines(tmp_path / "bad", [line("message", message()), b"{"])
    assert_one_sentence(
        run("load", bad, "--lake", lake, "--strict"), 1, "could not become rows, and 0 are allowed; nothing was loaded"
    )
    run("load", export_file, "--lake", lake)
    assert_one_sentence(run("sql", "SELECT nothing FROM messages", "--lake", lake), 2, "the query is wrong")


def test_a_json_error_leaves_stdout_empty(run: Run, tmp_path: Path) -> None:
    """A script that parses stdout must not find half an answer there."""
    assert_one_sentence(run("load", tmp_path / "none", "--lake", tmp_path / "lake", "--json"), 1)


# Processes


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_the_sandbox_says_where_it_listens_and_ends_cleanly(
    ending: signal.Signals, start: Callable[..., subprocess.Popen[str]]
) -> None:
    """Scripts wait for that line, and a supervisor's signal is not a failure."""
    process = start("sandbox", "--port", "0", "--task-seconds", "0.1", "--no-rate-limit")
    assert process.stdout is not None
    (url,) = re.fullmatch(r"listening on (http://127\.0\.0\.1:\d+)\n", process.stdout.readline()).groups()  # type: ignore[union-attr]
    with SandboxControl(url) as control:
        assert control.is_ready()
    process.send_signal(ending)
    out, err = process.communicate(timeout=60)
    assert (0, "", "") == (process.returncode, out, err)


def cpu_seconds(process: subprocess.Popen[str]) -> float:
    """Return the CPU time that a process has used: it grows with what the process does, however busy the machine is."""
    used = psutil.Process(process.pid).cpu_times()
    return used.user + used.system


def wait_until(process: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    """Wait until a condition on a process holds. The test's own timeout bounds it."""
    while not condition():
        assert process.poll() is None
        time.sleep(0.01)


def has_opened(process: subprocess.Popen[str], name: str) -> bool:
    for file in Path(f"/proc/{process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            if name == file.readlink().name:
                return True
    return False


def test_ctrl_c_ends_a_query(small_lake: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
    """A person who asked for too much wants the terminal back at once."""
    endless = "SELECT count(*) FROM range(100000000) a, range(100000) b WHERE (a.range * b.range) % 7 = 3"
    process = start("sql", endless, "--lake", str(small_lake))
    wait_until(process, lambda: has_opened(process, "catalog.duckdb"))
    # Only the query itself can use a second of CPU time from here on.
    before = cpu_seconds(process)
    wait_until(process, lambda: cpu_seconds(process) > before + 1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert (1, "", "stopped") == (process.returncode, out, err.strip())


def test_a_port_that_is_taken_is_one_sentence(run: Run, sandbox: Sandbox) -> None:
    """This is the most common reason for a server not to start."""
    port = sandbox.url.rsplit(":", 1)[1]
    assert_one_sentence(
        run("sandbox", "--port", port), 2, f"cannot listen on 127.0.0.1:{port}", "choose another --port"
    )


def test_a_reader_that_goes_away_leads_to_no_traceback(
    small_lake: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    """``chatexport sql ... | head`` closes the pipe in the middle of the output."""
    process = start("sql", "SELECT * FROM range(200000)", "--lake", str(small_lake), "--json")
    assert process.stdout is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()
    assert process.wait(timeout=60) in (0, 1)


def test_output_that_cannot_be_printed_is_one_sentence(
    run: Run, export_file: Path, tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    """A full disk under ``> report.json`` is not an error inside chatexport, and the load is committed."""
    lake = ("--lake", str(tmp_path / "lake"))
    for arguments in (["load", str(export_file)], ["coverage", "--json"], ["coverage"]):
        process = start("sh", "-c", 'exec "$0" "$@" > /dev/full', CHATEXPORT, *arguments, *lake, program=())
        err = process.communicate(timeout=60)[1]
        assert_one_sentence(Ran(process.returncode, "", err), 1, "cannot print to stdout: No space left on device")
    assert 1 == run("sql", "SELECT count(*) FROM messages", *lake, "--json").json["rows"][0][0]


def test_text_that_the_terminal_cannot_show_is_escaped(
    run: Run, small_lake: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    """In a container without a locale, a query over text in any language must not fail."""
    lake = ("--lake", str(small_lake))
    assert_one_sentence(run("sql", "SELECT '\udcff'", *lake), 2, "not UTF-8")
    process = start("sql", "SELECT chr(233) AS text", *lake, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert ("text\n\\xe9", "", 0) == (*map(str.strip, process.communicate(timeout=60)), process.returncode)


def test_an_error_inside_chatexport_is_one_sentence(tmp_path: Path) -> None:
    """The sentence says how to get the details for a report, and quotes no text."""
    code = (
        "import sys; from airflow_provider_chatexport import cli\n"
        "@cli.cli.command()\ndef burst(): raise ZeroDivisionError('a text of somebody')\n"
        "cli.main(['burst'])"
    )
    ran = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (1, "", 1) == (ran.returncode, ran.stdout, ran.stderr.count("\n"))
    assert "ZeroDivisionError" in ran.stderr
    assert "a text of somebody" not in ran.stderr

"""``chatexport sync`` over a real sandbox: what is missing is exported, and nothing else, whatever goes wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fsspec
import pytest
from command_line import Ran, Run, assert_one_sentence
from export_objects import channel, line, message, write_lines
from moto.server import ThreadedMotoServer

from airflow_provider_chatexport.core.times import format_rfc3339, parse_rfc3339
from airflow_provider_chatexport.lake import Lake
from airflow_provider_chatexport.sandbox import Sandbox

RUST, STRIPE = "messaging:rust", "commerce:stripe"
EXPORTS, FILES = "/api/v2/chat/export_channels", "/download"
HOUR = timedelta(hours=1)
NOW = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
Start = Callable[..., subprocess.Popen[str]]


def ago(hours: float) -> str:
    return format_rfc3339(NOW - hours * HOUR)


@pytest.fixture
def sandbox(start_sandbox: Any, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """A sandbox whose clock stands still: how long a run takes must not decide what the next one has to do.

    The hour may have changed since the tests were collected.
    """
    monkeypatch.setattr(sys.modules[__name__], "NOW", datetime.now(UTC).replace(minute=0, second=0, microsecond=0))
    running: Sandbox = start_sandbox(task_s=0.0, frozen_clock=True)
    return running


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    return tmp_path / "lake"


@pytest.fixture
def sync(run: Run, service: Sandbox, lake: Path) -> Callable[..., Ran]:
    """Run ``chatexport sync`` over one lake."""
    return lambda *arguments: run("sync", "--lake", lake, *arguments)


@pytest.fixture
def messages(service: Sandbox) -> dict[str, str]:
    """Add a message to a channel for each of the last twelve hours; return the texts by id."""
    texts = {f"m{hours}": f"sent {hours} hours ago" for hours in range(1, 13)}
    for hours, (message_id, text) in zip(range(1, 13), texts.items(), strict=True):
        service.control.add_message(
            RUST, id=message_id, text=text, created_at=NOW - hours * HOUR, user_id="ann", attachments=[]
        )
    return texts


def n_exports(service: Sandbox) -> int:
    """Return how many exports the sandbox has started."""
    return sum(request.status == 201 for request in service.control.requests(EXPORTS))


def rows(lake: Path | str, query: str) -> list[tuple[Any, ...]]:
    with Lake(lake) as opened:
        return opened.sql(query).fetchall()


def texts(lake: Path | str) -> dict[str, str]:
    """Return the added messages that the lake shows, by id."""
    return dict(rows(lake, "SELECT id, text FROM messages WHERE user_id = 'ann'"))


def windows(lake: Path) -> list[tuple[str | None, str | None]]:
    """Return the window of every load, oldest first, in hours ago."""
    found = rows(lake, "SELECT since, until FROM loads ORDER BY since NULLS FIRST, until")
    return [tuple(moment and round((NOW - moment) / HOUR, 1) for moment in window) for window in found]  # type: ignore[misc]


# What is exported


def test_a_lake_is_brought_up_to_now_and_a_second_run_does_nothing(
    sync: Callable[..., Ran], service: Sandbox, lake: Path, messages: dict[str, str]
) -> None:
    """A job that runs every hour needs no state but the lake, and a run by hand in between costs no export."""
    first = sync("--channel", RUST, "--since", ago(12))
    assert (0, "") == (first.code, first.err)
    assert f"{RUST}, " in first.out
    assert "12 messages, load " in first.out
    assert "1 window loaded; 1 channel, up to 20" in first.out
    assert messages == texts(lake)
    second = sync()
    assert (0, "") == (second.code, second.err)
    assert "nothing to do: no window is missing; 1 channel, up to 20" in second.out
    assert 1 == n_exports(service)


def test_only_gaps_are_exported(run: Run, sync: Callable[..., Ran], lake: Path, messages: dict[str, str]) -> None:
    """A failed month in the middle, and the time since the last export; what is covered is left alone."""
    for since, until in ((10, 8), (6, 4)):
        run("export", "--channel", RUST, "--since", ago(since), "--until", ago(until), "--lake", lake)
    assert 4 == len(texts(lake))
    assert 0 == sync().code
    # The last one ends within the current hour, or the next one if the test began at its end.
    assert [(10, 8), (8, 6), (6, 4), (4, pytest.approx(0, abs=2))] == windows(lake)
    assert {name: text for name, text in messages.items() if name not in ("m11", "m12")} == texts(lake)
    assert "OK" in run("verify", "--lake", lake).out


def test_a_window_that_was_lost_is_exported_again(
    run: Run, sync: Callable[..., Ran], service: Sandbox, lake: Path, messages: dict[str, str]
) -> None:
    """Also at the start of what the lake covers, where no gap shows."""
    for since, until in ((10, 8), (8, 6)):
        run("export", "--channel", RUST, "--since", ago(since), "--until", ago(until), "--lake", lake)
    ((lost,),) = rows(lake, "SELECT DISTINCT _load_id FROM messages WHERE id = 'm9'")
    for path in lake.glob(f"**/{lost}-*"):
        path.unlink()
    assert 0 == run("repair", "--lake", lake).code
    assert {"m7", "m8"} == set(texts(lake))
    service.control.advance_clock(HOUR / 60)
    assert 0 == sync().code
    assert {f"m{hours}" for hours in range(2, 11)} <= set(texts(lake))
    assert "OK" in run("verify", "--lake", lake).out


def test_a_channel_that_the_lake_does_not_know_has_its_whole_history_exported(
    run: Run, sync: Callable[..., Ran], service: Sandbox, lake: Path
) -> None:
    """The list of channels has grown; the channel that was there before is only brought up to date."""
    run("export", "--channel", RUST, "--since", ago(2), "--until", ago(1), "--lake", lake)
    ran = sync("--channel", RUST, "--channel", STRIPE)
    assert (0, "") == (ran.code, ran.err)
    assert f"{STRIPE}, the whole history: " in ran.out
    (whole,) = [
        entry
        for entry in json.loads(run("coverage", "--lake", lake, "--json").out)["coverage"]
        if entry["cid"] == STRIPE
    ]
    assert (None, sum(1 for _ in service.world.messages(STRIPE))) == (whole["since"], whole["messages"])
    assert "nothing to do: no window is missing; 2 channels" in sync().out


def test_channels_may_come_from_a_query_and_from_a_list(sync: Callable[..., Ran], service: Sandbox) -> None:
    """As in the operator; a query finds what was created since the last run."""
    ran = sync("--query", '{"type": "team"}', "--channel", f"{RUST},{STRIPE}", "--since", ago(2), "--json")
    expected = {RUST, STRIPE, *(cid for cid in service.world.cids if cid.startswith("team:"))}
    (load,) = ran.json["loads"]
    assert (expected, len(expected)) == (set(load["channels"]), ran.json["n_channels"])


def test_a_lookback_exports_late_changes_again(
    sync: Callable[..., Ran], service: Sandbox, lake: Path, messages: dict[str, str]
) -> None:
    """It comes with new messages. A run that has none to export repeats nothing."""
    sync("--channel", RUST, "--since", ago(12))
    service.control.edit_message("m1", text="edited")
    service.control.edit_message("m9", text="edited")
    assert "nothing to do" in sync("--lookback", "4h").out
    service.control.advance_clock(HOUR)
    assert 0 == sync("--lookback", "4h").code
    assert messages | {"m1": "edited"} == texts(lake)
    service.control.advance_clock(HOUR)
    sync("--lookback", "30d")
    assert messages | {"m1": "edited", "m9": "edited"} == texts(lake)
    assert 12 == pytest.approx(max(since for since, _ in windows(lake))), "not before the first covered moment"


def test_long_gaps_are_split_into_loads(sync: Callable[..., Ran], lake: Path, messages: dict[str, str]) -> None:
    """The cuts lie at whole multiples of the length, so that channels with different gaps share windows."""
    ran = sync("--channel", RUST, "--since", ago(12), "--max-window", "5h", "--json")
    loads = ran.json["loads"]
    spans = [tuple(parse_rfc3339(load["window"][end]) for end in ("since", "until")) for load in loads]
    assert 0 == ran.code
    assert all(until - since <= 5 * HOUR for since, until in spans)
    assert [since for since, _ in spans[1:]] == [until for _, until in spans[:-1]]
    assert {0} == {since.timestamp() % (5 * HOUR).total_seconds() for since, _ in spans[1:]}
    assert len(spans) == len(windows(lake)) >= 3
    assert messages == texts(lake)


def test_a_dry_run_prints_the_plan_and_does_nothing(sync: Callable[..., Ran], service: Sandbox, lake: Path) -> None:
    """It starts no export, and not even creates the lake."""
    wanted = ("--channel", RUST, "--since", ago(2), "--max-window", "1h", "--dry-run")
    ran = sync(*wanted)
    assert (0, "") == (ran.code, ran.err)
    assert "3 windows would be exported; 1 channel, up to 20" in ran.out
    assert 1 + 3 + 1 == len(ran.out.splitlines())
    plan = sync(*wanted, "--json").json
    assert {"channels": [RUST], "window": {"since": ago(2), "until": ago(1)}} == plan["plan"][0]
    whole = sync("--channel", RUST, "--dry-run", "--json").json["plan"]
    assert [{"channels": [RUST], "window": None}] == whole
    assert 0 == n_exports(service)
    assert not lake.exists()


def test_the_report_is_one_json_object(sync: Callable[..., Ran], messages: dict[str, str]) -> None:
    """A script finds every load in it, and what is still missing."""
    value = sync("--channel", RUST, "--since", ago(12), "--json").json
    assert {"until", "n_channels", "plan", "loads", "failed", "unknown_channels", "stopped", "seconds"} == value.keys()
    (load,) = value["loads"]
    of_the_load = {"load_id", "exported_at", "lines", "rows", "rejected", "vanished", "retention", "bytes_in"}
    assert {"channels", "window"} | of_the_load == load.keys()
    assert (12, [], [], None) == (
        load["rows"]["messages"],
        value["failed"],
        value["unknown_channels"],
        value["stopped"],
    )
    assert {"plan": [], "loads": []} == {name: sync("--json").json[name] for name in ("plan", "loads")}


def test_the_end_of_what_is_missing_is_told_by_the_clock_of_the_service(
    sync: Callable[..., Ran], service: Sandbox
) -> None:
    """This machine's clock may be wrong: it would export what is not complete yet, or leave out what is."""
    at_the_service = service.control.advance_clock(timedelta(days=40))
    until = parse_rfc3339(sync("--channel", RUST, "--since", ago(1), "--grace-period", "10m", "--json").json["until"])
    assert (
        timedelta(0) <= until - (at_the_service - timedelta(minutes=10)) + timedelta(seconds=2) < timedelta(minutes=1)
    )


# What goes wrong


WRONG_CALLS = {
    "no channel and an empty lake": ([], "covers no channel yet; name channels, or give a query"),
    "no channel found": (["--query", '{"type": "no-such-type"}'], "the query finds no channel"),
    "no query": (["--query", "team"], "the filter conditions are not a JSON object"),
    "no channel name": (["--channel", "rust"], "write TYPE:ID"),
    "a start in the future": (["--channel", RUST, "--since", "2100-01-01"], "--since is 2100-01-01"),
    "a window of no length": (["--channel", RUST, "--max-window", "0s"], "--max-window is 0:00:00"),
    "no time to wait": (["--channel", RUST, "--wait-timeout", "0s"], "--wait-timeout is zero"),
}


@pytest.mark.parametrize("wrong", WRONG_CALLS)
def test_a_wrong_call_exits_with_2_and_exports_nothing(
    wrong: str, sync: Callable[..., Ran], service: Sandbox, lake: Path
) -> None:
    arguments, part = WRONG_CALLS[wrong]
    assert_one_sentence(sync(*arguments), 2, part)
    assert (0, False) == (n_exports(service), lake.exists())


def test_a_wrong_key_is_found_even_if_nothing_is_missing(sync: Callable[..., Ran], messages: dict[str, str]) -> None:
    """A job whose key was changed should fail now, and not at the next message."""
    sync("--channel", RUST, "--since", ago(12))
    assert_one_sentence(sync("--api-key", "another"), 1, "api_key")


def test_a_lake_that_cannot_be_written_costs_no_export(run: Run, service: Sandbox, export_file: Path) -> None:
    ran = run("sync", "--channel", RUST, "--lake", f"{export_file}/lake")
    assert_one_sentence(ran, 1, "the lake at")
    assert 0 == n_exports(service)


@pytest.mark.parametrize("do", ["expire", "truncate:1000", "status:503", "drop"])
def test_a_download_that_breaks_off_is_continued(
    do: str, sync: Callable[..., Ran], service: Sandbox, lake: Path, messages: dict[str, str]
) -> None:
    """The load has the whole file, under a fresh link."""
    service.control.fault(do, FILES)
    ran = sync("--channel", RUST, "--since", ago(12), "--json")
    assert (0, messages) == (ran.code, texts(lake))


def test_after_a_window_that_fails_the_others_are_loaded(
    sync: Callable[..., Ran], service: Sandbox, lake: Path, messages: dict[str, str]
) -> None:
    """One export that the service cannot make must not keep a lake back. The next run exports that window alone."""
    service.control.fault("fail-task", EXPORTS, after=1)
    arguments = ("--channel", RUST, "--since", ago(12), "--max-window", "5h")
    ran = sync(*arguments)
    assert (1, 1) == (ran.code, ran.err.count("\n"))
    assert "could not be loaded, and the next sync tries them again; the first is messaging:rust: export " in ran.err
    assert len(ran.out.splitlines()) - 1 == len(windows(lake))
    (failed,) = (each for each in ran.out.splitlines() if " load " not in each)
    assert "ended as failed at the service" in failed
    again = sync(*arguments, "--json").json
    assert ([again["plan"][0]["window"]], messages) == ([load["window"] for load in again["loads"]], texts(lake))


def test_a_failed_window_is_in_the_report(sync: Callable[..., Ran], service: Sandbox, messages: dict[str, str]) -> None:
    """It is JSON on stdout, and one sentence on stderr."""
    service.control.fault("fail-task", EXPORTS)
    ran = sync("--channel", RUST, "--since", ago(12), "--json")
    (failed,) = ran.json["failed"]
    assert (1, [RUST], []) == (ran.code, failed["channels"], ran.json["loads"])
    assert "ended as failed" in failed["problem"]


def test_a_service_that_goes_down_stops_the_run(
    sync: Callable[..., Ran], service: Sandbox, lake: Path, messages: dict[str, str]
) -> None:
    """All other windows would fail as well, after minutes each. What is loaded stays, and the next run goes on."""
    arguments = ("--channel", RUST, "--since", ago(12), "--max-window", "1h")
    service.control.fault("status:503", EXPORTS, after=9, times=1000)
    ran = sync(*arguments)
    assert (1, 1) == (ran.code, ran.err.count("chatexport: "))
    assert "windows are loaded, and the next sync goes on with the others" in ran.err
    n_loaded = len(windows(lake))
    assert 0 < n_loaded < 9
    service.control.clear_faults()
    assert 0 == sync(*arguments).code
    assert (messages, 13) == (texts(lake), pytest.approx(len(windows(lake)), abs=1))


def test_a_channel_that_the_service_does_not_know_fails_after_the_others(
    sync: Callable[..., Ran], lake: Path, messages: dict[str, str]
) -> None:
    """A typo in the list must be seen, and must not cost the other channels of its export."""
    ran = sync("--channel", f"{STRIPE},messaging:no-such,{RUST}", "--since", ago(12))
    assert (1, 1) == (ran.code, ran.err.count("\n"))
    assert "the service does not know messaging:no-such; remove what is wrong from --channel" in ran.err
    assert messages == texts(lake)
    assert [(2,)] == rows(lake, "SELECT count(DISTINCT cid) FROM coverage")
    assert [(1,)] == rows(lake, "SELECT count(*) FROM loads")


def test_a_channel_of_the_lake_that_is_gone_is_left_out(
    run: Run, sync: Callable[..., Ran], lake: Path, tmp_path: Path
) -> None:
    """Channels are deleted at the service every day, and the lake keeps them; a job must not fail for ever."""
    gone = [
        line("channel", channel("messaging:gone")),
        line("message", message(cid="messaging:gone", created_at=ago(5))),
    ]
    run("load", write_lines(tmp_path / "gone", gone), "--lake", lake)
    ran = sync()
    assert (0, "") == (ran.code, ran.err)
    assert "left out 1 channel that the service does not know: messaging:gone" in ran.out
    assert ["messaging:gone"] == sync("--json").json["unknown_channels"]


def test_a_channel_that_looks_empty_is_refused_and_can_be_accepted(
    sync: Callable[..., Ran], service: Sandbox, lake: Path, messages: dict[str, str]
) -> None:
    """The guard of every load holds here as well."""
    sync("--channel", RUST, "--since", ago(12))
    for message_id in messages:
        service.control.delete_message(message_id, hard=True)
    service.control.advance_clock(HOUR)
    ran = sync("--lookback", "30d")
    assert (1, True) == (ran.code, "(--accept-shrink)" in ran.err)
    assert messages == texts(lake)
    assert 0 == sync("--lookback", "30d", "--accept-shrink").code
    assert {} == texts(lake)


# Processes


def test_a_killed_run_goes_on_where_it_stopped(
    start: Start, sync: Callable[..., Ran], service: Sandbox, lake: Path, messages: dict[str, str]
) -> None:
    """What is loaded is not exported a second time; exports that were made and not loaded are."""
    arguments = ("--channel", RUST, "--since", ago(12), "--max-window", "2h")
    killed = start("sync", "--lake", str(lake), *arguments)
    assert killed.stdout is not None
    for _ in range(2):
        assert ", load " in killed.stdout.readline()
    killed.kill()
    killed.wait(timeout=60)
    n_before = len(windows(lake))
    service.control.clear_requests()
    assert 0 == sync(*arguments).code
    assert messages == texts(lake)
    assert len(windows(lake)) - n_before == n_exports(service)
    assert len(windows(lake)) == len(set(windows(lake)))


def test_a_run_that_is_killed_between_export_and_load_starts_another_export(
    start: Start, sync: Callable[..., Ran], service: Sandbox, lake: Path, messages: dict[str, str]
) -> None:
    """The first export stays unused at the service, and nothing of it is in the lake."""
    service.control.fault("stall-task", EXPORTS)
    killed = start("sync", "--lake", str(lake), "--channel", RUST, "--since", ago(12))
    while not service.control.requests("/api/v2/tasks"):
        assert killed.poll() is None
    killed.kill()
    killed.wait(timeout=60)
    assert 0 == sync("--channel", RUST, "--since", ago(12)).code
    assert (messages, 2, 1) == (texts(lake), n_exports(service), len(windows(lake)))


def test_two_runs_at_once_do_no_harm(
    start: Start, run: Run, service: Sandbox, lake: Path, messages: dict[str, str]
) -> None:
    """Both export the same windows. The newer exports are right, and no row is shown twice."""
    arguments = ("--channel", RUST, "--since", ago(12), "--max-window", "6h")
    both = [start("sync", "--lake", str(lake), *arguments) for _ in range(2)]
    ended = [(process.communicate(timeout=120)[1], process.returncode) for process in both]
    assert [("", 0)] * 2 == ended
    assert messages == texts(lake)
    assert [(12,)] == rows(lake, "SELECT count(*) FROM messages WHERE user_id = 'ann'")
    assert "OK" in run("verify", "--lake", lake).out
    assert "nothing to do" in run("sync", "--lake", lake).out


# An object store


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Yield the address of a lake in a bucket of an S3 server of its own."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    fs = fsspec.filesystem("s3")
    fs.mkdir("chat-sync")
    yield "s3://chat-sync/lake"
    fs.clear_instance_cache()
    server.stop()


def test_a_lake_in_an_object_store_is_kept_up_to_date(
    run: Run, service: Sandbox, bucket: str, messages: dict[str, str]
) -> None:
    """A container without a disk of its own runs it every hour."""
    assert_one_sentence(run("sync", "--lake", bucket), 2, "covers no channel yet")
    ran = run("sync", "--lake", bucket, "--channel", RUST, "--since", ago(12), "--json")
    assert (0, 12) == (ran.code, ran.json["loads"][0]["rows"]["messages"])
    assert messages == texts(bucket)
    assert "nothing to do" in run("sync", "--lake", bucket).out

"""``chatexport export`` over a real sandbox: channels and users, a window or the whole history."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from command_line import REPORT_KEYS, UBUNTU, WINDOW, Run, assert_one_sentence

from airflow_provider_chatexport.core.entities import Shape
from airflow_provider_chatexport.lake import Lake
from airflow_provider_chatexport.sandbox import Sandbox

RUST = "messaging:rust"


def test_export_loads_a_window_of_the_service(run: Run, service: Sandbox, tmp_path: Path) -> None:
    """Submit, wait, download and load one window without Airflow."""
    ran = run("export", "--channel", UBUNTU, *WINDOW, "--lake", tmp_path / "lake", "--json")
    assert (0, "") == (ran.code, ran.err)
    assert REPORT_KEYS <= ran.json.keys()
    assert 161 == ran.json["rows"]["messages"]


def test_a_lookback_starts_the_window_earlier(run: Run, service: Sandbox, tmp_path: Path) -> None:
    """The report has the window that was exported."""
    lake = tmp_path / "lake"
    report = run("export", "--channel", UBUNTU, *WINDOW, "--lake", lake, "--lookback", "1h", "--json").json
    assert "2025-01-01T08:00:00.000000Z" == report["window"]["since"]


@pytest.fixture
def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


EXPORT_FAILURES: dict[str, tuple[list[str], int, str]] = {
    "a wrong key": (["--api-key", "another"], 1, "api_key"),
    "a wrong secret": (["--api-secret", "not-the-secret-of-this-sandbox-at-all"], 1, "signature"),
    "an unknown channel": (["--channel", "messaging:nobody-knows-it"], 1, "nobody-knows-it"),
    "an empty key": (["--api-key", ""], 2, "the API key is missing"),
    "an empty secret": (["--api-secret", ""], 2, "the API secret is missing"),
    "an empty address": (["--base-url", ""], 2, "write scheme and host"),
    "a malformed address": (["--base-url", "sandbox"], 2, "write scheme and host"),
    "a zero-length window": (["--until", "2025-01-01T09:00:00Z"], 2, "zero length"),
    "a reversed window": (["--until", "2024-01-01T09:00:00Z"], 2, "is reversed"),
}


@pytest.mark.parametrize("failure", EXPORT_FAILURES)
def test_an_export_that_cannot_be_made_is_one_sentence(
    failure: str, run: Run, service: Sandbox, tmp_path: Path
) -> None:
    """Nothing is half-written, and no message contains the secret."""
    arguments, code, part = EXPORT_FAILURES[failure]
    ran = run("export", "--channel", UBUNTU, *WINDOW, "--lake", tmp_path / "lake", *arguments)
    assert (code, "", 1) == (ran.code, ran.out, ran.err.count("\n")), ran.err
    assert part.lower() in ran.err.lower()
    assert service.api_secret not in ran.err
    assert "not-the-secret" not in ran.err
    assert [] == [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_service_that_cannot_be_reached_is_one_sentence(
    run: Run, service: Sandbox, unused_port: int, tmp_path: Path
) -> None:
    """The sentence names the host, because mostly it is mistyped."""
    address = f"http://127.0.0.1:{unused_port}"
    ran = run("export", "--channel", UBUNTU, *WINDOW, "--lake", tmp_path / "lake", "--base-url", address)
    assert_one_sentence(ran, 1, f"127.0.0.1:{unused_port} cannot be reached", "check the address")


def test_a_lake_that_cannot_be_written_is_found_before_an_export_is_spent(
    run: Run, service: Sandbox, export_file: Path
) -> None:
    """Exports are limited to 60 a minute, and may take hours."""
    ran = run("export", "--channel", UBUNTU, *WINDOW, "--lake", f"{export_file}/lake")
    assert_one_sentence(ran, 1, "cannot write the lake at")
    assert [] == service.control.requests()


def test_an_export_that_takes_too_long_is_one_sentence(run: Run, start_sandbox: Any, tmp_path: Path) -> None:
    """The person sets the deadline; the sentence names the exports that go on at the service."""
    slow = start_sandbox(task_s=3600.0)
    ran = run(
        "export", "--channel", UBUNTU, *WINDOW, "--lake", tmp_path / "lake", "--wait-timeout", "0.2s",
        "--base-url", slow.url, "--api-key", slow.api_key, "--api-secret", slow.api_secret,
    )  # fmt: skip
    assert_one_sentence(ran, 1, "are not done")


@pytest.mark.parametrize("fault", ["status:429", "status:503", "slow:60"])
def test_the_deadline_of_an_export_holds_for_asking_for_it(
    fault: str, start: Callable[..., subprocess.Popen[str]], service: Sandbox, tmp_path: Path
) -> None:
    """Without a deadline, the client would ask a service that refuses or hangs again and again for minutes."""
    service.control.fault(fault, "/api/v2/chat/export_channels", method="POST", times=1000)
    lake = ("--lake", str(tmp_path / "lake"))
    process = start("export", "--channel", UBUNTU, *WINDOW, *lake, "--wait-timeout", "0.5s")
    out, err = process.communicate(timeout=60)
    assert (1, "", False) == (process.returncode, out, "Traceback" in err)
    assert "chatexport: " in err


# What to export


def rows(lake: Path, query: str) -> list[tuple[Any, ...]]:
    with Lake(lake) as opened:
        return opened.sql(query).fetchall()


def test_several_channels_may_be_separated_by_commas_or_found_by_a_query(
    run: Run, service: Sandbox, tmp_path: Path
) -> None:
    """As in the operator; a channel that is named and found is exported once."""
    lake = tmp_path / "lake"
    arguments = ("--channel", f"{UBUNTU}, {RUST}", "--query", '{"type": "team"}', "--channel", RUST)
    assert 0 == run("export", *arguments, *WINDOW, "--lake", lake).code
    teams = {cid for cid in service.world.cids if cid.startswith("team:")}
    assert {UBUNTU, RUST, *teams} == {cid for (cid,) in rows(lake, "SELECT DISTINCT cid FROM coverage")}
    assert 1 == len(service.control.requests("/api/v2/chat/export_channels"))


def test_the_whole_history_is_everything_up_to_the_export(run: Run, service: Sandbox, tmp_path: Path) -> None:
    """It is the first load of a channel: it covers all time before it, and verify finds no gap."""
    lake = tmp_path / "lake"
    report = run("export", "--channel", RUST, "--all", "--lake", lake, "--json").json
    assert {"since": None, "until": None} == report["window"]
    assert sum(1 for _ in service.world.messages(RUST)) == report["rows"]["messages"] > 1000
    (span,) = run("coverage", "--lake", lake, "--json").json["coverage"]
    assert (RUST, None, report["exported_at"], 1, report["rows"]["messages"]) == tuple(span.values())
    printed = run("coverage", "--lake", lake, "--png", tmp_path / "coverage.png")
    assert (0, True) == (printed.code, RUST in printed.out)
    assert (tmp_path / "coverage.png").read_bytes().startswith(b"\x89PNG")
    verified = run("verify", "--lake", lake)
    assert (0, True) == (verified.code, "there are no gaps" in verified.out)


def test_a_whole_history_replaces_older_windows_and_is_replaced_by_newer_ones(
    run: Run, service: Sandbox, tmp_path: Path
) -> None:
    """By the truth rule, each moment shows what its newest export says."""
    lake = tmp_path / "lake"
    day = datetime(2025, 1, 8, tzinfo=UTC)
    window = ("--since", day.isoformat(), "--until", (day + timedelta(days=1)).isoformat())
    service.control.add_message(RUST, id="m1", text="first", user_id="ann", created_at=day)
    for text, arguments in (("first", window), ("second", ("--all",)), ("third", window)):
        service.control.edit_message("m1", text=text)
        assert 0 == run("export", "--channel", RUST, *arguments, "--lake", lake).code
        assert [(text,)] == rows(lake, "SELECT text FROM messages WHERE id = 'm1'")
    assert 0 == run("verify", "--lake", lake).code


def test_a_whole_history_that_looks_empty_is_refused(run: Run, service: Sandbox, tmp_path: Path) -> None:
    """A hiccup of the service must not empty an archive."""
    lake, retired = tmp_path / "lake", "messaging:retired"
    deleted = ("--channel", retired, "--include-soft-deleted-channels", "--all", "--lake", lake)
    assert 0 == run("export", *deleted).code
    before = rows(lake, "SELECT id FROM messages ORDER BY id")
    for (message_id,) in before:
        service.control.delete_message(message_id, hard=True)
    ran = run("export", *deleted)
    assert_one_sentence(ran, 1, f"no message of {retired} where the lake shows {len(before)}", "--accept-shrink")
    assert before == rows(lake, "SELECT id FROM messages ORDER BY id")
    assert 0 == run("export", *deleted, "--accept-shrink").code
    assert [] == rows(lake, "SELECT id FROM messages")


WRONG_CALLS = {
    "nothing": ([*WINDOW], "there is nothing to export; give --channel, --query or --user"),
    "half a window": (["--channel", RUST, *WINDOW[:2]], "give --since and --until, or --all"),
    "no window": (["--channel", RUST], "give --since and --until, or --all"),
    "all and a window": (["--channel", RUST, "--all", *WINDOW], "--all exports the whole history; leave out --since"),
    "all and a lookback": (["--channel", RUST, "--all", "--lookback", "1d"], "leave out --since, --until and"),
    "a user and a window": (["--user", "ann", *WINDOW], "leave out channels, window, lookback and"),
    "a user and a channel": (["--user", "ann", "--channel", RUST], "leave out channels, window, lookback and"),
    "half a list of users": (["--user", "[ann"], "--user is text that cannot be read as a list of names; write the na"),
    "a number as a user": (["--user", "[17]"], "a value of type int; write names as text, such as ann-17"),
    "a list as a query": (["--query", "[]", "--all"], "are not a JSON object; write"),
    "a query that finds nothing": (["--query", '{"type": "none"}', "--all"], "the query finds no channel"),
}


@pytest.mark.parametrize("wrong", WRONG_CALLS)
def test_a_call_that_does_not_say_what_to_export_exits_with_2(
    wrong: str, run: Run, service: Sandbox, tmp_path: Path
) -> None:
    arguments, part = WRONG_CALLS[wrong]
    assert_one_sentence(run("export", *arguments, "--lake", tmp_path / "lake"), 2, part)
    assert [] == service.control.requests("/api/v2/chat/export_channels")


def test_users_have_names_unless_they_are_left_out(
    run: Run, start_sandbox: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A v2 file names people by id; who they are is in lines that only a flag brings."""
    by_id = start_sandbox(shape=Shape.ITEM)
    n_named = {}
    for number, flags in enumerate(([], ["--no-export-users"], ["--export-version", "v1"])):
        lake = tmp_path / f"lake{number}"
        ran = run(
            "export", "--channel", UBUNTU, *WINDOW, "--lake", lake, *flags,
            "--base-url", by_id.url, "--api-key", by_id.api_key, "--api-secret", by_id.api_secret,
        )  # fmt: skip
        assert 0 == ran.code, ran.err
        ((n_named[number],),) = rows(lake, "SELECT count(name) FROM users")
    assert (0, True, True) == (n_named[1], n_named[0] > 20, n_named[2] > 20)


# Users


def test_users_are_exported(run: Run, service: Sandbox, tmp_path: Path) -> None:
    """For a data-subject request without Airflow: their messages and reactions, in tables of their own."""
    lake = tmp_path / "lake"
    ann, ben, cleo = service.world.user_ids()[:3]
    ran = run("export", "--user", f"{ann},{ben}", "--user", cleo, "--lake", lake, "--json")
    assert (0, "") == (ran.code, ran.err)
    assert REPORT_KEYS <= ran.json.keys()
    assert 3 == ran.json["rows"]["user_export_users"]
    counted = dict(rows(lake, "SELECT export_user_id, count(*) FROM user_export_messages GROUP BY 1"))
    assert {each: service.world.count_messages_of(each) for each in (ann, ben, cleo)} == counted
    assert [(0,)] == rows(lake, "SELECT count(*) FROM messages")


def test_users_whom_no_task_exports_are_exported_one_by_one(run: Run, service: Sandbox, tmp_path: Path) -> None:
    """The service answers for one user at once, without a task."""
    lake = tmp_path / "lake"
    ann, ben = service.world.user_ids()[:2]
    service.control.fault("fail-task", "/api/v2/export/users")
    ran = run("export", "--user", ann, "--user", ben, "--lake", lake, "--json")
    assert (0, "", 2) == (ran.code, ran.err, ran.json["rows"]["user_export_users"])
    counted = dict(rows(lake, "SELECT export_user_id, count(*) FROM user_export_messages GROUP BY 1"))
    assert {each: service.world.count_messages_of(each) for each in (ann, ben)} == counted


def test_a_user_with_too_many_messages_does_not_cost_the_others_their_export(
    run: Run, prolific: Sandbox, tmp_path: Path
) -> None:
    """The sentence names the user, and says how to get the messages all the same."""
    lake = tmp_path / "lake"
    many, few = sorted(prolific.world.user_ids(), key=prolific.world.count_messages_of, reverse=True)[:2]
    address = ("--base-url", prolific.url, "--api-key", prolific.api_key, "--api-secret", prolific.api_secret)
    ran = run("export", "--user", f"{many},{few}", "--lake", lake, *address, "--json")
    assert (1, 1, 1) == (ran.code, ran.json["rows"]["user_export_users"], ran.err.count("\n"))
    for part in (many, "10,000", "channels of this user", "1 of 2 users are not exported"):
        assert part in ran.err
    assert [(few,)] == rows(lake, "SELECT export_user_id FROM user_export_users")
    assert_one_sentence(run("export", "--user", many, "--lake", lake, *address), 1, many, "channels of this user")


def test_an_unknown_user_is_one_sentence(run: Run, service: Sandbox, tmp_path: Path) -> None:
    assert_one_sentence(run("export", "--user", "no-such-user", "--lake", tmp_path / "lake"), 1, "check the user ids")

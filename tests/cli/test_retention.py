"""Retention on the command line: exports day by day, over real sockets, while a policy of the service deletes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from command_line import Ran, Run, assert_one_sentence

from airflow_provider_chatexport.core.times import format_rfc3339, parse_rfc3339
from airflow_provider_chatexport.lake import Lake
from airflow_provider_chatexport.sandbox import Sandbox

RUST, POLICIES = "messaging:rust", "/api/v2/chat/retention_policy"
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.fixture
def sandbox(start_sandbox: Any) -> Sandbox:
    """A sandbox whose clock moves only by the test."""
    running: Sandbox = start_sandbox(task_s=0.0, frozen_clock=True)
    return running


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    return tmp_path / "lake"


@pytest.fixture
def export(run: Run, service: Sandbox) -> Callable[..., Ran]:
    """Export and load the last day of a channel, and four days before it again."""

    def export(lake: Path, *arguments: str) -> Ran:
        now = service.control.now()
        window = ("--since", format_rfc3339(now - DAY), "--until", format_rfc3339(now), "--lookback", "4d")
        return run("export", "--channel", RUST, *window, "--lake", lake, "--no-export-users", *arguments)

    return export


def texts(lake: Path) -> dict[str, str]:
    with Lake(lake) as opened:
        return dict(opened.sql("SELECT id, text FROM messages WHERE user_id = 'ann'").fetchall())


def send(service: Sandbox, message_id: str, hours_ago: float) -> None:
    at = service.control.now() - hours_ago * HOUR
    service.control.add_message(RUST, id=message_id, text="first", user_id="ann", created_at=at, attachments=[])


def test_daily_exports_with_a_lookback_keep_all_that_they_ever_had(
    export: Callable[..., Ran], run: Run, service: Sandbox, tmp_path: Path
) -> None:
    """A policy of two days deletes behind the exports. What people edit and delete meanwhile comes along."""
    archive, mirror = tmp_path / "archive", tmp_path / "mirror"
    service.control.set_retention(old_messages=2 * DAY)
    expected: dict[str, str] = {}
    for day in range(6):
        for number in range(3):
            send(service, f"{day}.{number}", 20 - 8 * number)
            expected[f"{day}.{number}"] = "first"
        if day:
            service.control.edit_message(f"{day - 1}.1", text=f"edited on day {day}")
            service.control.delete_message(f"{day - 1}.2", hard=True)
            expected[f"{day - 1}.1"] = f"edited on day {day}"
            del expected[f"{day - 1}.2"]
        report = export(archive, "--retention", "service", "--json").json
        assert (48, 1) == (report["retention"]["max_age_hours"], report["retention"]["clipped"])
        assert int(day > 0) == report["vanished"]["messages"]
        assert expected == texts(archive)
        assert 0 == export(mirror).code
        service.control.advance_clock(DAY)
    # Without retention, the other lake has only what the service still has.
    assert {each for each in expected if each[0] in "345"} >= texts(mirror).keys()
    assert 0 == run("compact", "--lake", archive).code
    assert expected == texts(archive)
    assert "OK" in run("verify", "--lake", archive).out


def test_a_load_from_which_too_much_would_vanish_is_refused(
    export: Callable[..., Ran], service: Sandbox, lake: Path
) -> None:
    """The sentence has counts, ages and both ways out; the lake is as it was."""
    send(service, "old", 20)
    send(service, "young", 1)
    assert 0 == export(lake).code
    service.control.set_retention(old_messages=30 * HOUR)
    service.control.advance_clock(DAY)
    for limit in ("0", "49%"):
        ran = export(lake, "--max-vanished", limit)
        assert_one_sentence(ran, 1, "1 of the 2 messages", "1 day old", limit[:2], "--retention", "--max-vanished")
    assert ["old", "young"] == sorted(texts(lake))
    kept = export(lake, "--retention", "30h", "--max-vanished", "0")
    assert (0, "") == (kept.code, kept.err)
    assert "retention of 30 hours: 1 coverage entry clipped at 20" in kept.out
    service.control.advance_clock(timedelta(minutes=1))
    gone = export(lake, "--max-vanished", "50%")
    assert (0, ["young"]) == (gone.code, [*texts(lake)])
    assert "1 message vanished (1 day old): the load covers" in gone.out


def test_sync_asks_for_nothing_that_a_policy_has_emptied(run: Run, service: Sandbox, lake: Path) -> None:
    """After an outage of ten days only three are left at the service; the others stay a gap, and cost no export."""
    now = service.control.now()
    send(service, "m1", 2)
    window = ("--since", format_rfc3339(now - DAY), "--until", format_rfc3339(now))
    assert 0 == run("export", "--channel", RUST, *window, "--lake", lake).code
    service.control.set_retention(old_messages=3 * DAY)
    service.control.advance_clock(10 * DAY)
    send(service, "m2", 60)
    arguments = ("sync", "--lake", lake, "--retention", "service", "--lookback", "20d", "--json")
    horizon = service.control.now() - 3 * DAY + HOUR
    (planned,) = run(*arguments, "--dry-run").json["plan"]
    # The service says the time in whole seconds.
    assert abs(horizon - parse_rfc3339(planned["window"]["since"])) < timedelta(seconds=2)
    (load,) = run(*arguments).json["loads"]
    assert (72, 0) == (load["retention"]["max_age_hours"], load["vanished"]["messages"])
    assert ["m1", "m2"] == sorted(texts(lake))
    service.control.advance_clock(timedelta(seconds=2))
    assert [] == run("sync", "--lake", lake, "--retention", "3d", "--json").json["plan"]
    service.control.advance_clock(DAY)
    (planned,) = run("sync", "--lake", lake, "--retention", "3d", "--json", "--dry-run").json["plan"]
    since, until = (parse_rfc3339(planned["window"][end]) for end in ("since", "until"))
    assert until - since < DAY + timedelta(minutes=1)
    assert 2 == len(service.control.requests(POLICIES))


@pytest.mark.parametrize("command", ["export", "sync"])
def test_a_service_that_does_not_say_is_an_error_with_the_cure(
    run: Run, service: Sandbox, lake: Path, command: str
) -> None:
    """Nothing is exported, since a load could take for deleted what a policy took."""
    service.control.fault("status:403", POLICIES)
    window = ("--since", "2025-01-01", "--until", "2025-01-02") if command == "export" else ()
    ran = run(command, "--channel", RUST, *window, "--lake", lake, "--retention", "service")
    assert_one_sentence(ran, 1, "does not say how long it keeps messages", "30d")
    assert [] == service.control.requests("/api/v2/chat/export_channels")


def test_wrong_calls_say_what_to_write(run: Run, lake: Path, export_file: Path) -> None:
    """Files come without a service, users without a window, and no policy has an age of half an hour."""
    by_hand = run("load", export_file, "--lake", lake, "--retention", "service")
    assert_one_sentence(by_hand, 2, "--retention is 'service'", "without a service to ask; write a duration")
    users = run("export", "--user", "ann", "--lake", lake, "--retention", "30d")
    assert_one_sentence(users, 2, "leave out channels, window, lookback and retention")
    for value in ("30m", "x", "12h"):
        assert_one_sentence(run("load", export_file, "--lake", lake, "--retention", value), 2, value)
    now = format_rfc3339(datetime.now(UTC))
    loaded = run("load", export_file, "--lake", lake, "--retention", "30d", "--exported-at", now, "--json").json
    assert (720, {"messages": 0, "newest_age_days": None, "oldest_age_days": None}) == (
        loaded["retention"]["max_age_hours"],
        loaded["vanished"],
    )

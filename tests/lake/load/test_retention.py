"""Loads with retention: what a policy of the service deleted stays in the lake, and what people deleted goes."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from export_objects import channel, line, message, user, write_lines
from lakes import LakeProbe, load_file, write_export

from airflow_provider_chatexport import sync
from airflow_provider_chatexport.core.options import LoadOptions
from airflow_provider_chatexport.core.retention import MARGIN, Retention
from airflow_provider_chatexport.errors import CallError, ShrinkError
from airflow_provider_chatexport.lake import Lake
from airflow_provider_chatexport.lake.commits.channels import ChannelSet
from airflow_provider_chatexport.lake.commits.coverage import CoverageEntry
from airflow_provider_chatexport.lake.commits.record import LoadRecord
from airflow_provider_chatexport.lake.load.horizon import Horizons
from airflow_provider_chatexport.lake.load.vanished import Vanished
from airflow_provider_chatexport.lake.maintenance.compact import compact
from airflow_provider_chatexport.lake.storage.address import open_store

FIRST, NEXT = "2026-01-01T12:00:00Z", "2026-01-02T06:00:00Z"
# The horizon of a day's retention at the second export, with an hour's margin.
HORIZON = "2026-01-01T07:00:00.000000Z"
ALL = {f"m{hour}": (hour, "first") for hour in (1, 6, 7, 10)}


@pytest.fixture
def lake(tmp_path: Path) -> LakeProbe:
    """Four messages of one channel, as an export of the same day has them."""
    lake = LakeProbe(str(tmp_path / "lake"))
    load_file(lake, write_export(tmp_path / "first", ALL), 0, 12, FIRST)
    return lake


def shown(lake: LakeProbe) -> dict[str, str]:
    """Return the texts by id, and check that each id has one row, before and after a compaction."""
    texts = lake.texts()
    assert len(texts) == lake.value("SELECT count(*) FROM messages")
    compact(open_store(lake.uri))
    assert (texts, len(texts)) == (lake.texts(), lake.value("SELECT count(*) FROM messages"))
    lake.assert_glob_equals_view()
    return texts


def lake_record(lake: LakeProbe, load_id: str) -> dict[str, Any]:
    (record,) = (each for each in lake.records() if each["load_id"] == load_id)
    return record


def test_what_a_load_did_not_claim_is_no_gap_although_the_service_says_whole_seconds(tmp_path: Path) -> None:
    """Regression: half a second after a full second, an export knew half a second less than the next plan wanted."""
    path, lake = write_export(tmp_path / "export", {"m": (10, "x")}, day=2), Lake(tmp_path / "lake")
    window = {"since": datetime(2026, 1, 1, tzinfo=UTC), "until": datetime(2026, 1, 2, 20, tzinfo=UTC)}
    lake.load(path, **window, exported_at="2026-01-03T00:00:00.5Z", options=LoadOptions(retention="24h"))
    planned = sync.plan(
        lake.uri, None, **window, retention=Retention(max_age_hours=24), now=datetime(2026, 1, 3, tzinfo=UTC)
    )
    assert () == planned.windows


def test_what_a_policy_deleted_stays_and_what_a_person_deleted_goes(lake: LakeProbe, tmp_path: Path) -> None:
    """A day's retention: messages from before the horizon stay as the last export knew them."""
    newer = write_export(tmp_path / "newer", {"m10": (10, "edited")})
    report = load_file(lake, newer, 0, 12, NEXT, retention="24h")
    assert {"m1": "first", "m6": "first", "m10": "edited"} == shown(lake)
    value = report.to_json()
    assert {"max_age_hours": 24, "horizon": HORIZON, "clipped": 1} == value["retention"]
    assert {"messages": 1, "newest_age_days": 0, "oldest_age_days": 0} == value["vanished"]
    assert [HORIZON] == [entry["since"] for entry in lake_record(lake, value["load_id"])["coverage"]["entries"]]


def test_a_newer_export_replaces_what_it_still_has_from_before_its_horizon(lake: LakeProbe, tmp_path: Path) -> None:
    """A policy cleans slowly, so an export may have such messages: their newest state is right, once each."""
    newer = write_export(tmp_path / "newer", {"m1": (1, "edited"), "m10": (10, "first")})
    report = load_file(lake, newer, 0, 12, NEXT, retention="24h")
    assert {"m1": "edited", "m6": "first", "m10": "first"} == shown(lake)
    assert 1 == report.vanished.n_messages


def test_an_export_from_before_its_horizon_claims_nothing_and_is_kept(lake: LakeProbe, tmp_path: Path) -> None:
    """A backfill of an old window brings in what the service still has, and takes nothing away."""
    newer = write_export(tmp_path / "newer", {"m1": (1, "edited"), "late": (2, "found")})
    report = load_file(lake, newer, 0, 12, "2026-01-05T00:00:00Z", retention="1d")
    assert ((), 1) == (report.record.coverage, report.to_json()["retention"]["clipped"])
    assert {**dict.fromkeys(ALL, "first"), "m1": "edited", "late": "found"} == shown(lake)
    assert not report.vanished
    load_file(lake, write_export(tmp_path / "newest", {"m10": (10, "x")}), 0, 12, "2026-01-06T00:00:00Z")
    assert {"m10": "x"} == shown(lake)


def test_a_file_by_hand_claims_from_its_horizon_on(lake: LakeProbe, tmp_path: Path) -> None:
    """Without a window a file covers its first to its last message, as far as the service still had all."""
    newer = write_export(tmp_path / "newer", {"m1": (1, "first"), "m10": (10, "first")})
    load_file(lake, newer, None, None, NEXT, retention=timedelta(days=1))
    assert dict.fromkeys(["m1", "m6", "m10"], "first") == shown(lake)


@pytest.mark.parametrize("retention", [Retention(), "30d"])
def test_a_service_that_has_deleted_nothing_is_right_about_everything(
    lake: LakeProbe, tmp_path: Path, retention: Any
) -> None:
    """Without a policy, and while every message is younger than its age, nothing is clipped."""
    report = load_file(lake, write_export(tmp_path / "newer", {"m1": (1, "x")}), 0, 12, NEXT, retention=retention)
    assert {"m1": "x"} == shown(lake)
    assert (0, 3) == (report.to_json()["retention"]["clipped"], report.vanished.n_messages)


def test_a_load_says_what_vanishes_and_how_old_it_is(
    lake: LakeProbe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Without retention a policy empties an archive from its old end, and its owner has to notice."""
    load_file(lake, write_export(tmp_path / "newer", {"m10": (10, "first")}), 0, 12, "2026-01-04T08:00:00Z")
    assert "3 messages vanished (3 days old), because load " in caplog.text
    assert "if a retention policy of the service deleted them, load with retention" in caplog.text


@pytest.mark.parametrize(
    ("max_vanished", "allowed"),
    [(None, True), (3, True), (2, False), (0, False), (0.75, True), (0.74, False), (1.0, True)],
)
def test_a_load_from_which_too_much_would_vanish_is_refused(
    lake: LakeProbe, tmp_path: Path, max_vanished: float | None, allowed: bool
) -> None:
    """Three of four messages: as a count, and as a share of what the lake shows there. Nothing is written then."""
    newer = write_export(tmp_path / "newer", {"m10": (10, "first")})
    before = lake.files()
    if allowed:
        load_file(lake, newer, 0, 12, NEXT, max_vanished=max_vanished)
        assert ["m10"] == [*lake.texts()]
        return
    sentence = r"3 of the 4 messages .* vanish \(0 to 1 day old\), and max_vanished allows (0|2|74 %);"
    with pytest.raises(ShrinkError, match=rf"{sentence} .*--retention.*--max-vanished"):
        load_file(lake, newer, 0, 12, NEXT, max_vanished=max_vanished)
    assert (before, 4) == (lake.files(), len(lake.texts()))


def test_what_is_kept_beyond_the_horizon_does_not_count_as_vanished(lake: LakeProbe, tmp_path: Path) -> None:
    """One message is gone inside of the retained span: one may vanish."""
    newer = write_export(tmp_path / "newer", {"m10": (10, "first")})
    with pytest.raises(ShrinkError, match="1 of the 2 messages"):
        load_file(lake, newer, 0, 12, NEXT, retention="1d", max_vanished=0)
    assert 1 == load_file(lake, newer, 0, 12, NEXT, retention="1d", max_vanished=1).vanished.n_messages


def test_a_channel_that_a_policy_emptied_is_no_shrink(lake: LakeProbe, tmp_path: Path) -> None:
    """The guard compares what the load claims, and it claims nothing there."""
    empty = write_lines(tmp_path / "empty", [line("channel", channel("a:1"))])
    with pytest.raises(ShrinkError, match=r"no message of a:1 where the lake shows 4.* with retention \(--retention\)"):
        load_file(lake, empty, 0, 12, "2026-01-05T00:00:00Z")
    load_file(lake, empty, 0, 12, "2026-01-05T00:00:00Z", retention="2d")
    assert dict.fromkeys(ALL, "first") == shown(lake)


def test_the_same_load_with_another_retention_stays_as_it_is(
    lake: LakeProbe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A load is what its exports make it; what it claims does not change afterwards, and the log says so."""
    newer = write_export(tmp_path / "newer", {"m10": (10, "first")})
    load_file(lake, newer, 0, 12, NEXT, retention="1d")
    with caplog.at_level(logging.WARNING):
        again = load_file(lake, newer, 0, 12, NEXT, retention="2d")
    assert again.already_loaded
    assert "already in the lake, written with different retention; keeping it" in caplog.text
    assert 24 == (again.retention or {})["max_age_hours"]


def test_files_come_without_a_service_to_ask(lake: LakeProbe, tmp_path: Path) -> None:
    """The sentence says what to write instead."""
    with pytest.raises(CallError, match=r"retention is 'service'; .* write a duration"):
        load_file(lake, write_export(tmp_path / "newer", {}), 0, 12, NEXT, retention="service")


def test_an_export_of_users_claims_no_window(lake: LakeProbe, tmp_path: Path) -> None:
    """It is the state of some users at one moment, and clips nothing."""
    lines = [line("user", user("u1")), line("message", message("m1", cid="a:1"))]
    report = load_file(lake, write_lines(tmp_path / "users", lines), None, None, NEXT, retention="1d")
    assert (None, ()) == (report.retention, report.record.coverage)


# The decision


def record(day: int, hours: int | None, *cids: str) -> LoadRecord:
    at = datetime(2026, 1, day, tzinfo=UTC)
    channels = ChannelSet.of(cids)
    entry = CoverageEntry(channels=channels, since=at - timedelta(hours=1), until=at, exported_at=at, load_id=f"{day}")
    facts = {} if hours == 0 else {"retention": {"max_age_hours": hours, "horizon": None, "clipped": 0}}
    return LoadRecord(
        load_id=f"{day}", exported_at=at, committed_at=at, since=None, until=None, flags={}, sources=(),
        coverage=(entry,), files=(), counts={}, facts=facts,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("horizon", "hours", "records"),
    [
        (None, None, []),
        (None, None, [record(1, 0, "a:1"), record(2, None, "a:1")]),
        (18, 48, []),
        (18, 48, [record(10, 48, "a:1"), record(19, 48, "a:1")]),
        (18, 48, [record(1, 240, "a:1")]),
        (19, None, [record(19, 24, "a:1")]),  # the policy ended after that load, and may have gone on until now
        (19, 96, [record(19, 24, "a:1")]),
        (16, 96, [record(15, 24, "a:1"), record(16, 96, "a:1")]),  # the next load knew that it had ended
        (17, 96, [record(16, 24, "a:1"), record(18, None, "a:1")]),
        (16, 96, [record(19, 24, "b:2")]),
        (16, 96, [record(21, 24, "a:1")]),  # a later export says nothing about this one
        (16, 96, [record(19, 0, "a:1")]),
    ],
)
def test_an_age_counts_until_the_next_load_asks(
    horizon: int | None, hours: int | None, records: list[LoadRecord]
) -> None:
    """What a policy deleted stays deleted after it ends or gets a longer age. An export of the 20th of January."""
    now = datetime(2026, 1, 20, tzinfo=UTC)
    expected = None if horizon is None else datetime(2026, 1, horizon, tzinfo=UTC) + MARGIN
    retention = Retention(max_age_hours=hours)
    assert expected == Horizons(records).of("a:1", retention, exported_at=now, moment=now)
    assert Horizons(records).of("a:1", None, exported_at=now, moment=now) is None


@pytest.mark.parametrize(
    ("age", "counts"), [("3 to 40 days old", {1: 0, 3: 2, 40: 1}), ("1 day old", {1: 1}), ("0 days old", {0: 5})]
)
def test_the_ages_of_what_vanished_are_those_of_the_newest_and_the_oldest(age: str, counts: dict[int, int]) -> None:
    """Days in which nothing vanished do not count."""
    vanished = Vanished.among({"age_days": days, "vanished": n, "edited": 1} for days, n in counts.items())
    assert (age, sum(counts.values())) == (vanished.age, vanished.n_messages)

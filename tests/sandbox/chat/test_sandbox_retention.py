"""Retention policies: what the service deletes for good as time passes."""

from __future__ import annotations

from datetime import timedelta

import pytest

from airflow_provider_chatexport.errors import CallError

SMALL = "messaging:rust"
DAY = timedelta(days=1)


@pytest.fixture
def calls(calls_to, start_sandbox):
    """Return a client of a sandbox whose clock moves only when the test moves it."""
    return calls_to(start_sandbox(frozen_clock=True, task_s=0))


def ids(calls, *cids):
    """Return the messages of an export, with what truncation hides."""
    created = calls.export(*cids, include_truncated_messages=True)
    return [message["id"] for message in calls.entities(created, "message")]


def test_old_messages_leave_exports_from_the_day_after_on(calls):
    """Cleaning begins 24 hours after a policy is enabled, and then goes on."""
    now = calls.control.now()
    for days in (31, 30, 29, 28):
        calls.control.add_message(SMALL, id=f"{days} days", created_at=now - days * DAY + timedelta(hours=1))
    calls.control.set_retention(old_messages=30 * DAY)
    assert ["31 days", "30 days", "29 days", "28 days"] == ids(calls, SMALL)[-4:]
    calls.control.advance_clock(DAY)
    assert ["29 days", "28 days"] == ids(calls, SMALL)
    calls.control.advance_clock(DAY - timedelta(seconds=1))
    assert ["29 days", "28 days"] == ids(calls, SMALL)
    calls.control.advance_clock(timedelta(seconds=1))
    assert ["28 days"] == ids(calls, SMALL)


def test_what_a_policy_deleted_never_comes_back(calls):
    """It is a hard delete, so neither a longer age nor the end of the policy restores it."""
    added = calls.control.add_message(SMALL, id="old", created_at=calls.control.now() - 40 * DAY)
    kept = calls.control.add_message(SMALL, id="new", created_at=calls.control.now() - DAY)
    calls.control.set_retention(old_messages=30 * DAY)
    calls.control.advance_clock(DAY)
    calls.control.set_retention()
    assert calls.http.get("/api/v2/chat/retention_policy").json()["policies"] == []
    calls.control.advance_clock(400 * DAY)
    assert [kept["id"]] == ids(calls, SMALL)
    with pytest.raises(CallError, match="no message"):
        calls.control.edit_message(added["id"], text="again")


def test_everything_about_a_deleted_message_is_gone(calls):
    """Exports of users, queries and counts agree with the export of the channel."""
    world = calls.sandbox.world
    root = next(message for message in world.messages(SMALL) if message["reply_count"] > 0)
    author = root["user"]["id"]
    kept = calls.control.add_message(SMALL, user_id=author, created_at=calls.control.now())
    calls.control.set_retention(old_messages=30 * DAY)
    calls.control.advance_clock(DAY)
    assert [kept["id"]] == ids(calls, *(cid for cid in world.cids if not world.channel_is_deleted(cid)))
    users = calls.export_users(author)
    assert [kept["id"]] == [message["id"] for message in calls.entities(users, "message")]
    assert list(calls.entities(users, "reaction")) == []
    assert world.count_messages_of(author) == 1
    assert world.message(root["id"]) is None
    (state,) = calls.query(filter_conditions={"cid": SMALL}).json()["channels"]
    assert [kept["id"]] == [message["id"] for message in state["messages"]]
    assert {read["unread_messages"] for read in state["read"]} == {0}


def test_unused_channels_are_deleted_whole(calls):
    """A channel with a message since then stays; of the others not even the name is left."""
    busy = calls.control.add_message(SMALL, created_at=calls.control.now())
    calls.control.set_retention(inactive_channels=30 * DAY)
    assert len(calls.cids(limit=30)) == 6
    calls.control.advance_clock(DAY)
    assert [SMALL] == calls.cids(limit=30)
    assert busy["id"] in ids(calls, SMALL)
    assert calls.export("livestream:ubuntu").status_code == 404
    assert calls.export("messaging:retired", include_soft_deleted_channels=True).status_code == 404
    with pytest.raises(CallError, match="cid of a channel"):
        calls.control.add_message("livestream:ubuntu", text="too late")


def test_the_policies_are_as_the_official_sdk_reads_them(calls):
    """Age in hours, times in nanoseconds; an unchanged policy keeps its time."""
    calls.control.set_retention(old_messages=30 * DAY)
    enabled_at = calls.control.now()
    calls.control.advance_clock(DAY)
    calls.control.set_retention(old_messages=30 * DAY, inactive_channels=43_800 * timedelta(hours=1))
    reply = calls.http.get("/api/v2/chat/retention_policy").json()
    old, inactive = reply["policies"]
    assert {"app_pk", "policy", "config", "enabled_at"} == old.keys() == inactive.keys()
    assert (old["policy"], old["config"]) == ("old-messages", {"max_age_hours": 720})
    assert (inactive["policy"], inactive["config"]) == ("inactive-channels", {"max_age_hours": 43_800})
    assert [enabled_at.timestamp(), calls.control.now().timestamp()] == pytest.approx(
        [policy["enabled_at"] / 1e9 for policy in (old, inactive)]
    )
    assert reply["duration"].endswith("ms")


@pytest.mark.parametrize("age", [timedelta(hours=23), timedelta(hours=43_801), timedelta(hours=48, seconds=1)], ids=str)
def test_other_ages_are_refused(calls, age):
    """As at the service: from a day to five years, in whole hours."""
    with pytest.raises(CallError, match="hours"):
        calls.control.set_retention(old_messages=age)
    with pytest.raises(CallError, match="hours"):
        calls.control.set_retention(inactive_channels=age)
    assert calls.http.get("/api/v2/chat/retention_policy").json()["policies"] == []

"""The whole history of channels, from the operator to the lake; and the users who are exported with it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support import EXPORTS, TaskInstance, TaskStateStore, exporting, loading, n_exports, run

from airflow_provider_chatexport.core.entities import Shape
from airflow_provider_chatexport.lake import Lake

RUST = "messaging:rust"
WHOLE = {"channels": [RUST], "window": "all", "since": None, "until": None}


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    return tmp_path / "lake"


@pytest.mark.parametrize("deferrable", [False, True])
def test_the_whole_history_covers_everything_up_to_the_export(connection, lake, deferrable) -> None:
    """The first load of a channel: no bounds go out, and nothing before the export is a gap."""
    receipts = run(exporting(**WHOLE, deferrable=deferrable))
    assert [None] == [receipt["request"]["window"] for receipt in receipts]
    summary = loading(receipts, lake).execute({})
    assert {"since": None, "until": None} == summary["window"]
    with Lake(lake) as opened:
        (span,) = opened.coverage().spans
        assert opened.verify().ok
    assert (RUST, None, sum(1 for _ in connection.world.messages(RUST))) == (span.cid, span.since, span.messages)
    assert receipts[0]["created_at"] == summary["exported_at"]


def test_a_retry_waits_for_the_same_export(connection) -> None:
    """Within a DAG run, the whole history is requested once, as a window is; a clear exports it as it is now."""
    context: dict[str, Any] = {"task_state_store": TaskStateStore(), "ti": TaskInstance()}
    first = run(exporting(**WHOLE, deferrable=True), context)
    assert first == run(exporting(**WHOLE, deferrable=True), context)
    assert 1 == n_exports(connection)
    assert first != run(exporting(**WHOLE, deferrable=True), {**context, "ti": TaskInstance(max_tries=3)})
    assert 2 == n_exports(connection)


def test_a_daily_run_after_the_whole_history_replaces_its_day(connection, lake) -> None:
    """By the truth rule: what changed since shows, and the rest stays."""
    control = connection.control
    control.add_message(RUST, id="m1", text="old", user_id="ann", created_at=datetime(2025, 1, 8, 12, tzinfo=UTC))
    loading(run(exporting(**WHOLE, deferrable=False)), lake).execute({})
    control.edit_message("m1", text="new")
    day = {"since": "2025-01-08T00:00:00Z", "until": "2025-01-09T00:00:00Z"}
    loading(run(exporting(channels=[RUST], **day, deferrable=False)), lake).execute({})
    with Lake(lake) as opened:
        assert [("new",)] == opened.sql("SELECT text FROM messages WHERE id = 'm1'").fetchall()
        assert {} == opened.gaps(until=control.now() - timedelta(hours=1))
        assert opened.verify().ok


# Users


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, True),
        ({"export_users": False}, False),
        ({"version": "v1"}, False),
        ({"version": "v1", "export_users": True}, False),
    ],
)
def test_users_are_exported_by_default_in_v2_only(arguments, expected) -> None:
    """v1 has them in its objects, and the service's description ties the flag to no version: it is not sent there."""
    (request,) = exporting(**arguments).plan({})
    assert expected == request.flags.export_users


def test_people_have_names_unless_users_are_left_out(start_sandbox, set_connection, lake) -> None:
    """A v2 file of the likely shape names people by id; who they are is in lines of their own."""
    sandbox = start_sandbox(shape=Shape.ITEM)
    set_connection(login=sandbox.api_key, password=sandbox.api_secret, host=sandbox.url)
    n_named = {}
    for export_users in (False, True):
        receipts = run(exporting(export_users=export_users, deferrable=False))
        loading(receipts, lake).execute({})
        with Lake(lake) as opened:
            ((n_named[export_users],),) = opened.sql("SELECT count(name) FROM users").fetchall()
    assert n_named[False] == 0
    assert n_named[True] > 20
    assert 2 == len([request for request in sandbox.control.requests(EXPORTS) if request.method == "POST"])

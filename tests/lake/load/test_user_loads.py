"""Exports of users in a lake: fetched or given by hand, newest of each user shown, and no channel the worse for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from export_objects import line, message, reaction, user, write_lines
from lakes import LakeProbe, client_of, load_file, write_export

from airflow_provider_chatexport import pipeline
from airflow_provider_chatexport.api.client import ChatExportClient
from airflow_provider_chatexport.api.polling import ExportPoller, wait_for_exports
from airflow_provider_chatexport.core.entities import ExportKind, Shape
from airflow_provider_chatexport.core.plan import plan_users
from airflow_provider_chatexport.core.receipt import Receipt
from airflow_provider_chatexport.core.window import Window
from airflow_provider_chatexport.errors import CallError, InputError
from airflow_provider_chatexport.lake.load.job import load_files
from airflow_provider_chatexport.lake.maintenance.verify import verify
from airflow_provider_chatexport.lake.storage.address import open_store
from airflow_provider_chatexport.sandbox import Sandbox
from airflow_provider_chatexport.sandbox.chat.world import World

FIRST, SECOND = "2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"


def busy_users(world: World, n_users: int = 2) -> list[str]:
    """Return the first users who both wrote and reacted."""
    ids = sorted(world.user_ids())
    busy = (each for each in ids if any(world.messages_of(each)) and any(world.reactions_by(each)))
    return list(islice(busy, n_users))


def exports_of_users(client: ChatExportClient, user_ids: list[str]) -> list[Receipt]:
    requests = plan_users(user_ids)
    receipts = [Receipt(task_id=client.submit_users(request), request=request) for request in requests]
    wait_for_exports(
        client,
        ExportPoller(
            [receipt.task_id for receipt in receipts], started_epoch_s=0.0, deadline_epoch_s=1e12, poll_s=0.01
        ),
    )
    return receipts


def told_by(world: World, user_ids: list[str]) -> tuple[dict[str, set[str]], dict[str, int]]:
    """An independent count: message ids and number of reactions per user."""
    return (
        {user_id: {message["id"] for message in world.messages_of(user_id)} for user_id in user_ids},
        {user_id: len(list(world.reactions_by(user_id))) for user_id in user_ids},
    )


def in_lake(lake: LakeProbe) -> tuple[dict[str, set[str]], dict[str, int]]:
    messages = lake.rows("SELECT export_user_id, list(id) FROM user_export_messages GROUP BY 1")
    reactions = lake.rows("SELECT export_user_id, count(*) FROM user_export_reactions GROUP BY 1")
    return {user_id: set(ids) for user_id, ids in messages}, dict(reactions)


def assert_in_order(lake: LakeProbe) -> None:
    assert verify(open_store(lake.uri), now=datetime(2030, 1, 1, tzinfo=UTC)).findings == ()


@pytest.mark.parametrize("shape", list(Shape))
def test_an_export_of_users_has_what_the_service_has_of_them(shape: Shape, start_sandbox: Any, lake: LakeProbe) -> None:
    """Whatever shape its lines have: users, what they wrote and how they reacted, and no more than their devices."""
    sandbox = start_sandbox(shape=shape)
    users = busy_users(sandbox.world)
    with client_of(sandbox) as client:
        report = pipeline.load_exports(client, exports_of_users(client, users), lake_uri=lake.uri)
    assert told_by(sandbox.world, users) == in_lake(lake)
    assert [[each] for each in users] == lake.rows("SELECT export_user_id FROM user_export_users ORDER BY 1")
    counts = report.record.counts["rows"]
    devices = {"other_entities"} if shape is Shape.ITEM else set()
    assert {name for name, count in counts.items() if count} == {
        "user_export_users", "user_export_messages", "user_export_reactions", *devices,
    }  # fmt: skip
    assert ((), None) == (report.record.coverage, report.record.since)
    assert_in_order(lake)


@pytest.mark.parametrize("family", ["", "/api/v2"])
@pytest.mark.parametrize("indent", [None, 2])
def test_the_answer_about_one_user_may_be_saved_and_loaded(
    family: str, indent: int | None, sandbox: Sandbox, lake: LakeProbe, tmp_path: Path
) -> None:
    """GET /users/{id}/export, with times as text or as nanoseconds, as it came or made readable."""
    (user_id,) = busy_users(sandbox.world, 1)
    answer = httpx.get(
        f"{sandbox.url}{family}/users/{user_id}/export",
        params={"api_key": sandbox.api_key},
        headers={"Authorization": jwt.encode({"server": True}, sandbox.api_secret), "stream-auth-type": "jwt"},
    )
    path = tmp_path / "user.json"
    path.write_text(json.dumps(answer.json(), indent=indent))
    load_files([path], lake_uri=lake.uri)
    assert told_by(sandbox.world, [user_id]) == in_lake(lake)
    assert 0 == lake.value("SELECT count(*) FROM user_export_messages WHERE user_id <> export_user_id")
    assert_in_order(lake)


def load_users(
    lake: LakeProbe, path: Path, *people: str, exported_at: str, texts: dict[str, str] | None = None
) -> None:
    lines = [line("user", user(person)) for person in people]
    lines += [line("message", message(each, text=text, user={"id": people[0]})) for each, text in (texts or {}).items()]
    lines.append(line("reaction", reaction("m9", people[0])))
    load_file(lake, write_lines(path, lines), None, None, exported_at)


def shown(lake: LakeProbe) -> list[list[Any]]:
    return lake.rows("SELECT export_user_id, id, text FROM user_export_messages ORDER BY ALL")


@pytest.mark.parametrize("newest_first", [False, True])
def test_all_that_is_shown_of_a_user_comes_from_the_newest_export(
    newest_first: bool, lake: LakeProbe, tmp_path: Path
) -> None:
    """A message deleted since must not come back out of an older export; other users are as they were."""
    loads: list[Callable[[], None]] = [
        lambda: load_users(lake, tmp_path / "a", "u1", exported_at=FIRST, texts={"m1": "old", "m2": "deleted since"}),
        lambda: load_users(lake, tmp_path / "b", "u2", exported_at=FIRST, texts={"m3": "of u2"}),
        lambda: load_users(lake, tmp_path / "c", "u1", exported_at=SECOND, texts={"m1": "new"}),
    ]
    for load in loads[::-1] if newest_first else loads:
        load()
    assert [["u1", "m1", "new"], ["u2", "m3", "of u2"]] == shown(lake)


def test_a_newer_export_without_messages_takes_the_older_ones_away(lake: LakeProbe, tmp_path: Path) -> None:
    """They were all deleted: what is shown is what the service knows."""
    load_users(lake, tmp_path / "a", "u1", exported_at=FIRST, texts={"m1": "old"})
    load_users(lake, tmp_path / "b", "u1", exported_at=SECOND)
    assert [] == shown(lake)
    assert [["u1"]] == lake.rows("SELECT id FROM user_export_users")


def test_a_channel_is_not_touched_by_an_export_of_users(lake: LakeProbe, tmp_path: Path) -> None:
    """One person's messages are not all that was written: nothing is covered, hidden, or counted as a message."""
    load_file(lake, write_export(tmp_path / "channel", {"m1": (10, "one"), "m2": (11, "two")}), 10, 12, FIRST)
    coverage = lake.rows("SELECT * FROM coverage")
    load_users(lake, tmp_path / "users", "u1", exported_at=SECOND, texts={"m1": "from an export of users"})
    assert ({"m1": "one", "m2": "two"}, coverage) == (lake.texts(), lake.rows("SELECT * FROM coverage"))
    assert_in_order(lake)


def test_both_kinds_of_export_may_be_one_load(
    client: ChatExportClient, exported: Callable[..., list[Receipt]], sandbox: Sandbox, lake: LakeProbe
) -> None:
    """A DAG may export both and load them together: window and coverage are those of the channels."""
    users = busy_users(sandbox.world)
    receipts = [*exports_of_users(client, users), *exported("2025-01-01T09:00:00Z", "2025-01-01T10:00:00Z")]
    record = pipeline.load_exports(client, receipts, lake_uri=lake.uri).record
    assert told_by(sandbox.world, users) == in_lake(lake)
    assert (161, 1) == (record.counts["rows"]["messages"], len(record.coverage))
    assert {"version": "v2"}.items() <= record.flags.items()
    assert datetime(2025, 1, 1, 9, tzinfo=UTC) == record.since


def test_files_of_both_kinds_given_by_hand_may_be_one_load(lake: LakeProbe, tmp_path: Path) -> None:
    """Each covers what is its own: the users nothing."""
    of_channel = write_export(tmp_path / "channel", {"m1": (10, "one")})
    of_users = write_lines(tmp_path / "users", [line("user", user("u1")), line("message", message("m5", cid="x:y"))])
    load_files([of_users, of_channel], lake_uri=lake.uri)
    assert [["a:1"]] == lake.rows("SELECT cid FROM coverage")
    assert [["u1", "m5", "text of m5"]] == shown(lake)


def test_a_window_of_an_export_of_users_is_a_mistake(lake: LakeProbe, tmp_path: Path) -> None:
    """It has none: rows would be cut, and coverage expected. A caller who knows better can say so."""
    path = write_lines(tmp_path / "export", [line("user", user("u1")), line("message", message("m1"))])
    window = Window.parse("2026-01-01", "2026-01-02")
    with pytest.raises(InputError, match=r"export looks like an export of users .* or say that it is an export of ch"):
        load_files([path], lake_uri=lake.uri, window=window)
    with pytest.raises(CallError, match="an export of users has no window; leave since and until out"):
        load_files([path], lake_uri=lake.uri, window=window, kind=ExportKind.USERS)
    assert set() == lake.files()
    load_files([path], lake_uri=lake.uri, window=window, kind=ExportKind.CHANNELS)
    assert {"m1": "text of m1"} == lake.texts()

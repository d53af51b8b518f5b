"""Exports from request to file: what is refused, the states of a task, what the file contains."""

from __future__ import annotations

import gzip
import json
import uuid
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from sandbox_calls import NS_PER_S

from airflow_provider_chatexport.core.entities import Shape
from airflow_provider_chatexport.core.times import format_rfc3339, parse_rfc3339, to_unix_ns
from airflow_provider_chatexport.sandbox.chat import message_objects
from airflow_provider_chatexport.sandbox.chat.world import Bounds

SMALL = "messaging:rust"
RETIRED = "messaging:retired"
TRUNCATED = "messaging:ubuntu-support"
BOTH = pytest.mark.parametrize("legacy", [False, True], ids=["v2", "legacy"])


def middle(world, cid=SMALL):
    """Return the time of a message in the middle of a channel's history."""
    messages = list(world.messages(cid))
    return parse_rfc3339(messages[len(messages) // 2]["created_at"])


@BOTH
def test_an_export_starts_with_201_and_a_task_id(calls_to, sandbox, legacy):
    """Official SDKs assert 36 characters and read a duration."""
    reply = calls_to(sandbox, legacy=legacy).export(SMALL)
    assert reply.status_code == 201
    assert {"task_id", "duration"} == reply.json().keys()
    assert reply.json()["task_id"] == str(uuid.UUID(reply.json()["task_id"]))
    assert reply.json()["duration"].endswith("ms")


@BOTH
def test_a_task_has_the_times_of_its_family(calls_to, sandbox, legacy):
    """The current SDK fails on strings, and the legacy one returns what it gets."""
    calls = calls_to(sandbox, legacy=legacy)
    task = calls.ended(calls.export(SMALL))
    assert {"task_id", "status", "created_at", "updated_at", "duration", "result"} == task.keys()
    assert (str if legacy else int) is type(task["created_at"]) is type(task["updated_at"])
    created_at = parse_rfc3339(task["created_at"]).timestamp() if legacy else task["created_at"] / NS_PER_S
    assert abs(created_at - datetime.now(UTC).timestamp()) < 60


def test_a_task_waits_runs_and_completes(calls_to, start_sandbox):
    """A client meets every state; the first one is waiting."""
    calls = calls_to(start_sandbox(task_s=1000, frozen_clock=True))
    created = calls.export(SMALL)
    waiting = calls.task(created.json()["task_id"])
    assert (waiting["status"], waiting["result"], waiting["error"]) == ("waiting", None, None)
    calls.control.advance_clock(timedelta(seconds=500))
    running = calls.task(created.json()["task_id"])
    assert running["status"] == "running"
    calls.control.advance_clock(timedelta(seconds=500))
    completed = calls.ended(created)
    assert completed["status"] == "completed"
    assert waiting["updated_at"] < running["updated_at"] < completed["updated_at"]


def test_the_former_status_endpoint_knows_channel_exports_only(calls_to, sandbox):
    """The legacy SDK still polls it; it never returned exports of users."""
    calls = calls_to(sandbox, legacy=True)
    channels, users = calls.export(SMALL), calls.export_users(sandbox.world.user_ids()[0])
    assert calls.ended(channels)["task_id"] == channels.json()["task_id"]
    reply = calls.http.get(f"/export_channels/{channels.json()['task_id']}")
    assert reply.json()["status"] == "completed"
    assert calls.http.get(f"/export_channels/{users.json()['task_id']}").status_code == 404


def test_an_unknown_task_is_named_in_the_error(calls):
    """Tests of three official SDKs look for these words."""
    reply = calls.http.get("/api/v2/tasks/none-such")
    assert (reply.status_code, reply.json()["code"]) == (404, 16)
    assert reply.json()["message"] == 'GetTask failed with error: "Can\'t find task with id "none-such""'


@pytest.mark.parametrize(
    ("body", "field"),
    [
        pytest.param({"channels": []}, "channels", id="no-channel"),
        pytest.param({"channels": None}, "channels", id="null"),
        pytest.param({"channels": "all"}, "channels", id="not-a-list"),
        pytest.param({"channels": ["messaging:rust"]}, "channels[0]", id="not-an-object"),
        pytest.param({"channels": [{"cid": SMALL}] * 26}, "channels", id="26-channels"),
        pytest.param({"channels": [{}]}, "channels[0].cid", id="neither-cid-nor-type-and-id"),
        pytest.param({"channels": [{"type": "messaging"}]}, "channels[0].cid", id="type-alone"),
        pytest.param({"channels": [{"cid": 5}]}, "channels[0].cid", id="cid-is-a-number"),
        pytest.param({"channels": [{"cid": "rust"}]}, "channels[0].cid", id="cid-without-colon"),
        pytest.param(
            {"channels": [{"cid": SMALL, "type": "a", "id": "b"}]}, "channels[0].cid", id="two-channels-in-one"
        ),
        pytest.param({"version": "v3"}, "version", id="version"),
        pytest.param({"version": 2}, "version", id="version-is-a-number"),
        pytest.param({"include_truncated_messages": "yes"}, "include_truncated_messages", id="flag"),
        pytest.param({"format": "xml"}, "format", id="format"),
        pytest.param({"format": "csv"}, "format", id="csv"),
        pytest.param({"include_fields": ["id"]}, "include_fields", id="fields-without-csv"),
    ],
)
def test_a_wrong_body_is_refused_with_the_fields_name(calls, body, field):
    """Without the field's name, a mistake among 25 channels is hard to find."""
    reply = calls.export(SMALL, **body)
    assert (reply.status_code, reply.json()["code"]) == (400, 4)
    assert [field] == list(reply.json()["exception_fields"])
    assert field in reply.json()["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"channels": NaN}', b"\xff", b'{"a":' * 2000])
def test_a_body_that_is_not_a_json_object_is_refused(calls, body):
    """It must not be a 500: the caller is wrong, not the service."""
    reply = calls.http.post("/api/v2/chat/export_channels", content=body)
    assert (reply.status_code, reply.json()["code"]) == (400, 4)


def test_a_body_too_big_is_413(calls):
    """The service has a number of its own for this."""
    reply = calls.http.post("/export_channels", content=b" " * (2 * 1024 * 1024 + 1))
    assert (reply.status_code, reply.json()["code"]) == (413, 22)


@pytest.mark.parametrize("bound", ["messages_since", "messages_until"])
@pytest.mark.parametrize("value", ["2026-01-01T00:00:00", "yesterday", True, 10**40, {}], ids=str)
def test_a_bound_that_is_not_an_instant_is_refused(calls, bound, value):
    """A time without a zone would be read in an unknown one."""
    reply = calls.export(channels=[{"cid": SMALL, bound: value}])
    assert (reply.status_code, reply.json()["code"]) == (400, 4)
    assert [f"channels[0].{bound}"] == list(reply.json()["exception_fields"])


def test_since_after_until_is_refused(calls):
    """A reversed window is a mistake and not an empty export."""
    window = {"messages_since": "2026-01-02T00:00:00Z", "messages_until": "2026-01-01T00:00:00Z"}
    assert calls.export(channels=[{"cid": SMALL, **window}]).status_code == 400


@BOTH
def test_one_unknown_channel_refuses_the_request(calls_to, sandbox, legacy):
    """Tests of the official SDK look for these words."""
    reply = calls_to(sandbox, legacy=legacy).export(SMALL, "messaging:none-such")
    assert (reply.status_code, reply.json()["code"]) == (404, 16)
    assert (
        reply.json()["message"] == 'ExportChannels failed with error: "Can\'t find channel with id messaging:none-such"'
    )


def test_a_soft_deleted_channel_needs_its_flag(calls):
    """Without the flag it does not exist, as for every other call."""
    assert calls.export(RETIRED).status_code == 404
    created = calls.export(RETIRED, include_soft_deleted_channels=True)
    assert len(list(calls.entities(created, "message"))) == 60


def test_type_and_id_name_the_same_channel_as_cid(calls_to, start_sandbox):
    """The docs have only type and id; one SDK sends both."""
    calls = calls_to(start_sandbox(attachment_links=False))
    by_cid = calls.file(calls.export(SMALL))
    assert by_cid == calls.file(calls.export(channels=[{"type": "messaging", "id": "rust"}]))


@BOTH
def test_bounds_may_be_strings_and_nanoseconds(calls_to, sandbox, legacy):
    """The official SDKs of the current family send strings, while the API description says numbers."""
    calls, world = calls_to(sandbox, legacy=legacy), sandbox.world
    since, until = middle(world), middle(world) + timedelta(days=1)
    expected = [message["id"] for message in world.messages(SMALL, since=since, until=until)]
    assert expected
    for write in (format_rfc3339, to_unix_ns):
        window = {"messages_since": write(since), "messages_until": write(until)}
        created = calls.export(channels=[{"cid": SMALL, **window}])
        assert expected == [message["id"] for message in calls.entities(created, "message")]


def test_absent_and_null_bounds_mean_the_whole_history(calls_to, start_sandbox):
    """One official SDK sends nulls, another omits the bounds."""
    calls = calls_to(start_sandbox(attachment_links=False))
    whole = calls.file(calls.export(SMALL))
    assert whole == calls.file(calls.export(channels=[{"cid": SMALL, "messages_since": None, "messages_until": None}]))


def test_truncated_messages_come_with_their_flag(calls):
    """Truncation hides messages; the flag includes them."""
    hidden = {message["id"] for message in calls.entities(calls.export(TRUNCATED), "message")}
    shown = calls.entities(calls.export(TRUNCATED, include_truncated_messages=True), "message")
    assert hidden < {message["id"] for message in shown}


def test_version_1_is_the_default_and_one_array(calls, sandbox_world):
    """v1 is the documented default; its shape is known from a real export."""
    created = calls.http.post("/export_channels", json={"channels": [{"cid": SMALL}]})
    (element,) = json.loads(calls.file(created))
    assert element["channel"]["cid"] == SMALL
    assert sum(1 for _ in sandbox_world.messages(SMALL)) == len(element["messages"])


def test_an_export_shows_the_world_of_its_request(calls, sandbox_world):
    """A window that is exported before an edit has the old text, and after it the new one."""
    victim, edited = [message["id"] for message in sandbox_world.messages(SMALL)][:2]
    before = calls.export(SMALL)
    calls.control.delete_message(victim, hard=True)
    calls.control.edit_message(edited, text="another text")
    after = calls.export(SMALL)
    texts_before = {message["id"]: message["text"] for message in calls.entities(before, "message")}
    texts_after = {message["id"]: message["text"] for message in calls.entities(after, "message")}
    assert victim in texts_before
    assert victim not in texts_after
    assert texts_before[edited] != texts_after[edited] == "another text"


@pytest.mark.parametrize("shape", list(Shape), ids=lambda shape: shape.value)
def test_lines_have_the_shape_of_the_settings(start_sandbox, calls_to, shape):
    """The five possible shapes, in exports of channels and of users alike."""
    keys = {
        Shape.TYPED: {"type", "data"},
        Shape.ITEM: {"type", "item"},
        Shape.KEYED: {"message"},
        Shape.BARE: {"text", "id", "cid"},
        Shape.CHANNEL: {"channel", "messages", "members", "reads"},
    }[shape]
    calls = calls_to(start_sandbox(shape=shape))
    *_, last = (json.loads(line) for line in calls.file(calls.export(SMALL)).splitlines() if b'"text":' in line)
    assert keys <= last.keys()
    user_id = calls.sandbox.world.members(SMALL)[0]["user_id"]
    users = [json.loads(line) for line in calls.file(calls.export_users(user_id)).splitlines()]
    expected = {"user", "messages", "reactions"} if shape is Shape.CHANNEL else keys
    assert any(expected <= line.keys() for line in users)


@pytest.mark.parametrize(("bounds", "n_messages"), [("half-open", 1), ("inclusive", 2), ("exclusive", 0)])
def test_windows_have_the_bounds_of_the_settings(start_sandbox, calls_to, bounds, n_messages):
    """Between two neighbouring messages, only the ends differ."""
    calls = calls_to(start_sandbox(bounds=Bounds(bounds)))
    times = sorted({message["created_at"] for message in calls.sandbox.world.messages(SMALL)}, key=parse_rfc3339)
    window = {"messages_since": times[10], "messages_until": times[11]}
    created = calls.export(channels=[{"cid": SMALL, **window}])
    assert len(list(calls.entities(created, "message"))) == n_messages


def test_a_gzip_export_has_the_same_content(calls_to, start_sandbox):
    """The body itself is gzip, and no header says so: a client has to look at the bytes."""
    plain, zipped = (calls_to(start_sandbox(gzip=packed, attachment_links=False)) for packed in (False, True))
    reply = httpx.get(zipped.link(zipped.export(SMALL)))
    assert "content-encoding" not in reply.headers
    assert plain.file(plain.export(SMALL)) == gzip.decompress(reply.content)
    user_id = zipped.sandbox.world.user_ids()[0]
    users = zipped.file(zipped.export_users(user_id))
    assert plain.file(plain.export_users(user_id)) == gzip.decompress(users)


@BOTH
def test_a_users_export_has_its_folder_and_its_users(calls_to, sandbox, legacy):
    """Tests of four official SDKs look for the folder in the link and for the ids in the file."""
    calls = calls_to(sandbox, legacy=legacy)
    user_ids = sandbox.world.user_ids()[:25]
    created = calls.export_users(*user_ids)
    assert "/exports/users/" in calls.link(created)
    text = calls.file(created).decode()
    assert all(user_id in text for user_id in user_ids)


@pytest.mark.parametrize(
    ("user_ids", "status"),
    [([], 400), (["u"] * 26, 400), ([""], 400), (["none-such"], 404)],
    ids=["none", "26", "empty", "unknown"],
)
def test_a_users_export_needs_1_to_25_known_users(calls, user_ids, status):
    """Anything else is refused."""
    assert status == calls.export_users(*user_ids).status_code


def test_more_than_10000_messages_of_a_user_fail_the_export(calls_to, prolific):
    """The service applies the limit while the export runs, so the task fails and not the request."""
    calls = calls_to(prolific)
    many, few = sorted(prolific.world.user_ids(), key=prolific.world.count_messages_of, reverse=True)[:2]
    failed = calls.ended(calls.export_users(many, few))
    assert (failed["status"], failed["result"]) == ("failed", None)
    assert {"type", "description"} <= failed["error"].keys()
    assert many in failed["error"]["description"]
    assert calls.ended(calls.export_users(few))["status"] == "completed"


def test_more_than_10000_messages_refuse_the_synchronous_export(calls_to, prolific):
    """It answers at once or not at all."""
    many = max(prolific.world.user_ids(), key=prolific.world.count_messages_of)
    reply = calls_to(prolific).http.get(f"/api/v2/users/{many}/export")
    assert (reply.status_code, reply.json()["code"]) == (400, 4)


@BOTH
def test_more_than_10000_reactions_refuse_the_synchronous_export(calls_to, start_sandbox, tmp_path, legacy):
    """A user may have too many reactions as well as too many messages."""
    line = {"cid": "messaging:long", "at": "2025-01-01T00:00:00Z", "kind": "regular", "reply_to": None}
    user_ids = ("Fan", "Prolific")
    reacted_to = [seed for seed in map(str, range(100)) if "Fan" in message_objects.reactors(seed, user_ids)][:8]
    said = [{**line, "id": "first", "author": "Fan"}, *({**line, "id": i, "author": "Prolific"} for i in reacted_to)]
    path = tmp_path / "short.ndjson"
    path.write_text("".join(json.dumps({**each, "text": "line"}) + "\n" for each in said))
    calls = calls_to(start_sandbox(data=path, messages=11_700), legacy=legacy)
    assert calls.sandbox.world.count_messages_of("Fan") < 2_000
    reply = calls.http.get(calls.path("/users/Fan/export"))
    assert (reply.status_code, reply.json()["code"]) == (400, 4)
    assert "reactions" in reply.json()["message"]


@BOTH
def test_one_user_is_exported_at_once(calls_to, sandbox, legacy):
    """As documented: messages and reactions do not repeat the user."""
    calls, world = calls_to(sandbox, legacy=legacy), sandbox.world
    user_id = max(world.user_ids()[:300], key=world.count_messages_of)
    body = calls.http.get(calls.path(f"/users/{user_id}/export")).json()
    assert user_id == body["user"]["id"]
    assert world.count_messages_of(user_id) == len(body["messages"])
    assert {None} == {message["user"] for message in body["messages"]}
    assert (str if legacy else int) is type(body["messages"][0]["created_at"])


def test_an_unknown_user_is_404(calls):
    """An unknown user has no data."""
    reply = calls.http.get("/api/v2/users/none-such/export")
    assert (reply.status_code, reply.json()["code"]) == (404, 16)

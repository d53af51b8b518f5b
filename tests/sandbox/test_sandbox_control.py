"""Control calls: what they do, and the sentence that a wrong one gets."""

from __future__ import annotations

from datetime import timedelta

import pytest

from airflow_provider_chatexport.core.times import parse_rfc3339

SMALL = "messaging:rust"
TALKATIVE = "messaging:ubuntu-support"


def test_health_answers_without_a_key(calls):
    """Scripts wait for it."""
    assert calls.control("GET", "/health").status_code == 200


def test_every_request_is_noted_without_its_secrets(calls):
    """Names of headers, not their values; paths, not their signatures. Control calls are not part of the story."""
    created = calls.export(SMALL)
    calls.file(created)
    calls.http.get("/nowhere")
    reply = calls.control("GET", "/requests")
    first, *_, download, last = reply.json()
    assert (first["method"], first["path"], first["status"]) == ("POST", "/api/v2/chat/export_channels", 201)
    assert {"authorization", "stream-auth-type"} <= set(first["headers"])
    assert download["path"].startswith("/download/exports/channels/")
    assert "authorization" not in download["headers"]
    assert (last["path"], last["status"]) == ("/nowhere", 404)
    assert "signature" not in reply.text
    assert calls.sandbox.api_key not in reply.text


def test_requests_can_be_forgotten(calls):
    """So that a test counts its own."""
    calls.http.get("/nowhere")
    assert calls.control("DELETE", "/requests").status_code == 200
    assert calls.control("GET", "/requests").json() == []


def test_the_clock_goes_forward_by_what_is_asked(calls):
    """Days pass in a moment."""
    before = parse_rfc3339(calls.control("GET", "/clock").json()["now"])
    after = parse_rfc3339(calls.control("POST", "/clock", {"advance_s": 86400}).json()["now"])
    assert timedelta(days=1) <= after - before < timedelta(days=1, minutes=5)


@pytest.mark.parametrize("advance_s", [None, [], "1", -1, True, 1e300])
def test_a_clock_goes_nowhere_else(calls, advance_s):
    """Links and files would die in odd ways if it went back."""
    reply = calls.control("POST", "/clock", {"advance_s": advance_s})
    assert reply.status_code == 400
    assert "advance_s" in reply.json()["error"]


@pytest.mark.parametrize("year", ["0001", "0999", "9999"])
def test_a_message_may_be_of_any_year_of_the_calendar(calls_to, sandbox, year):
    """Go's zero time is in the year 1, and odd data has it."""
    at = f"{year}-01-01T00:00:00Z"
    current = calls_to(sandbox)
    added = current.control("POST", "/messages", {"add": {"id": "odd", "cid": SMALL, "created_at": at}})
    assert added.status_code == 200
    found = {message["id"]: message for message in current.entities(current.export(SMALL), "message")}
    assert at == found["odd"]["created_at"]
    for calls in (current, calls_to(sandbox, legacy=True)):
        assert calls.query(filter_conditions={"cid": SMALL}).status_code == 201


def test_a_message_is_edited_with_its_time(calls, sandbox_world):
    """The edit shows in the next export, and the sandbox's clock is in ``updated_at``."""
    message_id = next(iter(sandbox_world.messages(SMALL)))["id"]
    calls.advance(86400)
    reply = calls.control("POST", "/messages", {"edit": {"id": message_id, "text": "better", "mood": "calm"}})
    assert reply.status_code == 200
    (found,) = [m for m in calls.entities(calls.export(SMALL), "message") if m["id"] == message_id]
    assert (found["text"], found["mood"]) == ("better", "calm")
    assert found["updated_at"] > calls.sandbox.world.channel(SMALL)["created_at"]


def test_a_message_is_deleted_softly_or_for_good(calls, sandbox_world):
    """Soft: still in exports, marked. Hard: as if it had never been."""
    soft, hard = [m["id"] for m in sandbox_world.messages(SMALL) if m["type"] == "regular"][:2]
    assert calls.control("POST", "/messages", {"delete": {"id": soft}}).status_code == 200
    assert calls.control("POST", "/messages", {"delete": {"id": hard, "hard": True}}).status_code == 200
    found = {m["id"]: m for m in calls.entities(calls.export(SMALL), "message")}
    assert (found[soft]["type"], found[soft]["text"] != "") == ("deleted", True)
    assert hard not in found
    cleared = calls.entities(calls.export(SMALL, clear_deleted_message_text=True), "message")
    assert {m["text"] for m in cleared if m["id"] == soft} == {""}


def test_a_message_is_added_with_whatever_it_has(calls):
    """Late arrivals, odd custom data and integers past 64 bits included."""
    message = {
        "cid": SMALL,
        "text": "late",
        "created_at": "2025-01-20T10:00:00Z",
        "score": 2**70,
        "user_id": "newcomer",
    }
    added = calls.control("POST", "/messages", {"add": message})
    assert added.status_code == 200
    (found,) = [m for m in calls.entities(calls.export(SMALL), "message") if m["id"] == added.json()["message"]["id"]]
    assert (found["text"], found["score"], found["user"]["id"]) == ("late", 2**70, "newcomer")
    assert calls.export_users("newcomer").status_code == 201


def test_changes_wait_for_exports_that_are_being_written(start_sandbox, calls_to):
    """An export of a big channel shows the moment of its creation to its last line."""
    calls = calls_to(start_sandbox())
    *_, last = calls.sandbox.world.messages(TALKATIVE)
    before = calls.export(TALKATIVE)
    assert calls.control("POST", "/messages", {"delete": {"id": last["id"], "hard": True}}).status_code == 200
    after = calls.export(TALKATIVE)
    assert last["id"] in {message["id"] for message in calls.entities(before, "message")}
    assert last["id"] not in {message["id"] for message in calls.entities(after, "message")}


@pytest.mark.parametrize(
    ("value", "status"),
    [
        ([], 400),
        ({}, 400),
        ({"edit": {"id": "x", "text": "y"}, "delete": {"id": "x"}}, 400),
        ({"edit": []}, 400),
        ({"rewrite": {"id": "x"}}, 400),
        ({"edit": {"text": "y"}}, 400),
        ({"edit": {"id": "x"}}, 400),
        ({"edit": {"id": "none-such", "text": "y"}}, 404),
        ({"delete": {"id": "none-such"}}, 404),
        ({"delete": {"id": "x", "hard": "yes"}}, 400),
        ({"add": {"text": "y"}}, 400),
        ({"add": {"cid": "messaging:none-such"}}, 400),
        ({"add": {"cid": ["x"]}}, 400),
        ({"add": {"cid": "messaging:rust", "created_at": "yesterday"}}, 400),
        ({"add": {"cid": "messaging:rust", "user_id": 5}}, 400),
        ({"add": {"cid": "messaging:rust", "user": {"name": "someone"}}}, 400),
        ({"add": {"cid": "messaging:rust", "attachments": [5]}}, 400),
        ({"add": {"cid": "messaging:rust", "latest_reactions": ["like"]}}, 400),
        ({"edit": {"id": "x", "text": None}}, 400),
        ({"add": {"cid": "messaging:rust", "id": 7}}, 400),
        ({"add": {"cid": "messaging:rust", "text": 7}}, 400),
    ],
    ids=str,
)
def test_a_change_that_makes_no_sense_is_refused_with_a_sentence(calls, value, status):
    """Never a 500, and never a world that no export can be written from."""
    reply = calls.control("POST", "/messages", value)
    assert reply.status_code == status
    assert len(reply.json()["error"]) > 20
    assert calls.ended(calls.export(SMALL))["status"] == "completed"


def test_what_is_no_json_is_refused(calls):
    """A control call is made by hand as often as not."""
    for path in ("/faults", "/clock", "/messages"):
        reply = calls.http.post(f"/_sandbox{path}", content=b"{")
        assert reply.status_code == 400
        assert "JSON" in reply.json()["error"]


def test_an_unknown_control_call_is_404(calls):
    """A typo must not look like success."""
    assert calls.control("GET", "/helth").status_code == 404

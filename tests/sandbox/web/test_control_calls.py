"""Control calls over HTTP: what they do, and the sentence that a wrong one gets."""

from __future__ import annotations

from datetime import timedelta

import pytest

from airflow_provider_chatexport.core.entities import Shape
from airflow_provider_chatexport.core.times import parse_rfc3339

SMALL = "messaging:rust"
TALKATIVE = "messaging:ubuntu-support"


def test_health_answers_without_a_key(calls):
    """Scripts wait for this answer."""
    assert calls.call_control("GET", "/health").status_code == 200


def test_every_request_is_recorded_without_its_secrets(calls):
    """Names of headers, not their values; paths, not their signatures. Control calls are not recorded."""
    created = calls.export(SMALL)
    calls.file(created)
    calls.http.get("/nowhere")
    reply = calls.call_control("GET", "/requests")
    first, *_, download, last = reply.json()
    assert (first["method"], first["path"], first["status"]) == ("POST", "/api/v2/chat/export_channels", 201)
    assert {"authorization", "stream-auth-type"} <= set(first["headers"])
    assert download["path"].startswith("/download/exports/channels/")
    assert "authorization" not in download["headers"]
    assert (last["path"], last["status"]) == ("/nowhere", 404)
    assert "signature" not in reply.text
    assert calls.sandbox.api_key not in reply.text


def test_requests_can_be_cleared(calls):
    """A test counts its own requests."""
    calls.http.get("/nowhere")
    assert calls.call_control("DELETE", "/requests").status_code == 200
    assert calls.call_control("GET", "/requests").json() == []


def test_the_clock_moves_forward_by_the_given_seconds(calls):
    """Days pass in a moment."""
    before = parse_rfc3339(calls.call_control("GET", "/clock").json()["now"])
    after = parse_rfc3339(calls.call_control("POST", "/clock", {"advance_s": 86400}).json()["now"])
    assert timedelta(days=1) <= after - before < timedelta(days=1, minutes=5)


@pytest.mark.parametrize("advance_s", [None, [], "1", -1, True, 1e300])
def test_any_other_advance_is_refused(calls, advance_s):
    """Links and files would expire in odd ways if the clock went back."""
    reply = calls.call_control("POST", "/clock", {"advance_s": advance_s})
    assert reply.status_code == 400
    assert "advance_s" in reply.json()["error"]


def test_the_clock_stays_within_a_hundred_years(calls):
    """In many steps as well as in one: after the last year of the calendar there are no dates."""
    century_s = 100 * 365 * 86400
    assert calls.call_control("POST", "/clock", {"advance_s": century_s - 60}).status_code == 200
    now = calls.call_control("GET", "/clock").json()["now"]
    reply = calls.call_control("POST", "/clock", {"advance_s": 61})
    assert reply.status_code == 400
    assert str(century_s) in reply.json()["error"]
    assert parse_rfc3339(calls.call_control("GET", "/clock").json()["now"]) < parse_rfc3339(now) + timedelta(seconds=60)
    assert calls.call_control("POST", "/clock", {"advance_s": 60}).status_code == 200
    assert calls.ended(calls.export(SMALL))["status"] == "completed"


@pytest.mark.parametrize("year", ["0001", "0999", "9999"])
def test_a_message_may_have_any_year_of_the_calendar(calls_to, sandbox, year):
    """Go's zero time is in the year 1, and odd data contains it."""
    at = f"{year}-01-01T00:00:00Z"
    current = calls_to(sandbox)
    added = current.call_control("POST", "/messages", {"add": {"id": "odd", "cid": SMALL, "created_at": at}})
    assert added.status_code == 200
    found = {message["id"]: message for message in current.entities(current.export(SMALL), "message")}
    assert at == found["odd"]["created_at"]
    for calls in (current, calls_to(sandbox, legacy=True)):
        assert calls.query(filter_conditions={"cid": SMALL}).status_code == 201


def test_an_edit_is_dated_by_the_sandboxs_clock(calls, sandbox_world):
    """The next export has the edit, with the time of the sandbox's clock in ``updated_at``."""
    message_id = next(iter(sandbox_world.messages(SMALL)))["id"]
    calls.control.advance_clock(timedelta(days=1))
    reply = calls.call_control("POST", "/messages", {"edit": {"id": message_id, "text": "better", "mood": "calm"}})
    assert reply.status_code == 200
    (found,) = [m for m in calls.entities(calls.export(SMALL), "message") if m["id"] == message_id]
    assert (found["text"], found["mood"]) == ("better", "calm")
    assert found["updated_at"] > calls.sandbox.world.channel(SMALL)["created_at"]


def test_a_message_is_deleted_softly_or_hard(calls, sandbox_world):
    """Soft: still in exports, marked. Hard: as if it had never existed."""
    soft, hard = [m["id"] for m in sandbox_world.messages(SMALL) if m["type"] == "regular"][:2]
    assert calls.call_control("POST", "/messages", {"delete": {"id": soft}}).status_code == 200
    assert calls.call_control("POST", "/messages", {"delete": {"id": hard, "hard": True}}).status_code == 200
    found = {m["id"]: m for m in calls.entities(calls.export(SMALL), "message")}
    assert (found[soft]["type"], found[soft]["text"] != "") == ("deleted", True)
    assert hard not in found
    cleared = calls.entities(calls.export(SMALL, clear_deleted_message_text=True), "message")
    assert {m["text"] for m in cleared if m["id"] == soft} == {""}


def test_a_message_is_added_with_all_its_fields(calls):
    """A late message, an unknown user, and an integer past 64 bits in a custom field."""
    message = {
        "cid": SMALL,
        "text": "late",
        "created_at": "2025-01-20T10:00:00Z",
        "score": 2**70,
        "user_id": "newcomer",
    }
    added = calls.call_control("POST", "/messages", {"add": message})
    assert added.status_code == 200
    (found,) = [m for m in calls.entities(calls.export(SMALL), "message") if m["id"] == added.json()["message"]["id"]]
    assert (found["text"], found["score"], found["user"]) == ("late", 2**70, "newcomer")
    assert calls.export_users("newcomer").status_code == 201


def test_changes_wait_for_exports_that_are_being_written(start_sandbox, calls_to):
    """Every line of an export shows the moment of its request, also in a big channel."""
    calls = calls_to(start_sandbox())
    *_, last = calls.sandbox.world.messages(TALKATIVE)
    before = calls.export(TALKATIVE)
    assert calls.call_control("POST", "/messages", {"delete": {"id": last["id"], "hard": True}}).status_code == 200
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
    """It must not be a 500, and must not leave a world that cannot be exported."""
    reply = calls.call_control("POST", "/messages", value)
    assert reply.status_code == status
    assert len(reply.json()["error"]) > 20
    assert calls.ended(calls.export(SMALL))["status"] == "completed"


NESTED = {"in": 1}
for _ in range(150):
    NESTED = {"in": NESTED}


@pytest.mark.parametrize(
    "fields",
    [
        {"created_at": 1e30},
        {"created_at": -(10**25)},
        {"created_at": "2025-02-30T00:00:00Z"},
        {"pinned_at": 10**25},
        {"latest_reactions": [{"user_id": "z", "type": 5}]},
        {"latest_reactions": [{"user_id": "z", "type": None}]},
        {"latest_reactions": [{"user_id": "z", "custom": "x"}]},
        {"latest_reactions": [{"user_id": "z", "custom": [1]}]},
        {"latest_reactions": [{"user_id": "z", "score": "1"}]},
        {"latest_reactions": [{"user_id": "z", "score": True}]},
        {"latest_reactions": [{"user_id": "z", "created_at": 1e30}]},
        {"latest_reactions": [{"user": {"id": "z", "last_active": "bad"}}]},
        {"attachments": [{"og_scrape_url": 5}]},
        {"attachments": [{"title": {"a": 1}}]},
        {"attachments": [{"custom": "x"}]},
        {"attachments": [{"original_width": "wide"}]},
        {"attachments": [{"fields": [{"custom": 5}]}]},
        {"attachments": [{"actions": [{"created_at": "bad"}]}]},
        {"user": {"id": "z", "created_at": "bad"}},
        {"user": {"id": "z", "updated_at": 1e30}},
        {"user": {"id": "z", "last_active": ["bad"]}},
        {"user": {"id": "z", "custom": 5}},
        {"user": {"id": "z", "teams": 5}},
        {"mentioned_users": [{"id": "z", "created_at": "bad"}]},
        {"pinned_by": {"id": "z", "created_at": "bad"}},
        {"shared_location": {"end_at": "bad"}},
        {"poll": {"id": "p", "created_at": "bad"}},
        {"poll": {"id": "p", "custom": 5}},
        {"poll": {"id": "p", "options": [{"id": "o", "custom": "x"}]}},
        {"poll": {"id": "p", "created_by": {"id": "z", "created_at": "bad"}}},
        {"poll": {"id": "p", "latest_votes_by_option": {"o": [{"created_at": "bad"}]}}},
        {"moderation": {"action": "flag", "updated_at": "bad"}},
        {"mentioned_roles": [{"deleted_at": "bad"}]},
        {"mood": NESTED},
    ],
    ids=lambda fields: str(fields)[:80],
)
def test_a_wrong_value_inside_a_message_is_refused_with_a_sentence(calls_to, sandbox, fields):
    """At any depth: a wrong value in the world would break every later export and query of its channel."""
    calls, legacy = calls_to(sandbox), calls_to(sandbox, legacy=True)
    message_id = next(iter(sandbox.world.messages(SMALL)))["id"]
    changes = {"add": {"cid": SMALL, **fields}, "edit": {"id": message_id, **fields}}
    for verb in ["add"] if fields.keys() & {"created_at", "user"} else ["add", "edit"]:
        reply = calls.call_control("POST", "/messages", {verb: changes[verb]})
        assert reply.status_code == 400
        assert len(reply.json()["error"]) > 60
    for caller in (calls, legacy):
        assert caller.query(filter_conditions={"cid": SMALL}).status_code == 201
    assert sandbox.world.user("z") is None


def test_objects_inside_a_message_have_times_in_the_familys_spelling(calls_to, start_sandbox):
    """Nanoseconds and other zones become what each family and the file write; custom data does not change."""
    poll = {"id": "p", "created_at": 1_735_689_600_000_000_000, "custom": {"created_at": "tuesday"}}
    person = {"id": "z", "created_at": "2025-01-01T01:00:00+01:00", "image": None, "pets": [{"created_at": "tuesday"}]}
    link = {"og_scrape_url": None, "custom": None, "text": None}
    reaction = {"user_id": "z", "type": "like", "custom": None}
    i18n = {"language": "en", "custom": "word"}
    message = {"poll": poll, "user": person, "attachments": [link], "latest_reactions": [reaction], "i18n": i18n}
    sandbox = start_sandbox(shape=Shape.TYPED)
    calls, legacy = calls_to(sandbox), calls_to(sandbox, legacy=True)
    assert calls.call_control("POST", "/messages", {"add": {"cid": SMALL, "id": "late", **message}}).status_code == 200
    in_file = next(m for m in calls.entities(calls.export(SMALL), "message") if m["id"] == "late")
    replies = [c.query(filter_conditions={"cid": SMALL}).json()["channels"][0]["messages"][-1] for c in (calls, legacy)]
    spelled = ["2025-01-01T00:00:00Z", 1_735_689_600_000_000_000, "2025-01-01T00:00:00Z"]
    assert spelled == [message["poll"]["created_at"] for message in (in_file, *replies)]
    assert spelled == [message["user"]["created_at"] for message in (in_file, *replies)]
    assert [i18n] * 3 == [message["i18n"] for message in (in_file, *replies)]
    assert poll["custom"] == replies[0]["poll"]["custom"]
    assert person["pets"] == replies[0]["user"]["custom"]["pets"] == replies[1]["user"]["pets"]


def test_a_body_that_is_not_json_is_refused(calls):
    """People often make control calls by hand."""
    for path in ("/faults", "/clock", "/messages"):
        reply = calls.http.post(f"/_sandbox{path}", content=b"{")
        assert reply.status_code == 400
        assert "JSON" in reply.json()["error"]


def test_an_unknown_control_call_is_404(calls):
    """A typo must not look like success."""
    assert calls.call_control("GET", "/helth").status_code == 404

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


def test_the_clock_stays_within_a_hundred_years(calls):
    """Step by step as well as at once: past the last year of the calendar nothing has a date."""
    century_s = 100 * 365 * 86400
    assert calls.control("POST", "/clock", {"advance_s": century_s - 60}).status_code == 200
    now = calls.control("GET", "/clock").json()["now"]
    reply = calls.control("POST", "/clock", {"advance_s": 61})
    assert reply.status_code == 400
    assert str(century_s) in reply.json()["error"]
    assert parse_rfc3339(calls.control("GET", "/clock").json()["now"]) < parse_rfc3339(now) + timedelta(seconds=60)
    assert calls.control("POST", "/clock", {"advance_s": 60}).status_code == 200
    assert calls.ended(calls.export(SMALL))["status"] == "completed"


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
    """However deep it lies: taken in, it would break every later export and query of its channel."""
    calls, legacy = calls_to(sandbox), calls_to(sandbox, legacy=True)
    message_id = next(iter(sandbox.world.messages(SMALL)))["id"]
    changes = {"add": {"cid": SMALL, **fields}, "edit": {"id": message_id, **fields}}
    for verb in ["add"] if fields.keys() & {"created_at", "user"} else ["add", "edit"]:
        reply = calls.control("POST", "/messages", {verb: changes[verb]})
        assert reply.status_code == 400
        assert len(reply.json()["error"]) > 60
        assert "of the wrong type" not in reply.json()["error"]
    for caller in (calls, legacy):
        assert caller.query(filter_conditions={"cid": SMALL}).status_code == 201
    assert sandbox.world.user("z") is None


def test_objects_inside_a_message_are_told_with_their_times(calls_to, sandbox):
    """Nanoseconds and other zones come out as each family and the file spell a time; custom data is kept."""
    poll = {"id": "p", "created_at": 1_735_689_600_000_000_000, "custom": {"created_at": "tuesday"}}
    person = {"id": "z", "created_at": "2025-01-01T01:00:00+01:00", "image": None, "pets": [{"created_at": "tuesday"}]}
    link = {"og_scrape_url": None, "custom": None, "text": None}
    reaction = {"user_id": "z", "type": "like", "custom": None}
    i18n = {"language": "en", "custom": "word"}
    message = {"poll": poll, "user": person, "attachments": [link], "latest_reactions": [reaction], "i18n": i18n}
    calls, legacy = calls_to(sandbox), calls_to(sandbox, legacy=True)
    assert calls.control("POST", "/messages", {"add": {"cid": SMALL, "id": "late", **message}}).status_code == 200
    in_file = next(m for m in calls.entities(calls.export(SMALL), "message") if m["id"] == "late")
    told = [c.query(filter_conditions={"cid": SMALL}).json()["channels"][0]["messages"][-1] for c in (calls, legacy)]
    spelled = ["2025-01-01T00:00:00Z", 1_735_689_600_000_000_000, "2025-01-01T00:00:00Z"]
    assert spelled == [found["poll"]["created_at"] for found in (in_file, *told)]
    assert spelled == [found["user"]["created_at"] for found in (in_file, *told)]
    assert [i18n] * 3 == [found["i18n"] for found in (in_file, *told)]
    assert poll["custom"] == told[0]["poll"]["custom"]
    assert person["pets"] == told[0]["user"]["custom"]["pets"] == told[1]["user"]["pets"]


def test_what_is_no_json_is_refused(calls):
    """A control call is made by hand as often as not."""
    for path in ("/faults", "/clock", "/messages"):
        reply = calls.http.post(f"/_sandbox{path}", content=b"{")
        assert reply.status_code == 400
        assert "JSON" in reply.json()["error"]


def test_an_unknown_control_call_is_404(calls):
    """A typo must not look like success."""
    assert calls.control("GET", "/helth").status_code == 404

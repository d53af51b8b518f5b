"""QueryChannels: filters, order, pages, and what is odd about them at the service."""

from __future__ import annotations

import json
import uuid

import pytest

LIVE = {
    "livestream:ubuntu", "messaging:ubuntu-support", "commerce:stripe", "team:mediawiki", "messaging:rust",
    "team:ubuntu-meeting",
}  # fmt: skip
RUST_AND_WIKI = {"messaging:rust", "team:mediawiki"}


def test_an_empty_filter_matches_every_live_channel(calls):
    """Soft-deleted channels are never in a result: they cannot be discovered."""
    assert set(calls.cids()) == LIVE
    assert calls.sandbox.world.channel_is_deleted("messaging:retired")


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({"cid": "messaging:rust"}, {"messaging:rust"}),
        ({"cid": {"$in": ["messaging:rust", "team:mediawiki", "messaging:retired"]}}, RUST_AND_WIKI),
        ({"id": {"$eq": "rust"}}, {"messaging:rust"}),
        ({"type": "team"}, {"team:mediawiki", "team:ubuntu-meeting"}),
        ({"type": {"$in": ["team", "commerce"]}}, {"team:mediawiki", "team:ubuntu-meeting", "commerce:stripe"}),
        ({"cid": {"$gt": "messaging:rust"}}, {"messaging:ubuntu-support", "team:mediawiki", "team:ubuntu-meeting"}),
        ({"cid": {"$gte": "team:mediawiki", "$lt": "team:n"}}, {"team:mediawiki"}),
        ({"created_at": {"$gt": "2999-01-01T00:00:00Z"}}, set()),
        ({"last_message_at": {"$lte": 10**18}}, set()),
        ({"member_count": {"$gt": 0}}, LIVE),
        ({"frozen": True}, set()),
        ({"frozen": 0}, set()),
        ({"frozen": {"$in": [0]}}, set()),
        ({"frozen": {"$in": [0, False]}}, LIVE),
        ({"hidden": False, "muted": False, "archived": False}, LIVE),
        ({"pinned": True}, set()),
        ({"distinct": False}, LIVE),
        ({"channel_role": "channel_member"}, LIVE),
        ({"channel_role": {"$in": ["none-such"]}}, set()),
        ({"member.user.name": "Nobody At All"}, set()),
        ({"members": {"$in": ["none-such"]}}, set()),
        ({"name": "Ubuntu"}, {"livestream:ubuntu"}),
        ({"name": {"$autocomplete": "ubu"}}, {"livestream:ubuntu"}),
        ({"no_such_field": {"$exists": False}}, LIVE),
        ({"no_such_field": {"$gte": 3}}, set()),
        ({"$and": [{"type": "team"}, {"id": "mediawiki"}]}, {"team:mediawiki"}),
        ({"$or": [{"id": "rust"}, {"id": "stripe"}]}, {"messaging:rust", "commerce:stripe"}),
        ({"$nor": [{"type": "team"}, {"type": "messaging"}]}, {"livestream:ubuntu", "commerce:stripe"}),
    ],
    ids=lambda each: str(sorted(each)) if isinstance(each, set) else str(each),
)
def test_filters_match_what_they_say(calls, conditions, expected):
    """Each operator, over fields of the schema and custom ones."""
    cids = set(calls.cids(filter_conditions=conditions))
    assert cids == expected if "autocomplete" not in str(conditions) else cids >= expected


def test_members_and_creators_can_be_filtered_for(calls, sandbox_world):
    """A user may want to export the channels of one person."""
    cid = "messaging:rust"
    member_id = sandbox_world.members(cid)[0]["user_id"]
    creator_id = sandbox_world.channel(cid)["created_by"]["id"]
    assert cid in calls.cids(filter_conditions={"members": {"$in": [member_id]}})
    assert cid in calls.cids(filter_conditions={"members": member_id})
    assert cid in calls.cids(filter_conditions={"created_by_id": creator_id})
    name = next(member["user"]["name"] for member in sandbox_world.members(cid) if member["user"].get("name"))
    assert cid in calls.cids(filter_conditions={"member.user.name": name})
    assert cid in calls.cids(filter_conditions={"member.user.name": {"$autocomplete": name[:3].lower()}})


def test_custom_fields_of_any_kind_can_be_filtered_for(calls, sandbox_world):
    """Fields that the schema does not know are custom: numbers, booleans, objects."""
    custom = {cid: sandbox_world.channel(cid)["custom"] for cid in LIVE}
    values = {(name, json.dumps(value)) for fields in custom.values() for name, value in fields.items()}
    assert len(values) > len(LIVE)
    for name, text in values:
        value = json.loads(text)
        expected = {cid for cid, fields in custom.items() if name in fields and fields[name] == value}
        assert set(calls.cids(filter_conditions={name: {"$eq": value}})) == expected


@pytest.mark.parametrize("family", ["v2", "legacy"])
def test_incremental_runs_can_filter_by_last_activity(calls_to, sandbox, family):
    """The filter finds what has to be exported at all, with strings and with nanoseconds."""
    calls = calls_to(sandbox, legacy=family == "legacy")
    newest = calls.query(sort=[{"field": "last_message_at", "direction": -1}], limit=1).json()["channels"][0]["channel"]
    at = newest["last_message_at"]
    assert calls.cids(filter_conditions={"last_message_at": {"$gte": at}}) == [newest["cid"]]
    assert newest["cid"] not in calls.cids(filter_conditions={"last_message_at": {"$lt": at}})


def test_a_channel_whose_last_messages_are_deleted_is_found_by_those_before(calls, sandbox_world):
    """An incremental run must see what forty deletions leave."""
    cid = "messaging:rust"
    *_, last_left = messages = list(sandbox_world.messages(cid))[:-40]
    for message in list(sandbox_world.messages(cid))[len(messages) :]:
        calls.control.delete_message(message["id"], hard=True)
    entries = calls.query(
        filter_conditions={"cid": cid, "last_message_at": {"$gte": last_left["created_at"]}}, message_limit=5
    ).json()["channels"]
    assert [cid] == [entry["channel"]["cid"] for entry in entries]
    assert len(entries[0]["messages"]) == 5


def test_channels_have_the_order_of_the_query(calls, sandbox_world):
    """Keyset paging needs a stable order; without a sort, the last active channel is first."""
    assert calls.cids(sort=[{"field": "cid", "direction": 1}]) == sorted(LIVE)
    assert calls.cids(sort=[{"field": "type"}, {"field": "id", "direction": -1}]) == sorted(
        sorted(LIVE, key=lambda cid: cid.partition(":")[2], reverse=True), key=lambda cid: cid.partition(":")[0]
    )
    by_activity = sorted(LIVE, key=lambda cid: sandbox_world.channel(cid)["last_message_at"], reverse=True)
    assert calls.cids() == by_activity


def test_pages_by_offset_and_by_key_return_each_channel_once(calls):
    """The documents describe both ways to page."""
    sort = [{"field": "cid", "direction": 1}]
    by_offset = [cid for offset in (0, 2, 4, 6) for cid in calls.cids(sort=sort, limit=2, offset=offset)]
    assert by_offset == sorted(LIVE)
    by_key, last = [], ""
    while page := calls.cids(sort=sort, limit=2, filter_conditions={"cid": {"$gt": last}}):
        by_key, last = by_key + page, page[-1]
    assert by_key == sorted(LIVE)


@pytest.fixture
def crowded(start_sandbox, calls_to, tmp_path):
    """Return a client of a sandbox of 1,040 channels with one message each."""
    lines = (
        {
            "cid": f"messaging:room-{number:04d}",
            "id": str(uuid.UUID(int=number)),
            "at": f"2025-01-01T00:{number // 60:02d}:{number % 60:02d}Z",
            "author": "Someone",
            "kind": "regular",
            "text": "here",
            "reply_to": None,
        }
        for number in range(1040)
    )
    path = tmp_path / "rooms.ndjson"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return calls_to(start_sandbox(data=path))


def test_pages_have_10_channels_and_never_more_than_30(crowded):
    """A larger limit is cut silently, as at the service."""
    assert len(crowded.cids()) == 10
    assert len(crowded.cids(limit=30)) == 30
    assert len(crowded.cids(limit=100)) == 30


def test_offsets_over_1000_never_end(crowded):
    """No error and no empty page: a client that pages by offset must notice that no channel is new."""
    sort = [{"field": "cid", "direction": 1}]
    at_1000 = crowded.cids(sort=sort, limit=30, offset=1000)
    assert len(at_1000) == 30
    assert crowded.cids(sort=sort, limit=30, offset=1030) == crowded.cids(sort=sort, limit=30, offset=50_000) == at_1000


@pytest.mark.parametrize("family", ["v2", "legacy"])
def test_a_channels_state_has_all_its_parts(calls_to, sandbox, family):
    """As many as the query asks for, the newest messages last, each as its family writes it."""
    calls = calls_to(sandbox, legacy=family == "legacy")
    cid = "messaging:rust"
    (entry,) = calls.query(filter_conditions={"cid": cid}, message_limit=7, member_limit=3).json()["channels"]
    assert entry.keys() >= {"channel", "messages", "members", "pinned_messages", "threads", "read"}
    assert len(entry["messages"]) == 7
    assert len(entry["members"]) == 3
    visible = [m for m in sandbox.world.messages(cid) if not m.get("parent_id") or m.get("show_in_channel")]
    assert [message["id"] for message in entry["messages"]] == [message["id"] for message in visible[-7:]]
    assert all(message["pinned"] for message in entry["pinned_messages"])
    assert ("custom" in entry["channel"]) is (family == "v2")
    assert type(entry["channel"]["created_at"]) is (int if family == "v2" else str)
    name = entry["channel"]["custom"]["name"] if family == "v2" else entry["channel"]["name"]
    assert name == sandbox.world.channel(cid)["custom"]["name"]


def test_without_state_only_the_channels_come(calls):
    """The cheap way to list channels."""
    entry = calls.query(state=False, limit=1).json()["channels"][0]
    assert entry["channel"]["cid"] in LIVE
    assert [entry[name] for name in ("messages", "members", "pinned_messages", "read")] == [[], [], [], []]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"filter_conditions": []}, "filter_conditions"),
        ({"filter_conditions": {"cid": {"$regex": "x"}}}, "filter_conditions.cid"),
        ({"filter_conditions": {"cid": {"$in": "x"}}}, "filter_conditions.cid"),
        ({"filter_conditions": {"cid": {"$exists": 1}}}, "filter_conditions.cid"),
        ({"filter_conditions": {"cid": {"$gt": None}}}, "filter_conditions.cid"),
        ({"filter_conditions": {"created_at": "yesterday"}}, "filter_conditions.created_at"),
        ({"filter_conditions": {"created_at": {"$gte": [1]}}}, "filter_conditions.created_at"),
        ({"filter_conditions": {"$and": []}}, "filter_conditions.$and"),
        ({"filter_conditions": {"$xor": [{}]}}, "filter_conditions.$xor"),
        ({"sort": {"field": "cid"}}, "sort"),
        ({"sort": [{"field": "cid"}] * 6}, "sort"),
        ({"sort": [{"direction": 1}]}, "sort[0].field"),
        ({"sort": [{"field": "cid", "direction": 0}]}, "sort[0].direction"),
        ({"sort": [{"field": "cid", "direction": 2}]}, "sort[0].direction"),
        ({"limit": -1}, "limit"),
        ({"limit": "10"}, "limit"),
        ({"offset": True}, "offset"),
        ({"message_limit": 301}, "message_limit"),
        ({"member_limit": 101}, "member_limit"),
        ({"state": "no"}, "state"),
        ({"predefined_filter": "mine"}, "predefined_filter"),
    ],
    ids=str,
)
def test_a_wrong_query_is_refused_with_the_fields_name(calls, body, field):
    """A filter that is silently ignored would export too much."""
    reply = calls.query(**body)
    assert (reply.status_code, reply.json()["code"]) == (400, 4)
    assert list(reply.json()["exception_fields"]) == [field]

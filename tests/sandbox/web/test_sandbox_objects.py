"""Every field that the service's API description requires is present, with its type, in both families.

The tables are those of the description v236 (MessageResponse and so on): ``name`` is optional, ``name*`` required.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_chatexport.core.times import parse_rfc3339

SPEC: dict[str, dict[str, str]] = {
    "message": {
        "string": "cid* command html* id* mml parent_id poll_id quoted_message_id text* type*",
        "time": "created_at* deleted_at message_text_updated_at pin_expires pinned_at updated_at*",
        "bool": "deleted_for_me mentioned_channel* mentioned_here* pinned* shadowed* show_in_channel silent*",
        "int32": "deleted_reply_count* reply_count*",
        "list of string": "mentioned_group_ids mentioned_roles restricted_visibility*",
        "list of attachment": "attachments*",
        "list of reaction": "latest_reactions* own_reactions*",
        "list of user": "mentioned_users* thread_participants",
        "user": "user* pinned_by",
        "message": "quoted_message",
        "map": "custom*",
        "map of int32": "reaction_counts* reaction_scores*",
        "map of group": "reaction_groups",
    },
    "channel": {
        "string": "auto_translation_language cid* id* team type*",
        "time": "created_at* deleted_at hide_messages_before last_message_at mute_expires_at truncated_at updated_at*",
        "bool": "auto_translation_enabled blocked disabled* frozen* hidden muted",
        "int32": "cooldown member_count message_count",
        "config": "config",
        "user": "created_by truncated_by",
        "list of member": "members",
        "list of string": "filter_tags own_capabilities",
        "map": "custom*",
    },
    "config": {
        "string": "name* automod* automod_behavior* message_retention*",
        "time": "created_at* updated_at*",
        "bool": "connect_events* count_messages* custom_events* delivery_events* mark_messages_pending* mutes* polls* "
        "push_notifications* quotes* reactions* read_events* reminders* replies* search* shared_locations* "
        "skip_last_msg_update_for_system_msgs* typing_events* uploads* url_enrichment* user_message_reminders*",
        "int32": "max_message_length*",
        "list of command": "commands*",
    },
    "command": {"string": "args* description* name* set*"},
    "member": {
        "string": "channel_role* role status user_id",
        "time": "archived_at ban_expires created_at* deleted_at future_channel_ban_expires invite_accepted_at "
        "invite_rejected_at pinned_at updated_at*",
        "bool": "ban_from_future_channels banned* invited is_moderator notifications_muted* shadow_banned*",
        "user": "user",
        "list of string": "deleted_messages",
        "map": "custom*",
    },
    "user": {
        "string": "id* image language* name role*",
        "time": "ban_expires created_at* deactivated_at deleted_at last_active revoke_tokens_issued_before updated_at*",
        "bool": "banned* bypass_moderation invisible* online* shadow_banned*",
        "int32": "avg_response_time",
        "list of string": "blocked_user_ids* teams*",
        "map": "custom* teams_role privacy_settings push_notifications",
    },
    "reaction": {
        "string": "message_id* type* user_id*",
        "int32": "score*",
        "time": "created_at* updated_at*",
        "user": "user*",
        "map": "custom*",
    },
    "group": {
        "int32": "count* sum_scores*",
        "time": "first_reaction_at* last_reaction_at*",
        "list of reactor": "latest_reactions_by*",
    },
    "reactor": {"string": "user_id*", "time": "created_at*", "user": "user"},
    "read": {
        "time": "last_read* last_delivered_at",
        "int32": "unread_messages*",
        "string": "last_read_message_id last_delivered_message_id",
        "user": "user*",
    },
    "attachment": {
        "string": "asset_url author_icon author_link author_name color fallback footer footer_icon image_url "
        "og_scrape_url pretext text thumb_url title title_link type",
        "int32": "original_height original_width",
        "map": "custom*",
    },
}


def faults_of(value: Any, kind: str, where: str, *, legacy: bool) -> Iterator[str]:
    """Yield what is wrong with a value that should be of a kind, one line each."""
    if kind.startswith(("list of ", "map of ")):
        outer, _, inner = kind.partition(" of ")
        if not isinstance(value, list if outer == "list" else dict):
            yield f"{where} is not a {outer}"
            return
        for key, item in enumerate(value) if outer == "list" else value.items():
            yield from faults_of(item, inner, f"{where}[{key}]", legacy=legacy)
    elif kind in SPEC:
        if not isinstance(value, dict):
            yield f"{where} is not an object"
            return
        yield from faults_of_object(value, kind, where, legacy=legacy)
    elif not is_plain(value, kind, legacy=legacy):
        yield f"{where} is {value!r:.40} and not a {kind}"


def faults_of_object(value: dict[str, Any], kind: str, where: str, *, legacy: bool) -> Iterator[str]:
    """Yield what is wrong with an object of a kind."""
    for field_kind, names in SPEC[kind].items():
        for spelled in names.split():
            name = spelled.removesuffix("*")
            if name == "custom" and legacy:
                # The legacy family has custom data flat in the object.
                if "custom" in value:
                    yield f"{where}.custom is nested"
            elif value.get(name) is not None:
                yield from faults_of(value[name], field_kind, f"{where}.{name}", legacy=legacy)
            elif spelled.endswith("*"):
                yield f"{where}.{name} is missing"


def is_plain(value: Any, kind: str, *, legacy: bool) -> bool:
    """Return whether a value has a type that contains no other."""
    match kind:
        case "string":
            return isinstance(value, str)
        case "bool":
            return isinstance(value, bool)
        case "int32":
            return type(value) is int and -(2**31) <= value < 2**31
        case "map":
            return isinstance(value, dict)
        case "time" if legacy:
            return isinstance(value, str) and parse_rfc3339(value) is not None
        case "time":
            return type(value) is int and 10**18 < value < 2**63
        case _:
            raise AssertionError(kind)


@pytest.mark.parametrize("legacy", [False, True], ids=["v2", "legacy"])
def test_a_channels_state_holds_every_required_field(calls_to, sandbox, legacy):
    """Over all channels: some object of every kind, and no object lacks a field or has it in another type."""
    entries = calls_to(sandbox, legacy=legacy).query(limit=30, message_limit=300).json()["channels"]
    faults = [
        fault
        for entry in entries
        for name, kind in (
            ("channel", "channel"),
            ("messages", "list of message"),
            ("pinned_messages", "list of message"),
            ("members", "list of member"),
            ("read", "list of read"),
        )
        for fault in faults_of(entry[name], kind, f"{entry['channel']['cid']}.{name}", legacy=legacy)
    ]
    assert sorted({fault.rpartition("].")[2] for fault in faults}) == []
    messages = [message for entry in entries for message in entry["messages"]]
    for field in ("attachments", "latest_reactions", "mentioned_users", "reaction_groups", "quoted_message"):
        assert any(message.get(field) for message in messages), f"no message has {field}"


@pytest.mark.parametrize("kind", ["custom", "created_at"])
@pytest.mark.parametrize("legacy", [False, True], ids=["v2", "legacy"])
def test_a_reaction_may_have_the_name_of_a_field(calls_to, sandbox, legacy, kind):
    """Types of reactions are people's words; as keys of a map they are not fields."""
    calls = calls_to(sandbox, legacy=legacy)
    reaction = {"user_id": "fan", "type": kind, "score": 3}
    added = calls.control.add_message("messaging:rust", latest_reactions=[reaction])
    (entry,) = calls.query(filter_conditions={"cid": "messaging:rust"}, message_limit=1).json()["channels"]
    assert added["id"] == entry["messages"][0]["id"]
    message = entry["messages"][0]
    assert [] == list(faults_of_object(message, "message", "message", legacy=legacy))
    assert ({kind: 1}, {kind: 3}) == (message["reaction_counts"], message["reaction_scores"])
    assert (kind, "fan") == (message["latest_reactions"][0]["type"], message["latest_reactions"][0]["user_id"])
    assert [kind] == list(message["reaction_groups"])


@pytest.mark.parametrize("legacy", [False, True], ids=["v2", "legacy"])
def test_an_exported_user_holds_every_required_field(calls_to, sandbox, legacy):
    """Except the three that are documented as null there: the users of messages and reactions, and the counts."""
    world = sandbox.world
    user_id = max(world.user_ids()[:200], key=world.count_messages_of)
    calls = calls_to(sandbox, legacy=legacy)
    body = calls.http.get(calls.path(f"/users/{user_id}/export")).json()
    faults = [
        fault
        for name, kind in (("user", "user"), ("messages", "list of message"), ("reactions", "list of reaction"))
        for fault in faults_of(body[name], kind, name, legacy=legacy)
    ]
    assert {fault.rpartition("].")[2] for fault in faults} == {"user is missing", "reaction_counts is missing"}

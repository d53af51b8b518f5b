"""Objects without an envelope are recognised by the fields that only they have."""

from __future__ import annotations

from typing import Any

import pytest
from export_objects import channel, member, message, reaction, read, user

from airflow_provider_chatexport.core.entities import ALIASES, OTHER_NAMES, Entity, infer_bare


@pytest.mark.parametrize(
    ("expected", "fields"),
    [
        (Entity.MESSAGE, message()),
        (Entity.REACTION, reaction()),
        (Entity.CHANNEL, channel()),
        (Entity.MEMBER, member()),
        (Entity.READ, read()),
        (Entity.USER, user()),
    ],
)
def test_a_whole_object_is_recognised(expected: Entity, fields: dict[str, Any]) -> None:
    """In the bare shape a line is the object alone, without a name."""
    assert expected is infer_bare(fields)


@pytest.mark.parametrize(
    ("expected", "keys"),
    [
        (Entity.REACTION, "message_id user_id type"),
        (Entity.REACTION, "message_id user_id score"),
        (None, "message_id user_id"),
        (Entity.CHANNEL, "cid config"),
        (Entity.CHANNEL, "cid frozen text"),
        (Entity.CHANNEL, "cid created_by"),
        (Entity.MESSAGE, "cid created_by text"),
        (Entity.MESSAGE, "text"),
        (Entity.MESSAGE, "html"),
        (Entity.MESSAGE, "cid user"),
        (Entity.MEMBER, "user_id channel_role"),
        (Entity.MEMBER, "user_id is_moderator"),
        (Entity.MEMBER, "user_id notifications_muted"),
        (None, "user_id"),
        (Entity.READ, "last_read unread_messages user"),
        (Entity.USER, "id role online"),
        (Entity.USER, "id role banned"),
        (Entity.USER, "id role last_active"),
        (None, "id role"),
        (None, ""),
    ],
)
def test_the_decision_list(expected: Entity | None, keys: str) -> None:
    """Each row matches one rule of the list, or just fails to match it."""
    assert expected is infer_bare(dict.fromkeys(keys.split(), "x"))


def test_no_name_is_both_an_alias_and_another_entity() -> None:
    """A name in both tables would make the table of its objects depend on the order of two look-ups."""
    assert not ALIASES.keys() & OTHER_NAMES


def test_every_entity_is_an_alias_of_itself() -> None:
    """The sandbox writes these names, so the reader must know each of them."""
    assert {entity.value: entity for entity in Entity}.items() <= ALIASES.items()

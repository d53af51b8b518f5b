"""What control calls say of a message and of what is in it, checked before it is history.

A wrong value would spoil every later export and query of its channel instead of the call that brought it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from airflow_provider_chatexport.core.times import parse_instant
from airflow_provider_chatexport.sandbox.chat.api_family import MAPS, TIME_FIELDS
from airflow_provider_chatexport.sandbox.chat.timestamps import stamp, to_us

# Writers of JSON give up at about 250 levels, and lines of an export add some of their own.
MAX_DEPTH: Final = 100

_WORDS: Final[Mapping[type, str]] = {
    str: "a string",
    bool: "a boolean",
    int: "a whole number",
    list: "a list",
    dict: "an object",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of object, its fields of a fixed type, and those of them that are never null."""

    name: str
    types: Mapping[str, type]
    never_null: frozenset[str] = frozenset()

    def check(self, fields: Mapping[str, Any]) -> None:
        """:raises ValueError: a value is not of its field's type; the message is a part of a sentence."""
        for name, value in fields.items():
            wanted = self.types.get(name)
            if wanted is None or (value is None and name not in self.never_null):
                continue
            # JSON knows booleans from numbers, Python's isinstance does not.
            if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
                raise ValueError(f"{name} of {self.name} must be {_WORDS[wanted]}, and this is not")


MESSAGE: Final = Kind(
    name="a message",
    types={
        **dict.fromkeys(("id", "cid", "text", "html", "type", "parent_id", "user_id", "quoted_message_id"), str),
        **dict.fromkeys(("command", "mml", "poll_id"), str),
        **dict.fromkeys(("pinned", "silent", "shadowed", "show_in_channel", "deleted_for_me"), bool),
        **dict.fromkeys(("mentioned_channel", "mentioned_here"), bool),
        **dict.fromkeys(("attachments", "mentioned_users", "latest_reactions", "restricted_visibility"), list),
        **dict.fromkeys(("mentioned_roles", "mentioned_group_ids"), list),
        **dict.fromkeys(("custom", "i18n", "image_labels", "moderation", "poll", "shared_location"), dict),
    },
    never_null=frozenset({"id", "cid", "text", "html", "type", "attachments", "mentioned_users", "custom"}),
)
ATTACHMENT: Final = Kind(
    name="an attachment",
    types={
        **dict.fromkeys(("type", "title", "title_link", "text", "fallback", "color", "pretext", "og_scrape_url"), str),
        **dict.fromkeys(("image_url", "asset_url", "thumb_url", "footer", "footer_icon"), str),
        **dict.fromkeys(("author_name", "author_link", "author_icon"), str),
        **dict.fromkeys(("original_height", "original_width"), int),
        **dict.fromkeys(("actions", "fields"), list),
        **dict.fromkeys(("giphy", "custom"), dict),
    },
)
REACTION: Final = Kind(
    name="a reaction",
    types={"type": str, "user_id": str, "score": int, "custom": dict},
    never_null=frozenset({"type", "score"}),
)
USER: Final = Kind(
    name="a user",
    types={
        **dict.fromkeys(("id", "role", "name", "image", "language"), str),
        **dict.fromkeys(("banned", "online", "invisible", "shadow_banned"), bool),
        **dict.fromkeys(("teams", "blocked_user_ids"), list),
        "custom": dict,
    },
    never_null=frozenset({"id"}),
)


def moment(name: str, value: object) -> datetime | None:
    """A time in either spelling, or null.

    :raises ValueError: the value is of neither spelling, or not in the calendar.
    """
    try:
        return parse_instant(value)
    except (ValueError, OverflowError):
        raise ValueError(
            f"{name} must be an RFC3339 time with an offset, such as 2026-01-01T00:00:00Z, or unix nanoseconds, "
            "of the years 1 to 9999"
        ) from None


def spelled(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of an object with all times, those of inner objects too, as the service writes them; custom data is kept.

    :raises ValueError: a time is none, or custom data is no object.
    """
    return {name: _spelled_field(name, value) for name, value in fields.items()}


def _spelled_field(name: str, value: Any) -> Any:
    if name in TIME_FIELDS:
        at = moment(name, value)
        return None if at is None else stamp(to_us(at))
    if name == "custom":
        if not isinstance(value, dict | None):
            raise ValueError("custom must be an object wherever it is, and this is not")
        return value
    if name in MAPS and isinstance(value, dict):
        return {key: _spelled(inner) for key, inner in value.items()}
    return _spelled(value)


def _spelled(value: Any) -> Any:
    if isinstance(value, list):
        return [_spelled(item) for item in value]
    return spelled(value) if isinstance(value, dict) else value


def check_depth(value: Any) -> None:
    """:raises ValueError: objects and lists are nested too deeply for an export."""
    if _is_deeper(value, MAX_DEPTH):
        raise ValueError(f"its values are nested more than {MAX_DEPTH} levels deep")


def _is_deeper(value: Any, n_levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(n_levels == 0 or _is_deeper(item, n_levels - 1) for item in inner)

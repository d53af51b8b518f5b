"""Types of what control calls say about a message, checked before it becomes history.

A wrong value would break every later export and query of its channel, instead of the call that brings it. Fields that
are not listed here are custom fields, and may hold any JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final, Required, TypedDict, TypeVar

import msgspec

from airflow_provider_chatexport.core.times import parse_instant
from airflow_provider_chatexport.sandbox.chat.api_family import MAPS, TIME_FIELDS
from airflow_provider_chatexport.sandbox.chat.timestamps import stamp, to_us

# Writers of JSON give up at about 250 levels, and lines of an export add some of their own.
MAX_DEPTH: Final = 100

_T = TypeVar("_T")

Custom = dict[str, Any] | None


class UserFields(TypedDict, total=False):
    """A user, as far as a control call describes them."""

    id: Required[Annotated[str, msgspec.Meta(min_length=1)]]
    role: str | None
    name: str | None
    image: str | None
    language: str | None
    banned: bool | None
    online: bool | None
    invisible: bool | None
    shadow_banned: bool | None
    teams: list[Any] | None
    blocked_user_ids: list[Any] | None
    custom: Custom


User = str | UserFields | None


class AttachmentFields(TypedDict, total=False):
    """An attachment of a message."""

    type: str | None
    title: str | None
    title_link: str | None
    text: str | None
    fallback: str | None
    color: str | None
    pretext: str | None
    og_scrape_url: str | None
    image_url: str | None
    asset_url: str | None
    thumb_url: str | None
    footer: str | None
    footer_icon: str | None
    author_name: str | None
    author_link: str | None
    author_icon: str | None
    original_height: int | None
    original_width: int | None
    actions: list[Any] | None
    fields: list[Any] | None
    giphy: dict[str, Any] | None
    custom: Custom


class ReactionFields(TypedDict, total=False):
    """A reaction to a message: at least its user."""

    type: str
    score: int
    user: User
    user_id: str | None
    custom: Custom


class MessageFields(TypedDict, total=False):
    """A message, as far as a control call describes it."""

    id: str
    cid: str
    text: str
    html: str
    type: str
    parent_id: str | None
    user: User
    user_id: str | None
    quoted_message_id: str | None
    command: str | None
    mml: str | None
    poll_id: str | None
    pinned: bool | None
    pinned_by: User
    silent: bool | None
    shadowed: bool | None
    show_in_channel: bool | None
    deleted_for_me: bool | None
    mentioned_channel: bool | None
    mentioned_here: bool | None
    attachments: list[AttachmentFields]
    mentioned_users: list[User]
    mentioned_roles: list[Any] | None
    mentioned_group_ids: list[Any] | None
    latest_reactions: list[ReactionFields] | None
    restricted_visibility: list[Any] | None
    i18n: dict[str, Any] | None
    image_labels: dict[str, Any] | None
    moderation: dict[str, Any] | None
    poll: dict[str, Any] | None
    shared_location: dict[str, Any] | None
    custom: dict[str, Any]


def typed(value: object, kind: type[_T]) -> _T:
    """Return a JSON value as ``kind``.

    :raises ValueError: it is not one. The message names the place, as in ``latest_reactions[0].score: expected `int`,
        got `str```.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as problem:
        what, _, where = str(problem).partition(" - at `$")
        where = where.removesuffix("`").removeprefix(".")
        raise ValueError(f"{where}: {what[0].lower()}{what[1:]}" if where else what) from None


def check_message(fields: Mapping[str, Any]) -> None:
    """Check the types of a message and of everything in it.

    :raises ValueError: a value is not of its field's type, or is nested too deeply for an export.
    """
    if _is_deeper(fields, MAX_DEPTH):
        raise ValueError(f"its values are nested more than {MAX_DEPTH} levels deep")
    typed(fields, MessageFields)


def parse_time(name: str, value: object) -> datetime | None:
    """Return a time in either spelling as a datetime; null as None.

    :raises ValueError: the value has neither spelling, or is not in the calendar.
    """
    try:
        return parse_instant(value)
    except (ValueError, OverflowError):
        raise ValueError(
            f"{name} must be an RFC3339 time with an offset, such as 2026-01-01T00:00:00Z, or unix nanoseconds, "
            "of the years 1 to 9999"
        ) from None


def with_service_times(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an object with all times, also of inner objects, as the service writes them.

    Custom data stays as it is.

    :raises ValueError: a time is not a time, or custom data is not an object.
    """
    return {name: _with_service_times(name, value) for name, value in fields.items()}


def _with_service_times(name: str, value: Any) -> Any:
    if name in TIME_FIELDS:
        at = parse_time(name, value)
        return None if at is None else stamp(to_us(at))
    if name == "custom":
        if not isinstance(value, dict | None):
            raise ValueError("custom must be an object, wherever it is")
        return value
    if name in MAPS and isinstance(value, dict):
        return {key: _inside(inner) for key, inner in value.items()}
    return _inside(value)


def _inside(value: Any) -> Any:
    if isinstance(value, list):
        return [_inside(item) for item in value]
    return with_service_times(value) if isinstance(value, dict) else value


def _is_deeper(value: Any, n_levels: int) -> bool:
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return any(n_levels == 0 or _is_deeper(item, n_levels - 1) for item in inner)

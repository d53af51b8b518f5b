"""Export requests: at most 25 channels or users each, with a fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Literal, NewType, Self, TypeVar

from airflow_provider_chatexport.core.window import Window
from airflow_provider_chatexport.errors import CallError

# Examples for errors.
A_CHANNEL: Final = "messaging:general"
A_USER: Final = "ann-17"

Cid = NewType("Cid", str)
UserId = NewType("UserId", str)

# The documentation says 25, newer API descriptions say 100. The smaller number always works.
MAX_CHANNELS_PER_EXPORT: Final = 25
MAX_USERS_PER_EXPORT: Final = 25

_T = TypeVar("_T")


def parse_cid(text: str) -> Cid:
    """Parse a channel's ``type:id``. Only the first colon separates type and id.

    :raises CallError: there is no colon, or one side is empty.
    """
    channel_type, colon, channel_id = text.strip().partition(":")
    if not (channel_type and colon and channel_id):
        raise CallError(f"{text[:80]!r} is not a channel; write TYPE:ID, such as {A_CHANNEL}")
    return Cid(f"{channel_type}:{channel_id}")


def parse_cids(channels: str | Iterable[str]) -> list[Cid]:
    """Parse one channel or several.

    :raises CallError: one is not ``TYPE:ID``.
    """
    return [parse_cid(cid) for cid in ([channels] if isinstance(channels, str) else channels)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportFlags:
    """Options of a channel export, named as the service names them ("Exporting Data")."""

    version: Literal["v1", "v2"] = "v2"
    include_truncated_messages: bool = False
    include_soft_deleted_channels: bool = False
    clear_deleted_message_text: bool = False
    export_users: bool = False

    def __post_init__(self) -> None:
        if self.version not in ("v1", "v2"):
            raise CallError(f"version is {self.version!r}; the service knows v1 and v2, so set one of them")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelsRequest:
    """One channel export: at most 25 channels, and one window for all of them (None: the whole history)."""

    channels: tuple[Cid, ...]
    window: Window | None = None
    flags: ExportFlags = field(default_factory=ExportFlags)

    def __post_init__(self) -> None:
        if not 1 <= len(self.channels) <= MAX_CHANNELS_PER_EXPORT:
            raise CallError(
                f"a channel export takes 1 to {MAX_CHANNELS_PER_EXPORT} channels, not {len(self.channels)}; "
                "use plan_channels() to make batches"
            )

    @property
    def fingerprint(self) -> str:
        """32 hex digits, the same for the same channels in any order, window and flags."""
        return _digest({"kind": "channels", **self.to_json(), "channels": sorted(self.channels)})

    def without(self, channels: Collection[Cid]) -> ChannelsRequest | None:
        """Return the same request for the remaining channels, or None if none remains."""
        remaining = tuple(cid for cid in self.channels if cid not in channels)
        return replace(self, channels=remaining) if remaining else None

    def split_channels(self) -> tuple[ChannelsRequest, ChannelsRequest]:
        """Return two requests with half of the channels each, to find the one for which the service refuses all.

        :raises CallError: there is one channel only.
        """
        if len(self.channels) < 2:
            raise CallError(f"a request of one channel ({', '.join(self.channels)}) cannot be split; split its window")
        middle = len(self.channels) // 2
        return replace(self, channels=self.channels[:middle]), replace(self, channels=self.channels[middle:])

    def split_window(self) -> tuple[ChannelsRequest, ChannelsRequest] | None:
        """Return two requests for the same channels and half of the window each, for an export that is too large.

        None if there is no window, or if it is too short.
        """
        halves = self.window.halves() if self.window else None
        return (replace(self, window=halves[0]), replace(self, window=halves[1])) if halves else None

    def to_json(self) -> dict[str, Any]:
        """Return the request as JSON types."""
        return {
            "channels": list(self.channels),
            "window": self.window.to_json() if self.window else None,
            "flags": asdict(self.flags),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Read what ``to_json`` returned."""
        window = value["window"]
        return cls(
            channels=tuple(Cid(cid) for cid in value["channels"]),
            window=Window.from_json(window) if window else None,
            flags=ExportFlags(**value["flags"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class UsersRequest:
    """One users export: at most 25 users, with everything that the service knows about them."""

    user_ids: tuple[UserId, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.user_ids) <= MAX_USERS_PER_EXPORT:
            raise CallError(
                f"a users export takes 1 to {MAX_USERS_PER_EXPORT} user ids, not {len(self.user_ids)}; use "
                "plan_users() to make batches"
            )

    @property
    def fingerprint(self) -> str:
        """32 hex digits, the same for the same users in any order."""
        return _digest({"kind": "users", "user_ids": sorted(self.user_ids)})

    def to_json(self) -> dict[str, Any]:
        """Return the request as JSON types."""
        return {"user_ids": list(self.user_ids)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Read what ``to_json`` returned."""
        return cls(user_ids=tuple(UserId(user_id) for user_id in value["user_ids"]))


def plan_channels(channels: Iterable[str], window: Window | None, flags: ExportFlags) -> list[ChannelsRequest]:
    """Return requests that together export each channel once, in batches of 25, in the caller's order.

    :raises CallError: there is no channel, or one that is not TYPE:ID.
    """
    cids = list(dict.fromkeys(parse_cid(text) for text in channels))
    if not cids:
        raise CallError(f"there is no channel to export; name at least one as TYPE:ID, such as {A_CHANNEL}")
    return [
        ChannelsRequest(channels=batch, window=window, flags=flags) for batch in _batches(cids, MAX_CHANNELS_PER_EXPORT)
    ]


def plan_users(user_ids: Iterable[str]) -> list[UsersRequest]:
    """Return requests that together export each user once, in batches of 25, in the caller's order.

    :raises CallError: there is no user id, or an empty one.
    """
    ids = list(dict.fromkeys(UserId(user_id.strip()) for user_id in user_ids))
    if not ids or not all(ids):
        raise CallError("there is no user to export, or a user id is empty; name at least one id, such as " + A_USER)
    return [UsersRequest(user_ids=batch) for batch in _batches(ids, MAX_USERS_PER_EXPORT)]


def _batches(items: list[_T], size: int) -> Iterator[tuple[_T, ...]]:
    for start in range(0, len(items), size):
        yield tuple(items[start : start + size])


def _digest(value: dict[str, Any]) -> str:
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]

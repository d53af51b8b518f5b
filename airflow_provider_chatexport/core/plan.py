"""What to ask the service for: channels or users, in requests of at most 25, each with a fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Literal, NewType, Self, TypeVar

from airflow_provider_chatexport.core.window import Window
from airflow_provider_chatexport.errors import CallError

Cid = NewType("Cid", str)
UserId = NewType("UserId", str)

# 25 in the documentation; newer API descriptions say 100. The smaller number always works.
MAX_CHANNELS_PER_EXPORT: Final = 25
MAX_USERS_PER_EXPORT: Final = 25

_T = TypeVar("_T")


def parse_cid(text: str) -> Cid:
    """A channel's ``type:id``, split on the first colon only.

    :raises CallError: there is no colon, or one side is empty.
    """
    channel_type, colon, channel_id = text.strip().partition(":")
    if not (channel_type and colon and channel_id):
        raise CallError(f"{text[:80]!r} is not a channel; write TYPE:ID, such as messaging:general")
    return Cid(f"{channel_type}:{channel_id}")


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
            raise CallError(f"version is {self.version!r}; the service knows v1 and v2")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelsRequest:
    """One channel export: at most 25 channels, one window for all of them (None: the whole history)."""

    channels: tuple[Cid, ...]
    window: Window | None = None
    flags: ExportFlags = field(default_factory=ExportFlags)

    def __post_init__(self) -> None:
        if not 1 <= len(self.channels) <= MAX_CHANNELS_PER_EXPORT:
            raise CallError(
                f"a channel export takes 1 to {MAX_CHANNELS_PER_EXPORT} channels, not {len(self.channels)}; "
                "plan_channels() makes the batches"
            )

    @property
    def fingerprint(self) -> str:
        """The same for the same question: channels in any order, window and flags. 32 hex digits."""
        return _digest({"kind": "channels", **self.to_json(), "channels": sorted(self.channels)})

    def without(self, channels: Collection[Cid]) -> ChannelsRequest | None:
        """The same for the other channels; None where there is none."""
        left = tuple(cid for cid in self.channels if cid not in channels)
        return replace(self, channels=left) if left else None

    def bisected(self) -> tuple[ChannelsRequest, ChannelsRequest]:
        """Two halves, to find the channel for which the service refuses the whole.

        :raises CallError: one channel cannot be halved.
        """
        if len(self.channels) < 2:
            raise CallError("a request of one channel cannot be halved")
        middle = len(self.channels) // 2
        return replace(self, channels=self.channels[:middle]), replace(self, channels=self.channels[middle:])

    def halved(self) -> tuple[ChannelsRequest, ChannelsRequest] | None:
        """The same channels over two halves of the window, for an export that is too much for the service at once.
        None where there is no window, or too short a one."""
        halves = self.window.halves() if self.window else None
        return (replace(self, window=halves[0]), replace(self, window=halves[1])) if halves else None

    def to_json(self) -> dict[str, Any]:
        return {
            "channels": list(self.channels),
            "window": self.window.to_json() if self.window else None,
            "flags": asdict(self.flags),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        window = value["window"]
        return cls(
            channels=tuple(Cid(cid) for cid in value["channels"]),
            window=Window.from_json(window) if window else None,
            flags=ExportFlags(**value["flags"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class UsersRequest:
    """One users export: at most 25 users, all that the service knows of them."""

    user_ids: tuple[UserId, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.user_ids) <= MAX_USERS_PER_EXPORT:
            raise CallError(f"a users export takes 1 to {MAX_USERS_PER_EXPORT} user ids, not {len(self.user_ids)}")

    @property
    def fingerprint(self) -> str:
        """The same for the same set of users. 32 hex digits."""
        return _digest({"kind": "users", "user_ids": sorted(self.user_ids)})

    def to_json(self) -> dict[str, Any]:
        return {"user_ids": list(self.user_ids)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        return cls(user_ids=tuple(UserId(user_id) for user_id in value["user_ids"]))


def plan_channels(channels: Iterable[str], window: Window | None, flags: ExportFlags) -> list[ChannelsRequest]:
    """Requests that together export each channel once: batches of 25 in the order given, repeats dropped.

    :raises CallError: no channel, or one that is not TYPE:ID.
    """
    cids = list(dict.fromkeys(parse_cid(text) for text in channels))
    if not cids:
        raise CallError("no channel to export; give at least one as TYPE:ID, such as messaging:general")
    return [
        ChannelsRequest(channels=batch, window=window, flags=flags) for batch in _batches(cids, MAX_CHANNELS_PER_EXPORT)
    ]


def plan_users(user_ids: Iterable[str]) -> list[UsersRequest]:
    """Requests that together export each user once: batches of 25 in the order given, repeats dropped.

    :raises CallError: no user id, or an empty one.
    """
    ids = list(dict.fromkeys(UserId(user_id.strip()) for user_id in user_ids))
    if not ids or not all(ids):
        raise CallError("no user to export, or an empty user id; give at least one id")
    return [UsersRequest(user_ids=batch) for batch in _batches(ids, MAX_USERS_PER_EXPORT)]


def _batches(items: list[_T], size: int) -> Iterator[tuple[_T, ...]]:
    for start in range(0, len(items), size):
        yield tuple(items[start : start + size])


def _digest(value: dict[str, Any]) -> str:
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]

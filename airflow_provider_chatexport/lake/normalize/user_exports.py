"""Exports of users: recognised by their content, and normalized into tables of their own.

What some users wrote, across all channels, must not pass for all that was written there: it would hide the rest. So
such an export covers no channel. Each row belongs to the user whose export it is: the author, if the author is one of
the exported users, else the user in whose part of the file it stands. (The service's reply for one user leaves authors
null.)
"""

from __future__ import annotations

import enum
from typing import Final

from airflow_provider_chatexport.core.entities import Entity, Shape
from airflow_provider_chatexport.errors import InputError
from airflow_provider_chatexport.lake.normalize.entities import Missing, NormalizedObject
from airflow_provider_chatexport.lake.normalize.export_file import Line
from airflow_provider_chatexport.lake.normalize.output import NormalizedFile
from airflow_provider_chatexport.lake.raw_json import BLANK, Fields, id_of

DEVICE: Final = "device"
# The key of a row, next to its user.
_NEEDED: Final[dict[Entity, tuple[str, ...]]] = {
    Entity.USER: ("id",),
    Entity.MESSAGE: ("id",),
    Entity.REACTION: ("message_id", "type"),
}


class UsersEvidence(enum.Enum):
    """Why a file of unknown kind counts as an export of users, in words."""

    WHOLE_USERS = "it has whole users with their messages or reactions"
    DEVICES = "it has users, what they wrote, and lines of their devices"
    NO_CHANNEL = "it has users and what they wrote, and no channel line"
    OTHER_CHANNELS = "it has users, and messages of channels that have no channel line"


def users_evidence(normalized: NormalizedFile, name: str) -> UsersEvidence | None:
    """Return why a file of unknown kind is an export of users, or None if nothing says so.

    An export of channels can have users as well (``export_users``), so they alone say nothing. A file with members or
    reads may have lost its channel line to a reject, and then stays an export of channels.

    :param normalized: the file, normalized as an export of channels.
    :raises InputError: it holds whole exports of users, and channels as well.
    """
    names = normalized.entities.keys()
    in_channels = {Entity.CHANNEL.value, Entity.MEMBER.value, Entity.READ.value} & names
    if normalized.has_user_export:
        if in_channels:
            raise InputError(
                f"{name} holds an export of channels and an export of users in one; nothing was loaded, give them as "
                "two files"
            )
        return UsersEvidence.WHOLE_USERS
    if Entity.USER.value not in names or names.isdisjoint({Entity.MESSAGE.value, Entity.REACTION.value}):
        return None
    if DEVICE in names:
        return UsersEvidence.DEVICES
    lost_one = in_channels and normalized.rejects.n_rows
    return UsersEvidence.NO_CHANNEL if Entity.CHANNEL.value not in in_channels and not lost_one else None


def may_be_of_other_channels(normalized: NormalizedFile) -> bool:
    """Return whether messages of channels without a channel line would make a file an export of users.

    An export of channels has a line for every channel.
    """
    return {Entity.USER.value, Entity.CHANNEL.value} <= normalized.entities.keys() and not normalized.rejects.n_rows


class UserExportContext:
    """An export of users: an object belongs to its user. All but users, messages and reactions is another entity."""

    head = Entity.USER
    kept = tuple(_NEEDED)

    def __init__(self, max_line_bytes: int) -> None:
        self.max_line_bytes = max_line_bytes
        self.cid: str | None = None
        self.met_user_export = False
        self.shapes: set[Shape] = set()
        self._owner: str | None = None

    def leave(self) -> None:
        """Forget the user who came last."""
        self._owner = None

    def usual(self, line: Line) -> None:
        """Split every line: each object needs its owner."""

    def place(self, entity: Entity, line: Line, payload: bytes, fields: Fields) -> NormalizedObject | Missing:
        """Return an object with its owner."""
        if entity is Entity.USER:
            self._owner = id_of(fields, "id") or None
        for key in _NEEDED[entity]:
            if fields.get(key, b"null") in BLANK:
                return Missing(key)
        return NormalizedObject(entity=entity, line=line.number, offset=line.offset, data=payload, owner=self._owner)

    def custom_keys(self, entity: Entity) -> None:
        """Have DuckDB read all objects as JSON, which says whose export they stand in."""

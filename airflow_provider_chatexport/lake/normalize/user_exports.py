"""Exports of users: recognised by their content, and normalized into tables of their own.

What some users wrote, across all channels, must not pass for all that was written there: it would hide the rest. So
such an export covers no channel. Each row belongs to the user whose export it is: the author, if the author is one of
the exported users, else the user in whose part of the file it stands. (The service's reply for one user leaves authors
null.)
"""

from __future__ import annotations

from typing import Final

from airflow_provider_chatexport.core.entities import Entity
from airflow_provider_chatexport.errors import InputError
from airflow_provider_chatexport.lake.normalize.entities import Missing, NormalizedObject
from airflow_provider_chatexport.lake.normalize.export_file import Line
from airflow_provider_chatexport.lake.normalize.output import NormalizedFile
from airflow_provider_chatexport.lake.raw_json import BLANK, Fields, id_of

# The key of a row, next to its user.
_NEEDED: Final[dict[Entity, tuple[str, ...]]] = {
    Entity.USER: ("id",),
    Entity.MESSAGE: ("id",),
    Entity.REACTION: ("message_id", "type"),
}


def is_users_export(normalized: NormalizedFile, name: str) -> bool:
    """Return whether a file of unknown kind holds users and what they did, and no channel.

    :param normalized: the file, normalized as an export of channels.
    :raises InputError: it holds whole exports of users, and channels as well.
    """
    names = normalized.entities.keys()
    of_channels = not names.isdisjoint({Entity.CHANNEL.value, Entity.MEMBER.value, Entity.READ.value})
    if normalized.has_user_export and of_channels:
        raise InputError(
            f"{name} holds an export of channels and an export of users in one; nothing was loaded, give them as two "
            "files"
        )
    by_users = Entity.USER.value in names and not names.isdisjoint({Entity.MESSAGE.value, Entity.REACTION.value})
    return not of_channels and (by_users or normalized.has_user_export)


class UserExportContext:
    """An export of users: an object belongs to its user. All but users, messages and reactions is another entity."""

    head = Entity.USER
    kept = tuple(_NEEDED)

    def __init__(self, max_line_bytes: int) -> None:
        self.max_line_bytes = max_line_bytes
        self.cid: str | None = None
        self.met_user_export = False
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

"""Exports of users: told from exports of channels, and normalized into tables of their own.

What some users wrote, across all channels, must not be taken for all that was written there: it would hide the rest.
So their rows claim nothing. They belong to the user whose export it is: the author, if that is one of the users
exported, else the user in whose part of the file they stand (the service's reply for one user leaves authors null).
"""

from __future__ import annotations

from typing import Final

from airflow_provider_chatexport.core.entities import ALIASES, Entity
from airflow_provider_chatexport.errors import InputError
from airflow_provider_chatexport.lake.normalize.elements import ElementBuffer
from airflow_provider_chatexport.lake.normalize.export_file import Line
from airflow_provider_chatexport.lake.normalize.normalizer import Normalizer
from airflow_provider_chatexport.lake.normalize.output import NormalizedFile
from airflow_provider_chatexport.lake.normalize.shapes import REPLY_TOOK
from airflow_provider_chatexport.lake.raw_json import BLANK, Fields, NotAnObjectError, checked_value, id_of, read_object

# Without these an object cannot be a row: they are its key, beside the user.
_NEEDED: Final[dict[Entity, tuple[str, ...]]] = {
    Entity.USER: ("id",),
    Entity.MESSAGE: ("id",),
    Entity.REACTION: ("message_id", "type"),
}


def is_users_export(normalized: NormalizedFile, name: str) -> bool:
    """Whether a file of which nobody said what it is holds users and what they did, and no channel.

    :raises InputError: it holds whole exports of users, and channels as well.
    """
    held = normalized.entities.keys()
    of_channels = not held.isdisjoint({Entity.CHANNEL.value, Entity.MEMBER.value, Entity.READ.value})
    if normalized.n_user_exports and of_channels:
        raise InputError(
            f"{name} holds an export of channels and an export of users in one; nothing was loaded, give them as two "
            "files"
        )
    by_users = Entity.USER.value in held and not held.isdisjoint({Entity.MESSAGE.value, Entity.REACTION.value})
    return not of_channels and (by_users or normalized.n_user_exports > 0)


class UserExportNormalizer(Normalizer):
    """Sifts an export of users. Whatever is no user, message or reaction is kept whole, with the other entities."""

    _head = Entity.USER

    def _take_any(self, line: Line) -> None:
        self._take_line(line)

    def _leave(self) -> None:
        """Whatever comes next belongs to no user that was met."""
        self._owner = None

    def _end_element(self, element: ElementBuffer, line: Line) -> None:
        element.held = [part for part in element.held if part[0] != REPLY_TOOK]
        super()._end_element(element, line)

    def _take_part(self, key: str, line: Line, *, is_item: bool) -> None:
        if key != REPLY_TOOK:
            super()._take_part(key, line, is_item=is_item)

    def _take_entity(
        self, line: Line, name: str, payload: bytes, fields: Fields | None = None, *, is_part: bool = False
    ) -> None:
        entity = ALIASES.get(name)
        given = payload if is_part else None
        if entity is Entity.USER:  # what follows is theirs, or, where this is a reject, nobody's
            self._owner = None
        try:
            if entity not in _NEEDED:
                self._write_other(line, name, checked_value(payload))
                return
            payload, fields = read_object(payload, fields)
        except NotAnObjectError as error:
            name = entity.value if entity else name
            self._reject_entity(line, name, f"{name}: {error}", given)
            return
        if entity is Entity.USER:
            self._owner = id_of(fields, "id")
        for key in _NEEDED[entity]:
            if fields.get(key, b"null") in BLANK:
                self._reject_entity(line, entity.value, f"{entity.value} without {key}", given)
                return
        self._write(entity, line, payload)

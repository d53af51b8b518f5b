"""Ids of messages say who wrote them: the service and its SDKs put the author's id before a random part.

``ann-85f6fa93-1165-437c-01f7-90a02d07cdc9`` is the service's own way, and that of most SDKs; others end in a nanoid.
What looks like it is taken for it, by the id alone, so that a message has the same id wherever it is referred to.
"""

from __future__ import annotations

from typing import Final

_UUID: Final = "[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_NANOID: Final = r"[\w-]{21}"
# The random part with the hyphen before it, as a regular expression of Python and of DuckDB.
RANDOM_PART: Final = f"-(?:{_UUID}|{_NANOID})"
_RANDOM_PART: Final = f"{RANDOM_PART}$"
_AUTHORED: Final = f"(?s)^(.+){RANDOM_PART}$"


def author(message_id: str) -> str:
    """An expression: the author's id in a message's id, null where there is none."""
    return f"nullif(regexp_extract({message_id}, '{_AUTHORED}', 1), '')"


def is_by(message_id: str, user_id: str) -> str:
    """A condition: the id says that the user wrote the message. All are expressions."""
    # Most rows are somebody else's, and the expression is costlier than the first look.
    return f"coalesce(starts_with({message_id}, {user_id} || '-') AND {author(message_id)} = {user_id}, false)"


def as_by(message_id: str, other: str) -> str:
    """An expression: the id with another author in it, for an id that has one."""
    return f"{other} || regexp_extract({message_id}, '{_RANDOM_PART}')"


def without_author(message_id: str) -> str:
    """An expression: what is left of an id, whatever became of the author's in it."""
    return f"coalesce(nullif(regexp_extract({message_id}, '{_RANDOM_PART}'), ''), {message_id})"

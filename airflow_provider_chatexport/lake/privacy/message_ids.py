"""Ids of messages say who wrote them: the service and its SDKs put the author's id before a random part.

``ann-85f6fa93-1165-437c-01f7-90a02d07cdc9`` is the service's own way, and that of most SDKs; others end in a nanoid.
What looks like it is taken for it, by the id alone, so that a message has the same id wherever it is referred to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

# The random part with the hyphen before it, as a regular expression of Python and of DuckDB, and how long it is.
_UUID: Final = ("-[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", 37)
_NANOID: Final = (r"-[\w-]{21}", 22)
RANDOM_PART: Final = f"(?:{_UUID[0]}|{_NANOID[0]})"


def author(message_id: str) -> str:
    """An expression: the author's id in a message's id, null where there is none."""
    # Looking at the end alone is six times as fast as one pattern for all of it.
    cases = " ".join(
        f"WHEN regexp_full_match(right({message_id}, {length}), '{part}') THEN left({message_id}, -{length})"
        for part, length in (_UUID, _NANOID)
    )
    return f"nullif(CASE {cases} END, '')"


def is_by(message_id: str, user_ids: Sequence[str]) -> str:
    """A condition: the id says that one of the users wrote the message. All are expressions."""
    # Most rows are somebody else's, and to cut an id is costlier than a first look at how it begins.
    begins = " OR ".join(f"starts_with({message_id}, {user_id} || '-')" for user_id in user_ids)
    return f"coalesce(({begins}) AND {author(message_id)} IN ({', '.join(user_ids)}), false)"


def random_part(message_id: str, author: str) -> str:
    """An expression: what follows the author in a message's id, with its hyphen; null where there is no author."""
    return f"substr({message_id}, length({author}) + 1)"


def without_author(message_id: str) -> str:
    """An expression: what is left of an id, whatever became of the author's in it."""
    return f"coalesce({random_part(message_id, author(message_id))}, {message_id})"

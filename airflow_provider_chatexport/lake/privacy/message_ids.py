"""Message ids start with the author: the service and its SDKs put the user id before a random part.

``ann-85f6fa93-1165-437c-01f7-90a02d07cdc9`` is the service's own way, and that of most SDKs; others end in a nanoid.
Every id that matches the pattern is treated as author-prefixed, so that all references to a message are rewritten
alike.

All functions take and return SQL expressions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

# The random part with the hyphen before it, as a regular expression of Python and of DuckDB, and its length.
_UUID: Final = ("-[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", 37)
_NANOID: Final = (r"-[\w-]{21}", 22)
RANDOM_PART: Final = f"(?:{_UUID[0]}|{_NANOID[0]})"
# The same after an id that is an ordinary word, for Python: words with hyphens between them may be as long.
SURE_RANDOM_PART: Final = rf"(?:{_UUID[0]}|-(?=[\w-]*\d)[\w-]{{21}})"


def author(message_id: str) -> str:
    """Return the author's id in a message's id; null where there is none."""
    # Matching the end alone is six times as fast as one pattern for the whole id.
    cases = " ".join(
        f"WHEN regexp_full_match(right({message_id}, {length}), '{pattern}') THEN left({message_id}, -{length})"
        for pattern, length in (_UUID, _NANOID)
    )
    return f"nullif(CASE {cases} END, '')"


def is_by(message_id: str, user_ids: Sequence[str]) -> str:
    """Return a condition: the id says that one of the users wrote the message."""
    # Most rows are of other people, and it costs more to cut an id than to compare its start first.
    prefixes = " OR ".join(f"starts_with({message_id}, {user_id} || '-')" for user_id in user_ids)
    return f"coalesce(({prefixes}) AND {author(message_id)} IN ({', '.join(user_ids)}), false)"


def random_part(message_id: str, author: str) -> str:
    """Return what follows the author in a message's id, with its hyphen; null where there is no author."""
    return f"substr({message_id}, length({author}) + 1)"


def without_author(message_id: str) -> str:
    """Return a message's id without its author, so that ids can be compared whatever became of the author in them."""
    return f"coalesce({random_part(message_id, author(message_id))}, {message_id})"


_AUTHOR: Final = re.compile(rf"(.+?){RANDOM_PART}", re.DOTALL)


def author_in(message_id: str) -> str | None:
    """Return the author's id in a message's id, as ``author`` does in SQL; None where there is none."""
    found = _AUTHOR.fullmatch(message_id)
    return found.group(1) if found else None

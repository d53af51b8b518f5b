"""What the sandbox remembers of a request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# Control calls are not part of the story that a test checks, so they are not recorded.
CONTROL_PATH: Final = "/_sandbox"
# A sandbox that runs for weeks must not fill the memory.
MAX_REQUESTS: Final = 100_000


@dataclass(slots=True, kw_only=True)
class RecordedRequest:
    """One request, without anything secret.

    ``path`` has no query, which may hold a key or a signature. ``headers`` are the names of the headers that were
    present, in lower case. ``status`` is None if the client got no answer. ``fault`` names what a fault did to the
    request, such as ``drop``.
    """

    method: str
    path: str
    headers: tuple[str, ...]
    status: int | None = None
    fault: str | None = None

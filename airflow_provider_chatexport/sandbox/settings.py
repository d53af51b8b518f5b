"""The settings of a sandbox: its address, its data, and the knobs for what the service does not document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from airflow_provider_chatexport.core.entities import References, Shape
from airflow_provider_chatexport.errors import CallError
from airflow_provider_chatexport.sandbox.chat.world import Bounds
from airflow_provider_chatexport.sandbox.web.faults import Fault

API_KEY: Final = "sandbox-key"
API_SECRET: Final = "sandbox-secret-not-for-production-use"  # noqa: S105 - public on purpose: it opens a local sandbox


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxSettings:
    """How a sandbox behaves.

    :param port: 0 picks a free one.
    :param data: a file in the corpus format; None is the chat that ships with the package.
    :param messages: generate this many messages, with the words and authors of ``data``, instead of serving ``data``
        itself.
    :param shape: what a line of a v2 export looks like.
    :param references: how objects of a v2 export name users and channels; None is what usually comes with the shape:
        by id in ``item``, as objects in the others.
    :param bounds: whether a message on the edge of a window is in it.
    :param attachment_links: images and videos of the shipped chat are at the sandbox's file host, behind links that end
        after 14 days and are renewed by every export; otherwise exports have the original addresses, and the same bytes
        every time.
    :param gzip: export files are gzip.
    :param task_s: seconds, by the sandbox's clock, from the request for an export to its end.
    :param rate_limit: refuse requests over the service's limits. Answers have the headers of the limits in any case.
    :param frozen_clock: the sandbox's clock stands still until a control call moves it, so that a test of rate limits
        does not depend on how fast the machine is. Exports end only when the clock moves by ``task_s``, or at once if
        that is zero.
    :param faults: faults that are set from the start, each as ``DO PATH [times=N] [after=N] [method=GET]``, such as
        ``status:503 /api/v2/tasks times=2``.
    :raises CallError: a number is out of its range, or there is no such fault.
    """

    host: str = "127.0.0.1"
    port: int = 0
    data: Path | None = None
    messages: int | None = None
    shape: Shape = Shape.ITEM
    references: References | None = None
    bounds: Bounds = Bounds.HALF_OPEN
    attachment_links: bool = True
    gzip: bool = False
    task_s: float = 1.0
    rate_limit: bool = True
    frozen_clock: bool = False
    faults: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not self.host:
            raise CallError("an empty host would listen on every address of this machine; give 0.0.0.0 for that")
        if not 0 <= self.port <= 65535:
            raise CallError(f"port {self.port} does not exist; give one from 1 to 65535, or 0 for any free one")
        if not 0 <= self.task_s < float("inf"):
            raise CallError(f"an export cannot take {self.task_s} seconds; give zero or more")
        if self.messages is not None and self.messages < 1:
            raise CallError(f"a sandbox cannot have {self.messages} messages; give one or more")
        self.read_faults()

    def read_faults(self) -> list[Fault]:
        """Return the faults that ``faults`` lists. Each call returns new ones, because a fault counts down.

        :raises CallError: there is no such fault, or it can never happen.
        """
        read = []
        for text in self.faults:
            try:
                read.append(Fault.parse(text))
            except ValueError as problem:
                raise CallError(
                    f"the fault {text[:80]!r} cannot be read: {problem}; write one such as 'status:503 /api/v2/tasks "
                    "times=2'"
                ) from None
        return read

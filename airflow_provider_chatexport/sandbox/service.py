"""What one running sandbox consists of, put together: the world, the clock, tasks, limits, faults, links."""

from __future__ import annotations

import tempfile
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from airflow_provider_chatexport.sandbox.chat.world import World
from airflow_provider_chatexport.sandbox.clock import Clock
from airflow_provider_chatexport.sandbox.exports.reader_pool import Readers
from airflow_provider_chatexport.sandbox.exports.signed_links import Links
from airflow_provider_chatexport.sandbox.exports.tasks import Tasks
from airflow_provider_chatexport.sandbox.settings import SandboxSettings
from airflow_provider_chatexport.sandbox.web.faults import Faults
from airflow_provider_chatexport.sandbox.web.middleware import NotedRequest
from airflow_provider_chatexport.sandbox.web.rate_limits import RateLimits

# More would be a leak in a sandbox that runs for weeks.
MAX_NOTED_REQUESTS: Final = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """The parts of a sandbox, for those who answer requests. ``close`` ends its threads and removes its files."""

    settings: SandboxSettings
    world: World
    clock: Clock
    readers: Readers
    tasks: Tasks
    limits: RateLimits
    links: Links
    faults: Faults
    requests: deque[NotedRequest]
    folder: tempfile.TemporaryDirectory[str]

    @classmethod
    def start(cls, settings: SandboxSettings, world: World) -> Service:
        clock, readers = Clock(), Readers()
        folder = tempfile.TemporaryDirectory(prefix="chatexport-sandbox-")
        return cls(
            settings=settings,
            world=world,
            clock=clock,
            readers=readers,
            tasks=Tasks(clock, readers, task_s=settings.task_s, folder=Path(folder.name)),
            limits=RateLimits(clock, enforced=settings.rate_limit),
            links=Links(clock),
            faults=Faults(),
            requests=deque(maxlen=MAX_NOTED_REQUESTS),
            folder=folder,
        )

    def close(self) -> None:
        self.tasks.close()
        self.readers.close()
        self.folder.cleanup()

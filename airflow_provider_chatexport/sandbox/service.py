"""The parts of a running sandbox: the world, the clock, tasks, limits, faults, links."""

from __future__ import annotations

import tempfile
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from airflow_provider_chatexport.sandbox.chat.world import World
from airflow_provider_chatexport.sandbox.clock import Clock
from airflow_provider_chatexport.sandbox.exports.reader_pool import ReaderPool
from airflow_provider_chatexport.sandbox.exports.signed_links import SignedLinks
from airflow_provider_chatexport.sandbox.exports.tasks import Tasks
from airflow_provider_chatexport.sandbox.retention import Retention
from airflow_provider_chatexport.sandbox.settings import SandboxSettings
from airflow_provider_chatexport.sandbox.web.faults import Faults
from airflow_provider_chatexport.sandbox.web.rate_limits import RateLimits
from airflow_provider_chatexport.sandbox.web.request_log import MAX_REQUESTS, RecordedRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What the endpoints and the control calls of one sandbox work with."""

    settings: SandboxSettings
    world: World
    clock: Clock
    readers: ReaderPool
    tasks: Tasks
    limits: RateLimits
    links: SignedLinks
    retention: Retention
    faults: Faults
    requests: deque[RecordedRequest]
    folder: tempfile.TemporaryDirectory[str]

    @classmethod
    def start(cls, settings: SandboxSettings, world: World) -> Service:
        """Create the parts, among them a folder for export files and the threads that write them."""
        clock, readers = Clock(frozen=settings.frozen_clock), ReaderPool()
        folder = tempfile.TemporaryDirectory(prefix="chatexport-sandbox-")
        return cls(
            settings=settings,
            world=world,
            clock=clock,
            readers=readers,
            tasks=Tasks(clock, readers, task_s=settings.task_s, folder=Path(folder.name)),
            limits=RateLimits(clock, enforced=settings.rate_limit),
            links=SignedLinks(clock),
            retention=Retention(clock),
            faults=Faults(settings.read_faults()),
            requests=deque(maxlen=MAX_REQUESTS),
            folder=folder,
        )

    async def reset(self) -> None:
        """Return to the state of the start: history, clock, exports, limits, policies, faults and requests.

        It waits for export files that are being written. Earlier links are refused.
        """

        def start_again() -> None:
            self.clock.reset()
            self.world.reset()
            self.tasks.clear()
            self.retention.reset()
            self.limits.reset()
            self.links.reset()
            self.faults[:] = self.settings.read_faults()
            self.requests.clear()

        await self.readers.change(start_again)

    async def delete_old(self) -> None:
        """Let the retention policies delete what they cover now. Endpoints that show history call it first."""
        cutoffs = self.retention.cutoffs()
        if cutoffs != self.retention.applied:
            await self.readers.change(lambda: self.world.delete_old(*cutoffs))
            self.retention.applied = cutoffs

    def close(self) -> None:
        """End the threads and delete the export files."""
        self.tasks.close()
        self.readers.close()
        self.folder.cleanup()

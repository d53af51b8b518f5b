"""Keeps readers and changes of the world apart.

An export shows the world of the moment of its request, but a thread writes it while the server goes on. So a change of
history waits until all reads are done, and runs on the event loop, where no read can start in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

_T = TypeVar("_T")

# Rendering is bound by the interpreter: more threads would only take turns and starve the event loop.
N_RENDERERS: Final = 2


class ReaderPool:
    """Reads in threads, and changes between the reads. Call its methods on the event loop only."""

    def __init__(self) -> None:
        self._renderers = ThreadPoolExecutor(N_RENDERERS, thread_name_prefix="sandbox-render")
        self._lookups = ThreadPoolExecutor(4, thread_name_prefix="sandbox-read")
        self._readers: set[asyncio.Future[Any]] = set()

    def render(self, work: Callable[[], _T]) -> asyncio.Future[_T]:
        """Start a long read, and do not wait for it."""
        return self._start(self._renderers, work)

    async def read(self, work: Callable[[], _T]) -> _T:
        """Return the result of a short read, which does not queue behind long ones."""
        # Shielded, as cancelling the request would not stop the thread: it counts as a reader until it is done.
        return await asyncio.shield(self._start(self._lookups, work))

    async def change(self, work: Callable[[], _T]) -> _T:
        """Run ``work`` when no read is running. It must be quick, because the server waits for it."""
        while self._readers:
            await asyncio.wait(self._readers)
        return work()

    def close(self) -> None:
        """Wait for running reads, and end the threads."""
        for pool in (self._renderers, self._lookups):
            pool.shutdown(wait=True, cancel_futures=True)

    def _start(self, pool: ThreadPoolExecutor, work: Callable[[], _T]) -> asyncio.Future[_T]:
        future = asyncio.get_running_loop().run_in_executor(pool, work)
        self._readers.add(future)
        future.add_done_callback(self._readers.discard)
        return future

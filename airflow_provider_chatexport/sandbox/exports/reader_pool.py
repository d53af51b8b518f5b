"""Who reads the world, and who changes it.

An export shows the world as it was when it was asked for, yet is written in a thread while the server goes on. So a
change of history waits until everyone who reads is done, and is made on the event loop, where nobody can begin to read
in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

_T = TypeVar("_T")

# Rendering is bound by the interpreter: more threads would only take turns and starve the event loop.
N_RENDERERS: Final = 2


class Readers:
    """Reads in threads, changes between them. All methods are for the event loop's thread."""

    def __init__(self) -> None:
        self._renderers = ThreadPoolExecutor(N_RENDERERS, thread_name_prefix="sandbox-render")
        self._lookups = ThreadPoolExecutor(4, thread_name_prefix="sandbox-look")
        self._readers: set[asyncio.Future[Any]] = set()

    def render(self, work: Callable[[], _T]) -> asyncio.Future[_T]:
        """Begins a long read, and does not wait for it."""
        return self._read(self._renderers, work)

    async def look(self, work: Callable[[], _T]) -> _T:
        """A short read; renderings do not hold it up."""
        # Shielded, as cancelling the request would not stop the thread: it has to count as a reader until it is done.
        return await asyncio.shield(self._read(self._lookups, work))

    async def change(self, work: Callable[[], _T]) -> _T:
        """Runs ``work`` when nobody reads. It must be quick: the server stands still meanwhile."""
        while self._readers:
            await asyncio.wait(self._readers)
        return work()

    def close(self) -> None:
        for pool in (self._renderers, self._lookups):
            pool.shutdown(wait=True, cancel_futures=True)

    def _read(self, pool: ThreadPoolExecutor, work: Callable[[], _T]) -> asyncio.Future[_T]:
        future = asyncio.get_running_loop().run_in_executor(pool, work)
        self._readers.add(future)
        future.add_done_callback(self._readers.discard)
        return future

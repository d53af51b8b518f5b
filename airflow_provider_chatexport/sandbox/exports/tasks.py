"""Export tasks and their files: waiting, running, then completed or failed, and gone after 60 days.

A thread writes the file from the moment the task exists, so the file shows the world of that moment. What the service
answers for a task whose file is gone is not documented; here such a task is unknown, like one that never existed.
"""

from __future__ import annotations

import asyncio
import enum
import hashlib
import logging
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from airflow_provider_chatexport.core.entities import ExportKind
from airflow_provider_chatexport.core.task import Status
from airflow_provider_chatexport.sandbox.clock import Clock
from airflow_provider_chatexport.sandbox.exports.reader_pool import ReaderPool

log = logging.getLogger(__name__)

# "Exporting Data": files are kept for 60 days.
FILE_LIFE: Final = timedelta(days=60)
# The part of a task's time that it spends waiting for its turn.
WAITING_SHARE: Final = 0.4
WRITE_BUFFER_BYTES: Final = 1 << 20


class End(enum.Enum):
    """How a task ends: with a file, with an error, or never."""

    NORMAL = enum.auto()
    FAILS = enum.auto()
    STALLS = enum.auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What becomes of a task. A fault asks for another one than the default.

    :param status: the word that the service gives as the status of a task that fails or stalls; None for the usual one.
    """

    end: End = End.NORMAL
    status: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportFile:
    """A finished file on disk. ``etag`` is the MD5 of its bytes in quotes, as S3 has it for simple uploads."""

    path: Path
    size_bytes: int
    etag: str
    finished_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a task failed: the ErrorResult of the service's API description."""

    type: str
    description: str
    finished_at: datetime


class ExportFailedError(Exception):
    """Raised while a file is written: the service would end such a task as failed."""

    def __init__(self, kind: str, description: str) -> None:
        super().__init__(description)
        self.kind = kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """An accepted export. ``outcome`` is the file being written; None for a task that never ends."""

    id: str
    kind: ExportKind
    file_name: str
    created_at: datetime
    outcome: asyncio.Future[ExportFile | Failure] | None
    fate: Fate

    @property
    def link_path(self) -> str:
        """The path of the task's file at the file host."""
        return f"/download/exports/{self.kind.value}/{self.id}/{self.file_name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The state of a task at one moment. ``status`` is the service's word for it."""

    status: str
    updated_at: datetime
    outcome: ExportFile | Failure | None = None


class Tasks:
    """All tasks since the start. Call its methods on the event loop only.

    :param task_s: seconds, by the sandbox's clock, from the request to the end of an export.
    :param folder: where the files are written.
    """

    def __init__(self, clock: Clock, readers: ReaderPool, *, task_s: float, folder: Path) -> None:
        self._clock = clock
        self._readers = readers
        self._task_s = task_s
        self._folder = folder
        self._tasks: dict[str, Task] = {}
        self._closing = threading.Event()

    def create(self, kind: ExportKind, file_name: str, render: Callable[[], Iterator[bytes]], fate: Fate) -> Task:
        """Accept an export and start to write its file.

        :param render: yields the bytes of the file; a thread calls it.
        """
        task_id, created_at = str(uuid.uuid4()), self._clock.now()
        task = Task(
            id=task_id,
            kind=kind,
            file_name=file_name,
            created_at=created_at,
            outcome=self._start(task_id, render, fate),
            fate=fate,
        )
        self._tasks[task_id] = task
        return task

    def find(self, task_id: str) -> Task | None:
        """Return the task; None if it never existed, or if its 60 days are over."""
        task = self._tasks.get(task_id)
        return None if task is None or self._is_gone(task) else task

    def progress(self, task: Task) -> Progress:
        """Return the state of a task now, by the sandbox's clock."""
        age_s = (self._clock.now() - task.created_at).total_seconds()
        waiting_s = self._task_s * WAITING_SHARE
        if age_s < waiting_s:
            return Progress(status=Status.WAITING.value, updated_at=task.created_at)
        if age_s < self._task_s or task.outcome is None or not task.outcome.done():
            stalled = task.fate.status if task.fate.end is End.STALLS else None
            return Progress(
                status=stalled or Status.RUNNING.value, updated_at=task.created_at + timedelta(seconds=waiting_s)
            )
        outcome = task.outcome.result()
        failed = task.fate.status or Status.FAILED.value
        return Progress(
            status=Status.COMPLETED.value if isinstance(outcome, ExportFile) else failed,
            updated_at=max(task.created_at + timedelta(seconds=self._task_s), outcome.finished_at),
            outcome=outcome,
        )

    def file_at(self, link_path: str) -> ExportFile | None:
        """Return the finished file at a path of the file host."""
        task_id = link_path.rstrip("/").rpartition("/")[0].rpartition("/")[2]
        task = self.find(task_id)
        if task is None or task.link_path != link_path:
            return None
        outcome = self.progress(task).outcome
        return outcome if isinstance(outcome, ExportFile) else None

    def sweep(self) -> None:
        """Delete the files whose 60 days are over."""
        for task in [task for task in self._tasks.values() if self._is_gone(task)]:
            (self._folder / task.id).unlink(missing_ok=True)
            del self._tasks[task.id]

    def clear(self) -> None:
        """Delete all tasks with their files. The caller makes sure that no file is being written."""
        for task_id in self._tasks:
            (self._folder / task_id).unlink(missing_ok=True)
        self._tasks.clear()

    def close(self) -> None:
        """Stop writing, so that the reader pool can end."""
        self._closing.set()

    def _is_gone(self, task: Task) -> bool:
        return self._clock.now() >= task.created_at + FILE_LIFE

    def _start(
        self, task_id: str, render: Callable[[], Iterator[bytes]], fate: Fate
    ) -> asyncio.Future[ExportFile | Failure] | None:
        match fate.end:
            case End.STALLS:
                return None
            case End.FAILS:
                failed: asyncio.Future[ExportFile | Failure] = asyncio.get_running_loop().create_future()
                failed.set_result(self._failure("InternalError", "the export failed, because a fault was set"))
                return failed
            case End.NORMAL:
                return self._readers.render(lambda: self._write(self._folder / task_id, render))

    def _write(self, path: Path, render: Callable[[], Iterator[bytes]]) -> ExportFile | Failure:
        """Write the file, in a thread. An exception fails the task, not the server."""
        digest = hashlib.md5(usedforsecurity=False)
        size_bytes = 0
        try:
            with path.open("wb", buffering=WRITE_BUFFER_BYTES) as file:
                for chunk in render():
                    if self._closing.is_set():
                        return self._failure("InternalError", "the sandbox is shutting down")
                    digest.update(chunk)
                    size_bytes += file.write(chunk)
        except ExportFailedError as failed:
            return self._failure(failed.kind, str(failed))
        except Exception as problem:
            log.exception("export task failed task_id=%s", path.name)
            return self._failure("InternalError", f"the sandbox failed to write the file: {type(problem).__name__}")
        etag = f'"{digest.hexdigest()}"'
        return ExportFile(path=path, size_bytes=size_bytes, etag=etag, finished_at=self._clock.now())

    def _failure(self, kind: str, description: str) -> Failure:
        return Failure(type=kind, description=description, finished_at=self._clock.now())

"""One export file that goes into a load, and what is known about it before it is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_chatexport.core.entities import ExportKind
from airflow_provider_chatexport.core.retention import Retention
from airflow_provider_chatexport.core.window import Window

if TYPE_CHECKING:
    from airflow_provider_chatexport.lake.storage.fingerprint import Fingerprint


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFile:
    """An export file: fetched from the service, or given by a person.

    :param exported_at: when the service made the export; aware, UTC.
    :param window: what the export was asked for. None keeps every row.
    :param kind: which export it is. None: the content decides.
    :param user_ids: the users of an export of users, if they are known.
    :param cids: the channels that were asked for, or that a person states for a file given by hand. None: the file was
        given by hand, and covers each of its channels only from the first to the last message, unless ``window`` is
        stated.
    :param flags: the flags of the request.
    :param task_id: the service's task. None: the file was given by hand.
    :param finished_at: when the service finished the export, if it says so; aware, UTC.
    :param retention: how long the service keeps messages. None: the file claims all of its window.
    :param fingerprint: of a file given by hand, which may change while it is read.
    """

    path: Path
    exported_at: datetime
    sha256: str
    size_bytes: int
    window: Window | None = None
    kind: ExportKind | None = None
    user_ids: tuple[str, ...] = ()
    cids: tuple[str, ...] | None = None
    flags: Mapping[str, Any] = field(default_factory=dict)
    task_id: str | None = None
    finished_at: datetime | None = None
    retention: Retention | None = None
    fingerprint: Fingerprint | None = None

    @property
    def name(self) -> str:
        """How errors and records name the file. The path of a fetched one is gone by the time that they are read."""
        return self.path.name if self.task_id is None else f"export {self.task_id}"

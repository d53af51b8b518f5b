"""Where a load or a rewrite works until it is committed."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from pathlib import Path

from airflow_provider_chatexport.errors import LakeError
from airflow_provider_chatexport.lake.store import LakeStore
from airflow_provider_chatexport.lake.sweep import UNKNOWN_AFTER, drop_work_left_in


class WorkFolder:
    """The folder of work in the making; it goes when the work is done or has failed, and those go that were left beside
    it by what was killed."""

    def __init__(self, store: LakeStore, work_dir: Path | None) -> None:
        self._store = store
        if work_dir is not None:
            _make(work_dir)
        self._folder = store.work_folder(work_dir)
        drop_work_left_in(self._folder.parent, before=datetime.now(UTC) - UNKNOWN_AFTER)

    def __enter__(self) -> Path:
        return self._folder

    def __exit__(self, *_: object) -> None:
        self._store.drop_work_folder(self._folder)


def _make(work_dir: Path) -> None:
    """:raises LakeError: nothing can be written there; it is not the lake that is at fault."""
    try:
        work_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=work_dir):
            pass
    except OSError as error:
        raise LakeError(
            f"no work can be done in {work_dir} (work_dir): {error.strerror or error}; check that the place exists, "
            "has room, and may be written by this user"
        ) from None

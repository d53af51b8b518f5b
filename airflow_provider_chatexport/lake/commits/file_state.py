"""The state of a data file: what became of it, as all records together say (``snapshot``). Pure."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from airflow_provider_chatexport.lake.commits.coverage import TimeSpan
from airflow_provider_chatexport.lake.commits.lost_coverage import LostSpan
from airflow_provider_chatexport.lake.commits.record import DataFile, LoadRecord
from airflow_provider_chatexport.lake.schema.tables import TABLE_BY_NAME
from airflow_provider_chatexport.lake.schema.types import Placement


class FileStatus(enum.Enum):
    """What became of a file."""

    WHOLE = "whole"  # all of its rows are visible, by the truth rule
    PARTLY_HIDDEN = "partly hidden"  # newer exports may hide some of its rows, by coverage or by key
    DEAD = "dead"  # newer exports hide all of its rows, or another record's files replace it
    HISTORY = "history"  # dead, and kept for ``messages_history``
    PURGED = "purged"  # nothing may read it
    LOST = "lost"  # missing or damaged, and no record says so yet


@dataclass(frozen=True, slots=True, kw_only=True)
class FileState:
    """A file of a record, and what became of it.

    :param dead_since: when the record that ended the file was committed (aware, UTC); None while it is live.
    :param is_masked: newer coverage entries may hide some of its rows.
    :param is_contested: a file of another record may have newer rows of some of its keys.
    """

    file: DataFile
    record: LoadRecord
    status: FileStatus
    dead_since: datetime | None = None
    is_masked: bool = False
    is_contested: bool = False

    @property
    def is_live(self) -> bool:
        """Whether views and table folders show the file."""
        return self.status in (FileStatus.WHOLE, FileStatus.PARTLY_HIDDEN)

    @property
    def is_readable(self) -> bool:
        """Whether the views or ``messages_history`` read the file."""
        return self.is_live or self.status is FileStatus.HISTORY

    @property
    def span(self) -> TimeSpan:
        """The span of its UTC days."""
        return self.file.span

    @property
    def key_owner(self) -> str:
        """The same text for files of which it is known that no two rows have one key."""
        return self.record.load_id if self.record.has_unique_keys else self.file.path

    def died_before(self, moment: datetime) -> bool:
        """Return whether the file was not live any more at a moment."""
        return self.dead_since is not None and self.dead_since < moment


def lost_spans(files: Iterable[FileState]) -> list[LostSpan]:
    """Return what files leave uncovered if they are lost. Only files of event tables stand for coverage."""
    found: dict[tuple[str, TimeSpan], LostSpan] = {}
    for each in files:
        # What is kept for history, newer exports hide.
        if TABLE_BY_NAME[each.file.table].placement is not Placement.EVENT or each.dead_since is not None:
            continue
        span = each.span
        load_ids = {entry.load_id for entry in each.record.coverage if entry.overlaps(span.since, span.until)}
        if load_ids:
            lost = LostSpan(since=span.since, until=span.until, load_ids=tuple(sorted(load_ids)))
            found[each.record.load_id, span] = lost
    return list(found.values())

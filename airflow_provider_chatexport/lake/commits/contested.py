"""Files that may have rows of the same keys: by loose rows (contested files), and by common days. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from airflow_provider_chatexport.lake.commits.file_state import FileState
from airflow_provider_chatexport.lake.schema.tables import REACTIONS, TABLE_BY_NAME
from airflow_provider_chatexport.lake.schema.types import Placement

# Event tables that may have rows of one key on several days. A reaction lies on the day of its message, or on its own
# day if its load does not have the message. The moment of a message never changes.
ACROSS_DAYS: Final = frozenset({REACTIONS.name})


def contested(live: Iterable[FileState]) -> Iterator[FileState]:
    """Yield the event files of which another record's file may have newer rows of the same keys."""
    by_table: dict[str, list[FileState]] = defaultdict(list)
    for each in live:
        if TABLE_BY_NAME[each.file.table].placement is Placement.EVENT:
            by_table[each.file.table].append(each)
    for name, files in by_table.items():
        if not any(each.file.is_loose for each in files):
            continue
        if name in ACROSS_DAYS:
            yield from _with_rivals(files, files)
        else:
            for group in overlapping_days(files):
                for each in group:
                    yield from _with_rivals([each], [other for other in group if each.file.shares_days(other.file)])


def _with_rivals(files: Iterable[FileState], rivals: Sequence[FileState]) -> Iterator[FileState]:
    """Yield those of some files of which one of the rivals may have rows of the same keys."""
    owners = {each.record.load_id for each in rivals}
    of_loose = {each.record.load_id for each in rivals if each.file.is_loose}
    for each in files:
        own = {each.record.load_id} if each.record.has_unique_keys else set()
        if (owners if each.file.is_loose else of_loose) - own:
            yield each


def overlapping_days(files: Iterable[FileState]) -> Iterator[list[FileState]]:
    """Yield groups of files: no two files of different groups have a day in common.

    Two files of a group may have no day in common either, if others lie between them.
    """
    group: list[FileState] = []
    last_day = ""
    for each in sorted(files, key=lambda each: (each.file.first_day, each.file.last_day, each.file.path)):
        if group and each.file.first_day > last_day:
            yield group
            group = []
        group.append(each)
        last_day = max(last_day, each.file.last_day) if len(group) > 1 else each.file.last_day
    if group:
        yield group


def unsettled_groups(files: Iterable[FileState]) -> Iterator[list[FileState]]:
    """Yield those groups of ``overlapping_days`` in which two rows may have one key: files of several key owners."""
    return (group for group in overlapping_days(files) if len({each.key_owner for each in group}) > 1)


def unsettled_files(files: Iterable[FileState]) -> list[FileState]:
    """Return the files of all ``unsettled_groups``."""
    return [each for group in unsettled_groups(files) for each in group]

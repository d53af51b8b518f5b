"""What a published table has to change so that it has exactly the live files of the lake. Pure.

A table format has a list of files of its own. Publishing is the difference between that list and the live files: so
running it again does nothing, and repairs whatever a run that died, or another writer, left behind.

Such a list names whole files. So a snapshot can be published only if each live file is whole: the views show all of its
rows, and no rows but those of the live files (``unfit``). ``settle`` rewrites the files that are not.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from airflow_provider_chatexport.lake.commits.file_state import FileState, FileStatus
from airflow_provider_chatexport.lake.commits.record import DataFile
from airflow_provider_chatexport.lake.commits.snapshot import Snapshot
from airflow_provider_chatexport.lake.schema.tables import TEXT_SINCE_VERSION, USER_EXPORT_USERS
from airflow_provider_chatexport.lake.schema.types import Placement, Table

# The name under which a published table says which version of the lake it shows.
APP_ID: Final = "chatexport"


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveFile:
    """A live file, and where its bytes lie.

    :param path: of the bytes, relative to the lake.
    :param committed_at: when its record was committed; aware, UTC.
    """

    path: str
    file: DataFile
    committed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class TableState:
    """What a published table has now.

    :param files: paths of the bytes, relative to the lake; of a file elsewhere its whole address.
    :param columns: the names of its columns.
    :param version: the version of the lake that it was published from; None if it does not say.
    """

    files: frozenset[str]
    columns: frozenset[str]
    version: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What one commit to a published table does.

    :param table: with the columns that the lake has promoted.
    :param is_new: the table has to be created.
    :param add: files that become part of it.
    :param remove: paths of files that leave it, as in ``TableState``.
    :param new_columns: names of columns that it lacks.
    :param version: of the lake: how many records it has. It grows with each commit to the lake.
    """

    table: Table
    is_new: bool
    add: tuple[LiveFile, ...]
    remove: tuple[str, ...]
    new_columns: tuple[str, ...]
    version: int


def column_names(table: Table) -> list[str]:
    """Return the columns of a table's files, in their order."""
    names = [column.name for column in table]
    return [*names, table.date_column] if table.placement is Placement.EVENT else names


def version_of(snapshot: Snapshot) -> int:
    """Return the version of the lake that a snapshot shows."""
    return len(snapshot.records)


def as_of(snapshot: Snapshot) -> datetime | None:
    """Return when the last record of a snapshot was committed; None if there is none. Aware, UTC."""
    return max((record.committed_at for record in snapshot.records), default=None)


def live_files(snapshot: Snapshot, table: Table, path_in: Callable[[FileState], str]) -> list[LiveFile]:
    """Return the live files of a table, by path.

    :param path_in: returns where the bytes of a file lie, relative to the lake.
    """
    found = (
        LiveFile(path=path_in(each), file=each.file, committed_at=each.record.committed_at)
        for each in snapshot.live_files_of(table)
    )
    return sorted(found, key=lambda each: each.path)


def change_of(table: Table, live: Collection[LiveFile], state: TableState | None, version: int) -> Change | None:
    """Return what a table has to change to have the live files; None if it has them.

    :param table: with the columns that the lake has promoted.
    :param state: what the table has now; None if there is no table.
    :param version: of the lake.
    """
    columns = column_names(table)
    if state is None:
        return Change(table=table, is_new=True, add=tuple(live), remove=(), new_columns=tuple(columns), version=version)
    wanted = {each.path for each in live}
    change = Change(
        table=table,
        is_new=False,
        add=tuple(each for each in live if each.path not in state.files),
        remove=tuple(sorted(state.files - wanted)),
        new_columns=tuple(name for name in columns if name not in state.columns),
        version=version,
    )
    return change if change.add or change.remove or change.new_columns else None


def unfit(snapshot: Snapshot) -> Iterator[FileState]:
    """Yield the live files that cannot be published as they are."""
    for table in snapshot.tables:
        live = list(snapshot.live_files_of(table))
        is_settled = table.placement is not Placement.SNAPSHOT or has_newest_rows_only(snapshot, table)
        yield from (each for each in live if not is_settled or is_unfit(each))


def is_unfit(each: FileState) -> bool:
    """Return whether a live file has hidden rows, or is of an older version.

    Those have columns of types that other readers refuse, and on object stores they lie outside of the table's folder.
    """
    return each.status is not FileStatus.WHOLE or each.file.schema_version < TEXT_SINCE_VERSION


def has_newest_rows_only(snapshot: Snapshot, table: Table) -> bool:
    """Return whether the live files of a snapshot table have no row of which another one is newer.

    A record has one row for each key. Of a table with owners, the newest export of an owner counts, which may be one
    without a row in this table.
    """
    of_owners = snapshot.live_files_of(USER_EXPORT_USERS) if table.owned_by is not None else ()
    return len({each.record.load_id for each in (*snapshot.live_files_of(table), *of_owners)}) <= 1

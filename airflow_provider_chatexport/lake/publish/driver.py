"""Publishing a lake: its live files become the files of the tables of another format.

1. ``settle`` rewrites what a list of whole files cannot say. Mostly that is nothing but the snapshot tables.
2. Each table is opened, compared with the live files (``plan.change_of``), and changed in one commit. Tables are
   published one after another. Between two of them, a reader of both may see them one publication apart.
3. The lake remembers what was published (``commits.published``), so that the files stay until the next publication.

Any number of publishers may be at it. A commit fails if another one was first. Then this reads the lake and the table
again, and mostly finds nothing left to do. A publisher that is killed leaves tables that are one publication apart, and
the next run brings them together.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from airflow_provider_chatexport.core.progress import PUBLISH, Progress, silent
from airflow_provider_chatexport.errors import LakeError
from airflow_provider_chatexport.lake.catalog import catalog_file
from airflow_provider_chatexport.lake.commits import log as commit_log
from airflow_provider_chatexport.lake.commits import published, visibility
from airflow_provider_chatexport.lake.commits.file_state import FileState
from airflow_provider_chatexport.lake.commits.losses import Losses
from airflow_provider_chatexport.lake.commits.published import Publication
from airflow_provider_chatexport.lake.commits.snapshot import Snapshot
from airflow_provider_chatexport.lake.maintenance.forget import finish_removals
from airflow_provider_chatexport.lake.printing import Report
from airflow_provider_chatexport.lake.publish.formats import PublishConflictError, TableFormat
from airflow_provider_chatexport.lake.publish.plan import LiveFile, as_of, change_of, live_files, version_of
from airflow_provider_chatexport.lake.publish.settle import settle
from airflow_provider_chatexport.lake.schema.types import Table
from airflow_provider_chatexport.lake.storage.store import LakeStore

log = logging.getLogger(__name__)

# Each failed attempt means that another publisher has got further.
_ATTEMPTS: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class TablePublication:
    """What a publication did to one table.

    :param place: how readers of the format name it.
    :param files: how many files it has now.
    :param added: how many files it got.
    :param removed: how many files it lost.
    """

    table: str
    place: str
    files: int
    rows: int
    added: int = 0
    removed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishReport(Report):
    """What a publication did.

    :param format: such as ``delta``.
    :param version: of the lake: how many records the tables show.
    :param rewritten: how many data files were rewritten first, because they could not be published as they were.
    :param conflicts: how often another publisher was first.
    """

    format: str
    version: int
    tables: tuple[TablePublication, ...]
    rewritten: int = 0
    conflicts: int = 0
    seconds: float = 0.0

    @property
    def changed(self) -> bool:
        """Whether any table was changed."""
        return any(each.added or each.removed for each in self.tables)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON types."""
        return {
            "format": self.format,
            "version": self.version,
            "changed": self.changed,
            "rewritten": self.rewritten,
            "conflicts": self.conflicts,
            "seconds": round(self.seconds, 3),
            "tables": [asdict(each) for each in self.tables],
        }


def publish(
    store: LakeStore,
    table_format: TableFormat,
    *,
    catalog: str | None = None,
    work_dir: Path | None = None,
    progress: Progress = silent,
) -> PublishReport:
    """Make the tables of a format show what the lake's views show.

    It reads the checkpoint and the records since then, the files that it rewrites, and each table's list of files.

    :param catalog: the name of the catalog that the format has been given, for the next publication.
    :param work_dir: where to work until a rewrite is committed; by default on the lake's own disk.
    :raises LakeError: the lake or a table cannot be read or written, or others changed them again and again.
    """
    catalog_file.require_lake(store)
    started = time.monotonic()
    losses = Losses(store)
    finish_removals(store, now=datetime.now(UTC), work_dir=work_dir, losses=losses)
    n_rewritten = 0
    for n_conflicts in range(_ATTEMPTS):
        snapshot, n_files = settle(store, losses=losses, work_dir=work_dir, progress=progress)
        n_rewritten += n_files
        try:
            tables = tuple(_publish_tables(store, snapshot, table_format, progress))
        except PublishConflictError as conflict:
            log.info("another publisher was first: %s", conflict.message)
            continue
        name = table_format.kind.value
        published.remember(
            store,
            Publication(
                format=name,
                catalog=catalog,
                as_of=as_of(snapshot),
                version=version_of(snapshot),
                places={each.table: each.place for each in tables},
            ),
        )
        report = PublishReport(
            format=name,
            version=version_of(snapshot),
            tables=tables,
            rewritten=n_rewritten,
            conflicts=n_conflicts,
            seconds=time.monotonic() - started,
        )
        log.info(
            "lake published format=%s version=%d added=%d removed=%d rewritten=%d seconds=%.1f",
            name,
            report.version,
            sum(each.added for each in tables),
            sum(each.removed for each in tables),
            n_rewritten,
            report.seconds,
        )
        return report
    raise LakeError(f"others publish the lake at {store.uri} again and again; run this again later")


def _publish_tables(
    store: LakeStore, snapshot: Snapshot, table_format: TableFormat, progress: Progress
) -> Iterable[TablePublication]:
    """Publish the tables one after another.

    :raises PublishConflictError: another process has changed a table meanwhile, or has published a newer lake.
    """

    def path_in(each: FileState) -> str:
        return visibility.path_in(store, each)

    for number, table in enumerate(snapshot.tables):
        progress(PUBLISH, number, len(snapshot.tables))
        yield _publish_table(store, snapshot, table_format, table, live_files(snapshot, table, path_in))
    progress(PUBLISH, len(snapshot.tables), len(snapshot.tables))


def _publish_table(
    store: LakeStore, snapshot: Snapshot, table_format: TableFormat, table: Table, live: list[LiveFile]
) -> TablePublication:
    opened = table_format.open(table)
    state, version = opened.state(), version_of(snapshot)
    if state is not None and (state.version or 0) > version and not commit_log.is_latest(store, snapshot):
        raise PublishConflictError(f"{table_format.where(table)} shows a newer state of the lake at {store.uri}")
    change = change_of(table, live, state, version)
    if change is not None:
        opened.commit(change)
    return TablePublication(
        table=table.name,
        place=table_format.where(table),
        files=len(live),
        rows=sum(each.file.rows for each in live),
        added=len(change.add) if change else 0,
        removed=len(change.remove) if change else 0,
    )


def drop_history(table_format: TableFormat, tables: Iterable[Table]) -> None:
    """Remove what the tables of a format keep of earlier publications.

    :raises LakeError: a table cannot be written, or others changed it again and again.
    """
    for table in tables:
        for _ in range(_ATTEMPTS):
            try:
                table_format.open(table).drop_history()
                break
            except PublishConflictError as conflict:
                log.info("another publisher was first: %s", conflict.message)
        else:
            raise LakeError(f"others publish {table_format.where(table)} again and again; run this again later")

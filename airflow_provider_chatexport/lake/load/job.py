"""One load, from export files to a committed record."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_chatexport.core.entities import ExportKind
from airflow_provider_chatexport.core.options import LoadOptions
from airflow_provider_chatexport.core.progress import CONVERT, WRITE, Progress, silent
from airflow_provider_chatexport.core.times import format_rfc3339
from airflow_provider_chatexport.core.window import Window
from airflow_provider_chatexport.errors import CallError, InputError, TooManyRejectsError
from airflow_provider_chatexport.lake.catalog import catalog_file
from airflow_provider_chatexport.lake.catalog.refresh import refresh
from airflow_provider_chatexport.lake.commits import log as commit_log
from airflow_provider_chatexport.lake.commits.coverage import CoverageEntry, coverage_entry
from airflow_provider_chatexport.lake.commits.record import WRITER, DataFile, LoadRecord, SourceFile
from airflow_provider_chatexport.lake.load import shrink_guard
from airflow_provider_chatexport.lake.load.report import LoadReport
from airflow_provider_chatexport.lake.maintenance.forget import forget_listed, forget_people
from airflow_provider_chatexport.lake.parquet import write_table
from airflow_provider_chatexport.lake.privacy import suppression_list
from airflow_provider_chatexport.lake.privacy.suppression_list import SuppressionList
from airflow_provider_chatexport.lake.schema import promoted
from airflow_provider_chatexport.lake.schema.types import Table
from airflow_provider_chatexport.lake.staging.conversion import Conversion
from airflow_provider_chatexport.lake.staging.stage import Found, Input
from airflow_provider_chatexport.lake.storage.address import open_store
from airflow_provider_chatexport.lake.storage.fingerprint import Fingerprint
from airflow_provider_chatexport.lake.storage.workdir import work_folder

if TYPE_CHECKING:
    pass

log = logging.getLogger(__name__)

DEFAULT_OPTIONS: Final = LoadOptions()
# Tables that are written at a time.
WRITERS: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One export file, and what is known of it.

    ``cids`` None: a file given by hand, which claims, per channel, only from its first to its last message unless the
    window was stated. It has a ``fingerprint``, because it may change while it is read.
    """

    file: SourceFile
    given: Input
    cids: tuple[str, ...] | None
    flags: dict[str, Any] = field(default_factory=dict)
    fingerprint: Fingerprint | None = None

    def explained(self, error: InputError) -> InputError:
        """An error of reading it. One that was fetched has a name, while its path is gone when somebody reads the
        sentence; and fetched again it may come whole."""
        if self.fingerprint is not None:
            return error
        message = error.message.replace(str(self.given.path), self.file.name)
        return InputError(message, **{"retryable": True, **error.facts})

    def check_unchanged(self) -> None:
        """:raises InputError: it was written to or replaced since it was first looked at; it is read several times."""
        if self.fingerprint is not None and not self.fingerprint.is_of(self.given.path):
            raise InputError(
                f"{self.given.path} changed while it was read; nothing was loaded, load it once it is whole"
            )


def load_files(
    paths: Sequence[Path],
    *,
    lake_uri: str,
    window: Window | None = None,
    exported_at: datetime | None = None,
    kind: ExportKind | None = None,
    fingerprints: Sequence[Fingerprint] | None = None,
    work_dir: Path | None = None,
    options: LoadOptions = DEFAULT_OPTIONS,
    progress: Progress = silent,
) -> LoadReport:
    """Commits export files that are already here to the lake as one load.

    :param window: what the files cover, if it is known: rows outside are left out. Exports of users have none.
    :param kind: what they are exports of; by default each file is known by what it holds.
    :param exported_at: when the service made them, aware; by default each file's modification time.
    :param fingerprints: of the files, by whoever has read them already.
    :raises InputError: a file is not an export, or has more rejects than allowed.
    :raises LakeError: the lake cannot be read or written.
    """
    if not paths:
        raise CallError("there is no file to load")
    if kind is ExportKind.USERS and window is not None:
        raise CallError("an export of users has no window; leave since and until out")
    fingerprints = fingerprints or [Fingerprint.of(path) for path in paths]
    sources = [_given(*each, kind, window, exported_at) for each in zip(paths, fingerprints, strict=True)]
    identity = [f"file {source.file.sha256} at {format_rfc3339(source.given.exported_at)}" for source in sources]
    told = [f"kind {kind.value}"] if kind is not None else []
    load = LoadJob(lake_uri, load_id=commit_log.load_id_of([*identity, f"window {window}", *told]), options=options)
    if done := load.done_before():
        return done
    with load.work_folder(work_dir) as folder:
        return load.run(sources, folder, progress)


def _given(
    path: Path, fingerprint: Fingerprint, kind: ExportKind | None, window: Window | None, exported_at: datetime | None
) -> Source:
    return Source(
        file=SourceFile(name=path.name, task_id=None, sha256=fingerprint.sha256, size_bytes=fingerprint.size_bytes),
        given=Input(path=path, exported_at=exported_at or fingerprint.modified_at, window=window, kind=kind),
        cids=None,
        fingerprint=fingerprint,
    )


class LoadJob:
    """One load, from files to a committed record."""

    def __init__(self, lake_uri: str, *, load_id: str, options: LoadOptions) -> None:
        """:raises CallError: something is to be promoted that cannot be."""
        self._tables = promoted.tables_with(options.promote)
        self._store = open_store(lake_uri)
        self._store.prepare()
        if options.promote:
            promoted.check(options.promote, commit_log.read_snapshot(self._store).promoted_types)
        self._load_id = load_id
        self._options = options
        self._began = time.monotonic()

    def done_before(self) -> LoadReport | None:
        """The report of a load that is committed already. Its catalog may have been lost to a crash: it is made up.

        :raises TooManyRejectsError: it has more rejects than allowed now.
        """
        record = commit_log.find(self._store, self._load_id)
        if record is None:
            return None
        log.info("load is in the lake already load_id=%s", self._load_id)
        rejected, lines = record.counts["rejected"], record.counts["lines"]
        if not self._options.allows(rejected=rejected, lines=lines):
            raise TooManyRejectsError(
                f"{rejected} of {lines} lines could not become rows, and {self._options.allowed_rejects} are allowed; "
                f"load {self._load_id} is in the lake all the same, since more were allowed before. Allow them again "
                "(without strict any number); the table rejects says why they are there"
            )
        before, now = record.facts.get("options", {}), self._options.row_options()
        if other := sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name)):
            log.warning(
                "load %s is in the lake already, from other values of %s, and stays as it is; to have these exports "
                "so, load them into another lake",
                self._load_id,
                ", ".join(other),
            )
        refresh(self._store, full=True)
        forget_listed(self._store, record, now=datetime.now(UTC))
        return self._report(record, already_loaded=True)

    def work_folder(self, work_dir: Path | None) -> AbstractContextManager[Path]:
        return work_folder(self._store, work_dir)

    def run(self, sources: Sequence[Source], folder: Path, tell: Progress) -> LoadReport:
        options = self._options
        with Conversion(
            folder / "convert",
            load_id=self._load_id,
            max_line_bytes=options.max_line_bytes,
            max_unpacked_bytes=options.max_unpacked_bytes,
            tables=self._tables,
            pseudonym_key=options.pseudonym_key if options.hash_users else None,
            progress=tell,
        ) as conversion:
            found = self._converted(conversion, sources, tell)
            record, committed = self._committed(conversion, found, folder, tell)
        log.info(
            "load committed load_id=%s rows=%d rejected=%d files=%d seconds=%.1f",
            record.load_id,
            sum(record.counts["rows"].values()),
            record.counts["rejected"],
            len(record.files),
            time.monotonic() - self._began,
        )
        if n_rejected := record.counts["rejected"]:
            log.warning(
                "%d lines or entities of load %s could not become rows; the table rejects says where they are and why",
                n_rejected,
                record.load_id,
            )
        refresh(self._store)
        if not committed:
            record = commit_log.find(self._store, self._load_id) or record
        return self._report(record, already_loaded=not committed)

    def _converted(
        self, conversion: Conversion, sources: Sequence[Source], tell: Progress
    ) -> Sequence[tuple[Source, Found]]:
        """Reads the files: what each turned out to be. Refuses what must not be loaded."""
        found = []
        for source in sources:
            try:
                each = conversion.add(source.given)
            except InputError as error:
                raise source.explained(error) from None
            source.check_unchanged()
            if each.is_no_export and source.file.task_id is not None:
                # A proxy's error in its place, say. Committed, it would claim a window of which it tells nothing.
                raise InputError(
                    f"the file of {source.file.name} holds no line that is part of an export, but something else, as a "
                    "proxy may send in its place; nothing was loaded, fetch it again",
                    retryable=True,
                )
            if each.kind is ExportKind.USERS and source.given.window is not None:
                raise InputError(
                    f"{source.file.name} looks like an export of users (users and messages, and no channel), which "
                    "has no window; leave since and until out, or say that it is an export of channels"
                )
            found.append((source, each))
        tell(CONVERT, 0, None)
        conversion.finish()
        counts = conversion.counts
        if not self._options.allows(rejected=counts.rejected, lines=counts.lines):
            number, line = conversion.first_reject()
            raise TooManyRejectsError(
                f"{counts.rejected} of {counts.lines} lines could not become rows, and "
                f"{self._options.allowed_rejects} are allowed; nothing was loaded. The first is line {line} of "
                f"{sources[number].file.name}. Allow more (without strict any number), and the table rejects will say "
                "why"
            )
        return found

    def _committed(
        self, conversion: Conversion, found: Sequence[tuple[Source, Found]], folder: Path, tell: Progress
    ) -> tuple[LoadRecord, bool]:
        """The load's record, and whether it was this attempt that committed it."""
        sources = [source for source, _ in found]
        of_channels = [(source, each) for source, each in found if each.kind is ExportKind.CHANNELS]
        coverage = self._claims(of_channels, conversion)
        impact = self._impact(conversion, coverage)
        shrink_guard.check(impact, accept_shrink=self._options.accept_shrink)
        listed = self._without_the_forgotten(conversion)
        conversion.pseudonymize(self._options)
        written = self._written(conversion, folder, sources, coverage, tell)
        if listed != suppression_list.read(self._store):  # somebody was removed from the lake meanwhile
            listed = self._without_the_forgotten(conversion)
            written = self._written(conversion, folder, sources, coverage, tell)
        windows = [source.given.window for source, _ in of_channels]
        record = replace(
            self._record(sources, windows, coverage, tuple(written), conversion),
            keep_superseded=self._options.keep_superseded,
            facts={"options": self._options.row_options(), "suppression_list": listed.digest},
            late_changes=impact.late_changes,
        )
        committed = commit_log.commit(self._store, record, {file.path: local for file, local in written.items()})
        late = suppression_list.read(self._store)
        if late != listed and (people := conversion.people(late)):
            forget_people(self._store, people, now=datetime.now(UTC))
        return record, committed

    def _impact(self, conversion: Conversion, coverage: Sequence[CoverageEntry]) -> shrink_guard.Impact:
        def look() -> shrink_guard.Impact:
            return shrink_guard.impact(self._store, commit_log.read_snapshot(self._store), conversion, coverage)

        return commit_log.on_latest(self._store, look)

    def _report(self, record: LoadRecord, *, already_loaded: bool) -> LoadReport:
        seconds = time.monotonic() - self._began
        return LoadReport(
            record=record,
            lake=self._store.uri,
            catalog=self._store.url(catalog_file.NAME),
            seconds=seconds,
            already_loaded=already_loaded,
        )

    def _without_the_forgotten(self, conversion: Conversion) -> SuppressionList:
        """Takes out who is on the lake's list; the list as it was then."""
        listed = suppression_list.read(self._store)
        n_people = conversion.forget(listed)
        if n_people:
            log.info("people on the lake's list were left out load_id=%s people=%d", self._load_id, n_people)
        return listed

    def _claims(self, of_channels: Iterable[tuple[Source, Found]], conversion: Conversion) -> tuple[CoverageEntry, ...]:
        """What exports of channels claim: each for the channels that its own file names or has messages of."""
        spans_of_file = conversion.message_spans
        claims = []
        for source, found in of_channels:
            spans = spans_of_file.get(found.number, {})
            window = source.given.window
            stated = source.cids is not None or window is not None
            for cid in source.cids or sorted(found.cids | spans.keys()):
                if stated:
                    since, until = (window.since, window.until) if window else (None, None)
                elif cid in spans:
                    first, last = spans[cid]
                    since, until = first, last + timedelta(microseconds=1)
                else:
                    continue
                claims.append(
                    coverage_entry(
                        cid=cid,
                        since=since,
                        until=until,
                        exported_at=source.given.exported_at,
                        load_id=self._load_id,
                    )
                )
        return tuple(entry for entry in claims if entry is not None)

    def _written(
        self,
        conversion: Conversion,
        folder: Path,
        sources: Sequence[Source],
        coverage: Sequence[CoverageEntry],
        tell: Progress,
    ) -> dict[DataFile, Path]:
        """The load's data files, and where each lies now."""
        uncovered = conversion.uncovered(coverage)
        # Two attempts at the same load may be under way: each has names of its own, and the record says whose count.
        attempt = hashlib.sha256(str(folder).encode()).hexdigest()[:8]
        metadata = {
            "chatexport.load_id": self._load_id,
            "chatexport.writer": WRITER,
            "chatexport.source_sha256": ",".join(source.file.sha256 for source in sources),
            "chatexport.window": ",".join(str(source.given.window) for source in sources),
        }
        written: dict[DataFile, Path] = {}
        n_rows, n_written = sum(conversion.counts.rows.values()), 0
        tell(WRITE, 0, n_rows)

        def write(table: Table) -> list[tuple[DataFile, Path]]:
            stem = f"{self._load_id}-{attempt}"
            return list(write_table(conversion, table, folder / "files", stem=stem, metadata=metadata))

        # Beside the messages, which take the longest, the other tables.
        with ThreadPoolExecutor(WRITERS) as writers:
            for files in writers.map(write, self._tables):
                for file, local in files:
                    written[replace(file, n_uncovered=uncovered.get((file.table, file.day), 0))] = local
                    n_written += file.rows
                tell(WRITE, n_written, n_rows)
        return written

    def _record(
        self,
        sources: Sequence[Source],
        windows: Sequence[Window | None],
        coverage: tuple[CoverageEntry, ...],
        files: tuple[DataFile, ...],
        conversion: Conversion,
    ) -> LoadRecord:
        stated = [window for window in windows if window is not None]
        whole = bool(stated) and len(stated) == len(windows)
        counts = asdict(conversion.counts)
        return LoadRecord(
            load_id=self._load_id,
            exported_at=max(source.given.exported_at for source in sources),
            committed_at=datetime.now(UTC),
            since=min(window.since for window in stated) if whole else None,
            until=max(window.until for window in stated) if whole else None,
            flags=next((source.flags for source in sources if source.flags), {}),
            sources=tuple(source.file for source in sources),
            coverage=coverage,
            files=files,
            counts=counts,
            seconds=time.monotonic() - self._began,
        )

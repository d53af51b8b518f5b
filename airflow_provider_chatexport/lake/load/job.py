"""One load, from export files to a committed record: convert, guard, write, commit, refresh.

Each step but the last works in the load's own folder or only reads the lake. The commit moves the files into the lake
and then writes the record, which makes them count. Of a load that dies before it, nothing is visible; of one that dies
after it, the next load or ``chatexport catalog`` refreshes what readers see.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from airflow_provider_chatexport.core.entities import ExportKind
from airflow_provider_chatexport.core.options import LoadOptions
from airflow_provider_chatexport.core.plan import Cid
from airflow_provider_chatexport.core.progress import Progress, silent
from airflow_provider_chatexport.core.retention import stated_retention
from airflow_provider_chatexport.core.times import format_rfc3339
from airflow_provider_chatexport.core.window import Window
from airflow_provider_chatexport.errors import CallError, ChatExportError, TooManyRejectsError
from airflow_provider_chatexport.lake.catalog import catalog_file
from airflow_provider_chatexport.lake.catalog.refresh import refresh
from airflow_provider_chatexport.lake.commits import log as commit_log
from airflow_provider_chatexport.lake.commits import visibility
from airflow_provider_chatexport.lake.commits.coverage import CoverageEntry
from airflow_provider_chatexport.lake.commits.losses import Losses, id_of_reload
from airflow_provider_chatexport.lake.commits.record import DataFile, LoadRecord, SourceFile
from airflow_provider_chatexport.lake.load import shrink_guard
from airflow_provider_chatexport.lake.load.convert import convert_files, rejected_of
from airflow_provider_chatexport.lake.load.coverage import Claims, coverage_of_load, without_channels
from airflow_provider_chatexport.lake.load.horizon import Horizons, retention_facts
from airflow_provider_chatexport.lake.load.report import LoadReport
from airflow_provider_chatexport.lake.load.shrink_guard import Impact
from airflow_provider_chatexport.lake.load.vanished import Vanished
from airflow_provider_chatexport.lake.load.write import write_files
from airflow_provider_chatexport.lake.maintenance.auto_compact import compact_behind
from airflow_provider_chatexport.lake.maintenance.forget import finish_removals, forget_people
from airflow_provider_chatexport.lake.normalize.input_file import InputFile
from airflow_provider_chatexport.lake.privacy import suppression_list
from airflow_provider_chatexport.lake.privacy.suppression_list import SuppressionList
from airflow_provider_chatexport.lake.schema import promoted
from airflow_provider_chatexport.lake.staging.conversion import Conversion
from airflow_provider_chatexport.lake.staging.counts import n_decoded
from airflow_provider_chatexport.lake.staging.stage import StagedFile
from airflow_provider_chatexport.lake.storage.address import Storage, open_store
from airflow_provider_chatexport.lake.storage.fingerprint import Fingerprint
from airflow_provider_chatexport.lake.storage.workdir import work_folder

log = logging.getLogger(__name__)

DEFAULT_OPTIONS: Final = LoadOptions()


def load_files(
    paths: Sequence[Path],
    *,
    lake_uri: str,
    storage: Storage = None,
    window: Window | None = None,
    exported_at: datetime | None = None,
    kind: ExportKind | None = None,
    channels: Sequence[Cid] = (),
    fingerprints: Sequence[Fingerprint] | None = None,
    work_dir: Path | None = None,
    options: LoadOptions = DEFAULT_OPTIONS,
    progress: Progress = silent,
) -> LoadReport:
    """Commit export files that are already here to the lake as one load. The same files again change nothing.

    Of the lake, a load reads the checkpoint and the records since then, the suppression list, the files of messages
    that its window overlaps, and the last catalog: its cost follows its own size and what it overlaps.

    :param storage: how to reach the lake, if the environment does not say.
    :param window: what the files cover, if it is known: rows outside are left out. Exports of users have none.
    :param exported_at: when the service made the files, aware; by default each file's modification time.
    :param kind: which exports they are; by default the content of each file decides.
    :param channels: channels that each of the files is an export of, in addition to those that it names: the window
        counts as covered for them too, though nothing was written there.
    :param fingerprints: of the files, if the caller has read them already.
    :param work_dir: where files are converted; by default next to a local lake, else a temporary folder.
    :raises InputError: a file is not an export, or has more rejects than allowed.
    :raises LakeError: the lake cannot be read or written.
    """
    if not paths:
        raise CallError("there is no file to load; give the path of at least one export file")
    if kind is ExportKind.USERS and window is not None:
        raise CallError("an export of users has no window; leave since and until out")
    if channels and window is None:
        raise CallError("channels are stated without a window; state it too (since and until), or leave channels out")
    retention = stated_retention(options.retention)
    files = [
        InputFile(
            path=path,
            exported_at=exported_at or fingerprint.modified_at,
            sha256=fingerprint.sha256,
            size_bytes=fingerprint.size_bytes,
            window=window,
            kind=kind,
            cids=tuple(sorted(set(channels))) or None,
            retention=retention,
            fingerprint=fingerprint,
        )
        for path, fingerprint in zip(paths, fingerprints or map(Fingerprint.of, paths), strict=True)
    ]
    identity = [f"file {file.sha256} at {format_rfc3339(file.exported_at)}" for file in files]
    stated = [f"window {window}", *([f"kind {kind.value}"] if kind is not None else [])]
    stated += [f"channel {cid}" for cid in sorted(set(channels))]
    load_id = commit_log.load_id_of([*identity, *stated])
    job = LoadJob(lake_uri, storage, load_id=load_id, options=options, progress=progress)
    return job.run(lambda _: files, work_dir=work_dir)


class LoadJob:
    """One load into one lake.

    :param load_id: made from what identifies the exports, so that the same exports are the same load.
    :raises CallError: something is to be promoted that cannot be.
    """

    def __init__(
        self, lake_uri: str, storage: Storage = None, *, load_id: str, options: LoadOptions, progress: Progress
    ) -> None:
        self._tables = promoted.tables_with(options.promote)
        self._store = open_store(lake_uri, storage)
        if options.promote:
            promoted.check(options.promote, commit_log.read_snapshot(self._store).promoted_types)
        self._load_id = load_id
        self._options = options
        self._progress = progress
        self._began = time.monotonic()
        self._losses = Losses(self._store)
        self._listed: SuppressionList | None = None

    def run(self, get_files: Callable[[Path], Sequence[InputFile]], *, work_dir: Path | None) -> LoadReport:
        """Load the files, unless they are in the lake already.

        :param get_files: called with the work folder if there is something to load.
        :raises InputError: a file is not an export, or has more rejects than allowed.
        :raises ShrinkError: the load would hide all messages of a channel.
        :raises LakeError: the lake cannot be read or written.
        """
        self._store.prepare()
        if record := self._committed_before():
            return self._report_again(record)
        try:
            with work_folder(self._store, work_dir) as folder:
                record, is_new = self._load(get_files(folder), folder)
        except BaseException:
            self._store.drop_if_empty()  # a first load that fails leaves no lake behind
            raise
        self._log(record)
        refresh(self._store, losses=self._losses)
        # An earlier load may have died before it took people out.
        finish_removals(self._store, now=datetime.now(UTC), is_load=True, listed=self._listed, losses=self._losses)
        if is_new and self._options.auto_compact:
            self._compact_behind(record, work_dir)
        if not is_new:  # another attempt was faster
            record = commit_log.find(self._store, self._load_id) or record
        return self._report(record, already_loaded=not is_new)

    def _compact_behind(self, record: LoadRecord, work_dir: Path | None) -> None:
        """Merge some of the small files that earlier loads left behind. The load is in the lake, whatever happens."""
        try:
            if compact_behind(self._store, record, work_dir=work_dir, losses=self._losses) is not None:
                refresh(self._store, losses=self._losses)
        except Exception as error:  # noqa: BLE001 - the load has succeeded
            why = error.message if isinstance(error, ChatExportError) else type(error).__name__
            log.warning(
                "small files were not merged after load %s, and the next load tries again: %s", record.load_id, why
            )

    def _committed_before(self) -> LoadRecord | None:
        """Return the record of a load of the same exports. If its files are lost, these exports are another load."""
        record = commit_log.find(self._store, self._load_id)
        if record is None:
            return None
        self._load_id = id_of_reload(commit_log.read_snapshot(self._store), self._load_id)
        if self._load_id == record.load_id:
            return record
        log.info("files of load %s are lost; loading its exports again load_id=%s", record.load_id, self._load_id)
        return commit_log.find(self._store, self._load_id)

    def _load(self, files: Sequence[InputFile], folder: Path) -> tuple[LoadRecord, bool]:
        """Convert, guard, write and commit; return the record, and whether this attempt committed it."""
        options = self._options
        with Conversion(
            folder / "convert",
            load_id=self._load_id,
            max_line_bytes=options.max_line_bytes,
            max_unpacked_bytes=options.max_unpacked_bytes,
            tables=self._tables,
            pseudonym_key=options.pseudonym_key if options.hash_users else None,
            progress=self._progress,
        ) as conversion:
            staged = convert_files(conversion, files, options, self._progress)
            claims = coverage_of_load(staged, conversion.message_spans, self._load_id, self._horizons(files))
            for file in without_channels(staged, conversion.message_spans):
                log.warning(
                    "%s covers its window for no channel, because it names none; to cover the window, load it again "
                    "and state its channels (--channel) load_id=%s",
                    file.name,
                    self._load_id,
                )
            coverage = claims.entries
            impact = self._guard(conversion, coverage)
            listed, written = self._write(conversion, files, coverage, folder)
            record = self._record(staged, claims, tuple(written), conversion, listed, impact)
            is_new = commit_log.commit(self._store, record, {file.path: path for file, path in written.items()})
            # A person may have been removed from the lake since the list was read.
            self._listed = latest = suppression_list.read(self._store)
            if latest != listed and (people := conversion.people(latest)):
                forget_people(self._store, people, now=datetime.now(UTC))
        return record, is_new

    def _horizons(self, files: Sequence[InputFile]) -> Horizons:
        """Return the horizons that earlier loads knew; none if this load claims all of its windows."""
        if all(file.retention is None for file in files):
            return Horizons()
        return Horizons(commit_log.all_records(self._store))

    def _guard(self, conversion: Conversion, coverage: Sequence[CoverageEntry]) -> Impact:
        """Compare the load with the lake.

        :raises ShrinkError: it would hide all messages of a channel, or more messages would vanish than allowed.
        """
        impact = self._losses.on_latest(
            lambda snapshot: shrink_guard.impact(self._store, snapshot, conversion, coverage)
        )
        shrink_guard.check(impact, self._options)
        return impact

    def _write(
        self, conversion: Conversion, files: Sequence[InputFile], coverage: Sequence[CoverageEntry], folder: Path
    ) -> tuple[SuppressionList, dict[DataFile, Path]]:
        """Take people out of the rows, and write these.

        :return: the suppression list that the rows follow, and where each data file lies now.
        """
        listed = self._remove_listed(conversion)
        conversion.pseudonymize(self._options)
        written = write_files(
            conversion,
            self._tables,
            folder,
            load_id=self._load_id,
            files=files,
            coverage=coverage,
            progress=self._progress,
        )
        return listed, written

    def _remove_listed(self, conversion: Conversion) -> SuppressionList:
        """Take out the people on the lake's suppression list, and return the list."""
        listed = suppression_list.read(self._store)
        if n_people := conversion.forget(listed):
            log.info(
                "people on the lake's suppression list were left out load_id=%s people=%d", self._load_id, n_people
            )
        return listed

    def _record(
        self,
        staged: Sequence[tuple[InputFile, StagedFile]],
        claims: Claims,
        files: tuple[DataFile, ...],
        conversion: Conversion,
        listed: SuppressionList,
        impact: Impact,
    ) -> LoadRecord:
        windows = [file.window for file, result in staged if result.kind is ExportKind.CHANNELS]
        stated = [window for window in windows if window is not None]
        has_window = bool(stated) and len(stated) == len(windows)
        sources = [
            SourceFile(name=file.name, task_id=file.task_id, sha256=file.sha256, size_bytes=file.size_bytes)
            for file, _ in staged
        ]
        return LoadRecord(
            load_id=self._load_id,
            exported_at=max(file.exported_at for file, _ in staged),
            committed_at=datetime.now(UTC),
            since=min(window.since for window in stated) if has_window else None,
            until=max(window.until for window in stated) if has_window else None,
            flags=dict(next((file.flags for file, _ in staged if file.flags), {})),
            sources=tuple(sources),
            coverage=claims.entries,
            files=files,
            counts=asdict(conversion.counts),
            seconds=time.monotonic() - self._began,
            keep_superseded=self._options.keep_superseded,
            late_changes=impact.late_changes,
            facts={
                "options": self._options.row_options(),
                "suppression_list": listed.digest,
                "inputs": [result.facts(file.name) for file, result in staged],
                **retention_facts(
                    (file for file, result in staged if result.kind is ExportKind.CHANNELS), claims.n_clipped
                ),
            },
        )

    def _log(self, record: LoadRecord) -> None:
        n_rejected = record.counts["rejected"]
        log.info(
            "load committed load_id=%s rows=%d rejected=%d files=%d seconds=%.1f",
            record.load_id,
            sum(record.counts["rows"].values()),
            n_rejected,
            len(record.files),
            time.monotonic() - self._began,
        )
        if n_rejected:
            log.warning(
                "%d lines or entities of load %s could not become rows; the table rejects says where they are and why",
                n_rejected,
                record.load_id,
            )

        if retention := record.facts.get("retention"):
            log.info(
                "nothing is claimed before the horizon of the retention load_id=%s max_age_hours=%s horizon=%s "
                "clipped_entries=%d",
                record.load_id,
                retention["max_age_hours"],
                retention["horizon"],
                retention["clipped"],
            )
        if vanished := Vanished.among(record.late_changes):
            log.warning(
                "%s, because load %s covers what it does not contain%s",
                vanished,
                record.load_id,
                "" if retention else "; if a retention policy of the service deleted them, load with retention",
            )

    def _report(self, record: LoadRecord, *, already_loaded: bool) -> LoadReport:
        return LoadReport(
            record=record,
            lake=self._store.uri,
            catalog=self._store.url(catalog_file.NAME),
            files=tuple(visibility.shown_path(self._store, file) for file in record.files),
            seconds=time.monotonic() - self._began,
            already_loaded=already_loaded,
        )

    def _report_again(self, record: LoadRecord) -> LoadReport:
        """Return the report of a load that is committed already, and finish what it may have died before.

        :raises TooManyRejectsError: the load has more rejects than are allowed now.
        """
        log.info("load is already in the lake load_id=%s", self._load_id)
        before, now = record.facts.get("options", {}), self._options.row_options()
        if other := sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name)):
            log.warning(
                "load %s is already in the lake, written with different %s; keeping it. To apply the new options, load "
                "these exports into a new lake",
                self._load_id,
                ", ".join(other),
            )
        refresh(self._store, full=True, losses=self._losses)
        finish_removals(self._store, now=datetime.now(UTC), is_load=True, losses=self._losses)
        if not self._options.allows(rejected=record.counts["rejected"], decoded=n_decoded(record.counts)):
            raise TooManyRejectsError(
                f"{rejected_of(record.counts)}, and {self._options.allowed_rejects} are allowed; load {self._load_id} "
                "is in the lake all the same, since more were allowed before. The table rejects says why they are "
                "there; to accept them, allow more (max_rejected)",
                argument="max_rejected",
            )
        return self._report(record, already_loaded=True)

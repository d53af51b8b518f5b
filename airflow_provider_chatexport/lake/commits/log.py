"""The log of commits: ``_loads/``, with one JSON record for each load and each rewrite.

Writing its record commits a load, for all tables at once. Before that, its files are not part of the lake; from then
on, all of them are. A record is never changed or removed: what newer records made of its files follows from all records
together (``snapshot``).

Compaction, and the removal of a person, write records too. Such a record names the records that it ``replaces``. It has
their coverage, and all their files that are still good, taken over or rewritten.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import attrgetter
from pathlib import Path, PurePosixPath
from typing import Final, TypeVar
from weakref import WeakKeyDictionary

from airflow_provider_chatexport.errors import DamagedRecordError, LakeError
from airflow_provider_chatexport.lake.commits import checkpoint, published, record_json, visibility
from airflow_provider_chatexport.lake.commits.file_state import FileStatus
from airflow_provider_chatexport.lake.commits.record import FOLDER, LoadRecord
from airflow_provider_chatexport.lake.commits.snapshot import Snapshot
from airflow_provider_chatexport.lake.storage.store import LakeStore

log = logging.getLogger(__name__)

# Holds every record that there was when it was written, so that thousands of loads are not thousands of reads.
CHECKPOINT: Final = f"{FOLDER}/_checkpoint.gz"
# The same for the records that are not in the checkpoint yet. Rewriting it is a small thing.
RECENT: Final = f"{FOLDER}/_recent.gz"
_GATHER_EVERY: Final = 4
# The first line of what a load's id is made from. With another one, a retry would load its exports a second time.
_ID_VERSION: Final = "schema 1"
# How long a superseded file stays, for readers who opened the catalog before.
DEFAULT_KEEP: Final = timedelta(days=1)

# A function in Python would cost more than the sorting.
_BY_EXPORT: Final = attrgetter("exported_at", "load_id")

T = TypeVar("T")


def load_id_of(parts: Iterable[str]) -> str:
    """Return the id of a load: 24 hex digits, the same for the same exports.

    So loading the same exports again is the same load, after an upgrade that adds columns as well.
    """
    text = "\n".join([_ID_VERSION, *sorted(parts)])
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def commit(store: LakeStore, record: LoadRecord, local: Mapping[str, Path]) -> bool:
    """Move new files into the lake, then write the record that makes them visible.

    Return False if another process has committed the same record. Then the files of this attempt are removed again.
    They are also removed if the attempt fails before it writes the record. Once that write has begun, it may succeed
    although its caller was interrupted or got no answer, and at any later moment. A record without its files would
    stop every later load. So the files stay, unless the record is proven to be another's, and ``vacuum`` removes
    them if no record ever names them.

    :param local: where the record's new files lie, by their path in the lake.
    :raises LakeError: the lake cannot be written.
    """
    store.require_safe_commits()
    content = record_json.to_bytes(record)
    try:
        for path, local_path in local.items():
            store.put_data(local_path, path)
    except BaseException:
        store.drop_data(local)
        raise
    try:
        committed = store.put_new(record.path, content)
    except BaseException:
        with contextlib.suppress(LakeError):  # the first error says more
            if _will_never_name(store, record.path, content):
                store.drop_data(local)
        raise
    # After a lost answer, a client asks again, and finds the record that this very attempt wrote.
    if not committed and store.read(record.path) != content:
        store.drop_data(local)
        return False
    if memory := _MEMORIES.get(store):
        memory.records = {**memory.records, record.path: record_json.from_bytes(content, store.url(record.path))}
    return True


def _will_never_name(store: LakeStore, path: str, content: bytes) -> bool:
    """Return whether it is certain that a record which may still be on its way does not become part of the lake.

    :param content: of that record.
    """
    if store.exists(path):
        return store.read(path) != content
    return not store.writes_may_land_late


def find(store: LakeStore, load_id: str) -> LoadRecord | None:
    """Return the record of a load, or None if it is not committed.

    :raises LakeError: the file in its place is not a record.
    """
    path = f"{FOLDER}/{load_id}.json"
    content = store.read_if_there(path)
    return None if content is None else record_json.from_bytes(content, store.url(path))


def record_paths(store: LakeStore) -> list[str]:
    """Return the paths of all records, sorted. While they are the same, so is the lake."""
    return store.list_folder(FOLDER, ".json")


@dataclass(slots=True)
class _Memory:
    """What a store object has read.

    :ivar records: by path. Records never change.
    :ivar checkpointed: the paths of those that were in the checkpoint.
    :ivar gathered: the paths of those that were in the checkpoint, or in the small one next to it.
    :ivar restored: the paths of those that were gone, and that the checkpoint brought back.
    :ivar listed: the paths of the last list of records; what was read of them is ``in_order``.
    """

    records: Mapping[str, LoadRecord]
    checkpointed: frozenset[str]
    gathered: frozenset[str]
    restored: frozenset[str]
    listed: Collection[str] = ()
    in_order: list[LoadRecord] | None = None


# Damaged records that a warning has named.
_NAMED: Final[set[str]] = set()
# A load asks for the records some ten times.
_MEMORIES: Final[WeakKeyDictionary[LakeStore, _Memory]] = WeakKeyDictionary()


def all_records(store: LakeStore, *, afresh: bool = False) -> list[LoadRecord]:
    """Return every record that was ever committed, by export time.

    It lists the records, and reads those that this store object has not read before: at first the checkpoint, and
    those that are not in it.

    A damaged record is read from the checkpoint. If it is not there, it is left out, and a warning names it.

    :param afresh: read every record from its own file.
    :raises LakeError: the lake cannot be read, or cannot go on without a damaged record.
    """
    return _read_all(store, record_paths(store), afresh=afresh)


def _read_all(store: LakeStore, paths: Collection[str], *, afresh: bool) -> list[LoadRecord]:
    memory = None if afresh else _memory_of(store, paths)
    known = memory.records if memory else {}
    if memory and memory.in_order is not None and memory.listed == paths:
        return memory.in_order
    restored = memory.restored if memory else read_checkpoint(store, paths).keys() - set(paths)
    read: dict[str, LoadRecord] = {}
    for path in sorted({*paths, *restored}):
        if record := known.get(path) or _read_record(store, path, paths):
            read[path] = record
    records = sorted(read.values(), key=_BY_EXPORT)
    if memory:
        memory.records, memory.in_order, memory.listed = read, records, paths
    return records


def _read_record(store: LakeStore, path: str, paths: Collection[str]) -> LoadRecord | None:
    """Read a record from its file, or from the checkpoint if it is damaged; None if it is not there either.

    The files that a rewrite replaced are deleted only after its record is in the checkpoint. So without its record, the
    lake is as it was before.
    """
    try:
        return record_json.from_bytes(store.read(path), store.url(path))
    except DamagedRecordError as error:
        if record := _checkpointed_record(store, path, paths):
            return record
        if store.url(path) not in _NAMED:
            _NAMED.add(store.url(path))
            log.warning("going on without a record: %s", error.message)
        return None


def _checkpointed_record(store: LakeStore, path: str, paths: Collection[str]) -> LoadRecord | None:
    record = read_checkpoint(store, paths).get(path)
    return record if record is not None or not store.is_remote else _remembered(store, RECENT, paths).get(path)


def _memory_of(store: LakeStore, paths: Collection[str]) -> _Memory:
    memory = _MEMORIES.get(store)
    if memory is None:
        records = read_checkpoint(store, paths)
        checkpointed = frozenset(records)
        if store.is_remote and len(set(paths) - checkpointed) > 1:
            records = _remembered(store, RECENT, paths) | records
        memory = _Memory(records, checkpointed, frozenset(records), checkpointed - set(paths))
        _MEMORIES[store] = memory
    return memory


def checkpointed(store: LakeStore) -> frozenset[str]:
    """Return the paths of the records that were in the checkpoint when this store object read it or wrote it."""
    memory = _MEMORIES.get(store) or _memory_of(store, record_paths(store))
    return memory.checkpointed


def read_snapshot(store: LakeStore, *, afresh: bool = False) -> Snapshot:
    """Return the snapshot of all records.

    :param afresh: read every record from its own file.
    :raises LakeError: a file among the records is not a record.
    """
    paths = record_paths(store)
    records = _read_all(store, paths, afresh=afresh)
    return Snapshot(records, damaged=set(paths) - {record.path for record in records})


def is_latest(store: LakeStore, snapshot: Snapshot) -> bool:
    """Return whether no record has come or gone since a snapshot was read."""
    return {record.path for record in snapshot.records} | snapshot.damaged == set(record_paths(store))


def on_latest(store: LakeStore, work: Callable[[], T]) -> T:
    """Do work that starts by reading the records. Repeat it if it fails and others have committed meanwhile.

    A file in the snapshot that it read may be gone in the next snapshot.

    :raises LakeError: the work fails in a lake that has not changed.
    """
    while True:
        before = record_paths(store)
        try:
            return work()
        except LakeError:
            if record_paths(store) == before:
                raise


def read_checkpoint(store: LakeStore, paths: Collection[str]) -> dict[str, LoadRecord]:
    """Return the records in the checkpoint by path; none if there is no checkpoint that can be used.

    :param paths: of the records that there are. The records of rewrites that are gone are put back.
    """
    return _remembered(store, CHECKPOINT, paths)


def _remembered(store: LakeStore, where: str, paths: Collection[str]) -> dict[str, LoadRecord]:
    content = store.read_if_there(where)
    if content is None:
        return {}
    try:
        records = checkpoint.read(content, store.url(where))
    except checkpoint.UnreadableError:
        return {}
    for path in records.keys() - set(paths):
        # The files that a rewrite replaced may be deleted by now. So a person can move out the record of a load, but a
        # rewrite whose record is gone is a loss. The next record of a load will be another than the one that is gone.
        if not store.exists(path) and (records[path].is_load or not _put_back(store, records[path])):
            store.delete([where])
            return {}
    return records


def _put_back(store: LakeStore, record: LoadRecord) -> bool:
    """Put the record of a rewrite back, and return whether it is there."""
    try:
        store.put_new(record.path, record_json.to_bytes(record))
    except LakeError:
        return False
    log.warning("the record of a rewrite was gone, and was put back from the checkpoint path=%s", record.path)
    return True


def write_checkpoint(store: LakeStore, records: Sequence[LoadRecord]) -> None:
    """Write the checkpoint. Two writers at once do no harm: readers read what one leaves out from its own file."""
    store.replace(CHECKPOINT, checkpoint.write(records))
    if memory := _MEMORIES.get(store):
        memory.checkpointed = memory.gathered = frozenset(record.path for record in records)


def gather(store: LakeStore, records: Sequence[LoadRecord]) -> None:
    """Write the records that are not in the checkpoint into one object, if several of them are in none.

    On an object store, a load would read each of them by a request. On a disk it does, and this does nothing.

    :param records: those that are not in the checkpoint.
    """
    memory = _MEMORIES.get(store)
    if not store.is_remote or memory is None:
        return
    paths = frozenset(record.path for record in records)
    if len(paths - memory.gathered) >= _GATHER_EVERY:
        store.replace(RECENT, checkpoint.write(records))
        memory.gathered = memory.checkpointed | paths


def delete_dead_files(store: LakeStore, snapshot: Snapshot, *, before: datetime) -> tuple[str, ...]:
    """Delete the data files that were dead before a moment, and those that nothing may read. Return their paths.

    Files that published tables may name stay.
    """
    before = min(before, published.needed_since(store) or before)
    there = {path for path, _ in store.data_files()}
    deleted = tuple(
        each.file.path
        for each in snapshot.file_states
        if each.file.path in there
        and (each.status is FileStatus.PURGED or (each.status is FileStatus.DEAD and each.died_before(before)))
    )
    store.drop_data(deleted)
    # The first names of files that a refresh has copied to below ``_files``.
    store.delete(
        each.file.path
        for each in snapshot.file_states
        if each.status is FileStatus.HISTORY and visibility.is_in_table(store, each) and each.died_before(before)
    )
    return deleted


def unknown_files(store: LakeStore, snapshot: Snapshot, *, before: datetime) -> Iterator[str]:
    """Yield the data files that are in no record and last changed before a moment. Broken-off work left them.

    Those of a damaged record are spared: their names start with its id.
    """
    known = {each.file.path for each in snapshot.file_states}
    damaged = tuple(PurePosixPath(path).stem for path in snapshot.damaged)
    for path, modified_at in store.data_files():
        if path not in known and modified_at < before and not PurePosixPath(path).name.startswith(damaged):
            yield path


def damaged_records(store: LakeStore) -> dict[str, LoadRecord | None]:
    """Return the paths of damaged records, each with the record if the checkpoint has it.

    It reads every record.

    :raises LakeError: the lake cannot be read.
    """
    paths = record_paths(store)
    found: dict[str, LoadRecord | None] = {}
    for path in paths:
        try:
            record_json.from_bytes(store.read(path), store.url(path))
        except DamagedRecordError:
            found[path] = _checkpointed_record(store, path, paths)
    return found

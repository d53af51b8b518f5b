"""The record of a load: one JSON object in ``_loads/``, written last. It is the commit point for all tables at once.

Before it is there, the load's files are not part of the lake; from then on all of them are. A record is never changed
and never removed: what newer ones made of it is worked out from all of them (``snapshot``).

Compaction, and the removal of a person, write records too. Such a record names those that it ``replaces``, and holds
their claims and all their files that are still good, taken over or written anew.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import orjson

from airflow_provider_chatexport.errors import LakeError
from airflow_provider_chatexport.lake.commits.record import FOLDER, RECORD_VERSION, LoadRecord
from airflow_provider_chatexport.lake.commits.snapshot import FileState, FileStatus, Snapshot
from airflow_provider_chatexport.lake.schema.tables import SCHEMA_VERSION
from airflow_provider_chatexport.lake.storage.store import LakeStore

# Every record there was when it was written, so that a lake of thousands of loads is not thousands of reads.
CHECKPOINT: Final = f"{FOLDER}/_checkpoint.gz"

T = TypeVar("T")


def load_id_of(parts: Iterable[str]) -> str:
    """The same for the same exports under the same schema, so that loading them again is one load. 24 hex digits."""
    text = "\n".join([f"schema {SCHEMA_VERSION}", *sorted(parts)])
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def find(store: LakeStore, load_id: str) -> LoadRecord | None:
    """The record of a load, if it was committed."""
    path = f"{FOLDER}/{load_id}.json"
    return LoadRecord.from_bytes(store.read(path), store.url(path)) if store.exists(path) else None


def commit(store: LakeStore, record: LoadRecord, local: Mapping[str, Path]) -> bool:
    """Brings files into the lake, then makes them visible. False where it was committed already, by whomever.

    In that case, and if anything fails on the way, the files of this attempt are removed again.

    :param local: where those of the record's files lie that are new, by their path in the lake.
    """
    content = record.to_bytes()
    try:
        for path, local_path in local.items():
            store.put_data(local_path, path)
        committed = store.put_new(record.path, content)
    except BaseException:
        # What failed may have been the answer and not the deed: files of a record that is there must stay.
        if not store.exists(record.path):
            store.drop_data(local)
        raise
    # A store that lost its answer may have been asked again, and have found what this very attempt had written.
    if not committed and store.read(record.path) == content:
        return True
    if not committed:
        store.drop_data(local)
    return committed


def names(store: LakeStore) -> list[str]:
    """The paths of all records: two equal lists mean the same lake."""
    return store.list_folder(FOLDER, ".json")


def all_loads(store: LakeStore, *, known: Mapping[str, Any] | None = None) -> list[LoadRecord]:
    """Every record ever committed, by export time.

    :param known: records by path that need not be read again, because records never change; by default the checkpoint.
    """
    paths = names(store)
    known = read_checkpoint(store, paths) if known is None else known
    records = [
        LoadRecord.from_json(known[path], store.url(path))
        if path in known
        else LoadRecord.from_bytes(store.read(path), store.url(path))
        for path in paths
    ]
    return sorted(records, key=lambda record: (record.exported_at, record.load_id))


def on_latest(store: LakeStore, work: Callable[[], T]) -> T:
    """Does work that begins by reading the records; again, where it failed and others committed meanwhile: a file of
    the snapshot that it saw may have gone with the next one.

    :raises LakeError: as ``work`` does, in a lake that stood still.
    """
    while True:
        before = names(store)
        try:
            return work()
        except LakeError:
            if names(store) == before:
                raise


def read_checkpoint(store: LakeStore, paths: Collection[str]) -> dict[str, Any]:
    """Records by path, as JSON values; none where there is no checkpoint, or where it is of no use.

    :param paths: of the records that there are.
    """
    if not store.exists(CHECKPOINT):
        return {}
    try:
        value = orjson.loads(gzip.decompress(store.read(CHECKPOINT)))
    except (ValueError, OSError, EOFError, zlib.error):
        return {}
    usable = isinstance(value, dict) and value.get("v") == RECORD_VERSION and isinstance(value.get("records"), dict)
    records: dict[str, Any] = value["records"] if usable else {}
    if any(not store.exists(path) for path in records.keys() - set(paths)):
        # Somebody moved a record out. One that comes under its name again will be another than the one known here.
        store.delete([CHECKPOINT])
        return {}
    return records


def write_checkpoint(store: LakeStore, records: Sequence[LoadRecord]) -> None:
    """For the next reader. Two writers at once do no harm: what one leaves out is read from its own file."""
    value = {"v": RECORD_VERSION, "records": {record.path: orjson.Fragment(record.to_bytes()) for record in records}}
    store.replace(CHECKPOINT, gzip.compress(orjson.dumps(value), compresslevel=1))


# How long a superseded file stays for those who opened the catalog before.
DEFAULT_KEEP: Final = timedelta(days=1)


def died(each: FileState, before: datetime) -> bool:
    return each.dead_since is not None and each.dead_since < before


def sweep(store: LakeStore, snapshot: Snapshot, *, before: datetime) -> tuple[str, ...]:
    """Deletes what died before a moment; the files."""
    there = {path for path, _ in store.data_files()}
    gone = tuple(
        each.file.path
        for each in snapshot.file_states
        if each.file.path in there
        and (each.status is FileStatus.PURGED or (each.status is FileStatus.DEAD and died(each, before)))
    )
    store.drop_data(gone)
    return gone


def unknown_files(store: LakeStore, snapshot: Snapshot, *, before: datetime) -> Iterator[str]:
    """Data files that no record has, last changed before a moment: work that was broken off left them."""
    known = {each.file.path for each in snapshot.file_states}
    for path, modified_at in store.data_files():
        if path not in known and modified_at < before:
            yield path

"""The record of a load: one JSON object in ``_loads/``, written last. It is the commit point for all tables at once.

Before it is there, the load's files are not part of the lake; from then on all of them are. A record is never changed
and never removed: what newer ones made of it is worked out from all of them (``state``).

Compaction, and the removal of a person, write records too. Such a record names those that it ``replaces``, and holds
their claims and all their files that are still good, taken over or written anew.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import orjson

from airflow_provider_chatexport import __version__
from airflow_provider_chatexport.core.times import format_rfc3339, parse_rfc3339
from airflow_provider_chatexport.errors import LakeError
from airflow_provider_chatexport.lake import schema
from airflow_provider_chatexport.lake.coverage import Coverage
from airflow_provider_chatexport.lake.store import LakeStore
from airflow_provider_chatexport.lake.write import DataFile

RECORD_VERSION: Final = 1
WRITER: Final = f"airflow-provider-chatexport {__version__}"
FOLDER: Final = "_loads"
# Every record there was when it was written, so that a lake of thousands of loads is not thousands of reads.
CHECKPOINT: Final = f"{FOLDER}/_checkpoint.gz"

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """One export file that went into a load. ``task_id`` is None for a file that was given by hand."""

    name: str
    task_id: str | None
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRecord:
    """What a load covers, its files and its counts. Times are aware, UTC; ``counts`` follow the law of conservation.

    :param keep_superseded: files of which newer loads hide everything stay for ``messages_history``.
    :param late_changes: what this load changed in what the lake knew, by age of the message (``guard``).
    :param replaces: records that this one stands for, if it is none of a load.
    :param history: files that only ``messages_history`` reads.
    :param purged: files of any record that nothing may read any more.
    """

    load_id: str
    exported_at: datetime
    committed_at: datetime
    since: datetime | None
    until: datetime | None
    flags: dict[str, Any]
    sources: tuple[SourceFile, ...]
    coverage: tuple[Coverage, ...]
    files: tuple[DataFile, ...]
    counts: dict[str, Any]
    seconds: float = 0.0
    keep_superseded: bool = False
    late_changes: tuple[dict[str, int], ...] = ()
    replaces: tuple[str, ...] = ()
    history: tuple[DataFile, ...] = ()
    purged: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    writer: str = WRITER
    schema_version: int = schema.SCHEMA_VERSION

    @property
    def path(self) -> str:
        return f"{FOLDER}/{self.load_id}.json"

    @property
    def is_load(self) -> bool:
        """Whether exports were loaded by it, rather than files rewritten."""
        return bool(self.sources)

    @property
    def bytes_in(self) -> int:
        return sum(source.size_bytes for source in self.sources)

    def to_bytes(self) -> bytes:
        value = {
            "v": RECORD_VERSION,
            "load_id": self.load_id,
            "schema_version": self.schema_version,
            "writer": self.writer,
            "exported_at": format_rfc3339(self.exported_at),
            "committed_at": format_rfc3339(self.committed_at),
            "window": {"since": _optional(self.since), "until": _optional(self.until)},
            "flags": self.flags,
            "sources": [asdict(source) for source in self.sources],
            "coverage": [entry.to_json(self.load_id) for entry in self.coverage],
            "counts": self.counts,
            "files": [asdict(file) for file in self.files],
            "seconds": round(self.seconds, 3),
            "keep_superseded": self.keep_superseded,
            "late_changes": list(self.late_changes),
            "replaces": list(self.replaces),
            "history": [asdict(file) for file in self.history],
            "purged": list(self.purged),
            "facts": self.facts,
        }
        return orjson.dumps(value, option=orjson.OPT_INDENT_2)

    @classmethod
    def from_bytes(cls, content: bytes, where: str) -> Self:
        """:raises LakeError: it is no record, or of a version that this code does not know."""
        try:
            return cls.from_json(orjson.loads(content), where)
        except ValueError:
            raise _no_record(where) from None

    @classmethod
    def from_json(cls, value: dict[str, Any], where: str) -> Self:
        """:raises LakeError: it is no record, or of a version that this code does not know."""
        try:
            if value["v"] != RECORD_VERSION:
                raise LakeError(
                    f"{where} is a load record of version {value['v']}, and this installation reads version "
                    f"{RECORD_VERSION}; upgrade airflow-provider-chatexport where it reads this lake",
                    retryable=False,
                )
            load_id = value["load_id"]
            return cls(
                load_id=load_id,
                schema_version=value["schema_version"],
                writer=value["writer"],
                exported_at=parse_rfc3339(value["exported_at"]),
                committed_at=parse_rfc3339(value["committed_at"]),
                since=_parsed(value["window"]["since"]),
                until=_parsed(value["window"]["until"]),
                flags=value["flags"],
                sources=tuple(SourceFile(**source) for source in value["sources"]),
                coverage=tuple(Coverage.from_json(entry, load_id) for entry in value["coverage"]),
                counts=value["counts"],
                files=tuple(DataFile(**file) for file in value["files"]),
                seconds=value["seconds"],
                keep_superseded=value["keep_superseded"],
                late_changes=tuple(value["late_changes"]),
                replaces=tuple(value["replaces"]),
                history=tuple(DataFile(**file) for file in value["history"]),
                purged=tuple(value["purged"]),
                facts=value["facts"],
            )
        except (KeyError, TypeError, ValueError):
            raise _no_record(where) from None


def _no_record(where: str) -> LakeError:
    return LakeError(
        f"{where} is not a load record; put it back from a backup, or else move it out of the lake, which takes the "
        "rows of its load out as well, and load or export that window anew",
        retryable=False,
    )


def load_id_of(parts: Iterable[str]) -> str:
    """The same for the same exports under the same schema, so that loading them again is one load. 24 hex digits."""
    text = "\n".join([f"schema {schema.SCHEMA_VERSION}", *sorted(parts)])
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
    return store.list(FOLDER, ".json")


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
    the state that it saw may have gone with the next one.

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


def _optional(moment: datetime | None) -> str | None:
    return format_rfc3339(moment) if moment else None


def _parsed(text: str | None) -> datetime | None:
    return parse_rfc3339(text) if text else None

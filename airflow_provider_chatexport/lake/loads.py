"""The record of a load: one JSON object in ``_loads/``, written last. It is the commit point for all tables at once.

Before it is there, the load's files are not part of the lake; from then on all of them are. A load that newer ones
supersede entirely is retired: its record says so first, then its files go.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

from airflow_provider_chatexport import __version__
from airflow_provider_chatexport.core.times import format_rfc3339, parse_rfc3339
from airflow_provider_chatexport.errors import LakeError
from airflow_provider_chatexport.lake import schema
from airflow_provider_chatexport.lake.coverage import Coverage, superseded
from airflow_provider_chatexport.lake.store import LakeStore
from airflow_provider_chatexport.lake.table import Placement
from airflow_provider_chatexport.lake.write import DataFile

RECORD_VERSION: Final = 1
WRITER: Final = f"airflow-provider-chatexport {__version__}"
FOLDER: Final = "_loads"


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

    ``n_uncovered`` counts event rows outside of all that the load claims; such a load is never retired.
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
    n_uncovered: int = 0
    seconds: float = 0.0
    retired_at: datetime | None = None
    writer: str = WRITER
    schema_version: int = schema.SCHEMA_VERSION

    @property
    def path(self) -> str:
        return f"{FOLDER}/{self.load_id}.json"

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
            "retired_at": _optional(self.retired_at),
            "window": {"since": _optional(self.since), "until": _optional(self.until)},
            "flags": self.flags,
            "sources": [asdict(source) for source in self.sources],
            "coverage": [entry.to_json() for entry in self.coverage],
            "n_uncovered": self.n_uncovered,
            "counts": self.counts,
            "files": [asdict(file) for file in self.files],
            "seconds": round(self.seconds, 3),
        }
        return json.dumps(value, indent=1).encode()

    @classmethod
    def from_bytes(cls, content: bytes, where: str) -> Self:
        """:raises LakeError: it is no record, or of a version that this code does not know."""
        try:
            value = json.loads(content)
            if value["v"] != RECORD_VERSION:
                raise LakeError(
                    f"{where} is a load record of version {value['v']}, and this installation reads version "
                    f"{RECORD_VERSION}; upgrade airflow-provider-chatexport where it reads this lake"
                )
            load_id = value["load_id"]
            return cls(
                load_id=load_id,
                schema_version=value["schema_version"],
                writer=value["writer"],
                exported_at=parse_rfc3339(value["exported_at"]),
                committed_at=parse_rfc3339(value["committed_at"]),
                retired_at=_parsed(value["retired_at"]),
                since=_parsed(value["window"]["since"]),
                until=_parsed(value["window"]["until"]),
                flags=value["flags"],
                sources=tuple(SourceFile(**source) for source in value["sources"]),
                coverage=tuple(Coverage.from_json(entry, load_id) for entry in value["coverage"]),
                n_uncovered=value["n_uncovered"],
                counts=value["counts"],
                files=tuple(DataFile(**file) for file in value["files"]),
                seconds=value["seconds"],
            )
        except (KeyError, TypeError, ValueError):
            raise LakeError(f"{where} is not a load record; move it out of the lake") from None


def load_id_of(parts: Iterable[str]) -> str:
    """The same for the same exports under the same schema, so that loading them again is one load. 24 hex digits."""
    text = "\n".join([f"schema {schema.SCHEMA_VERSION}", *sorted(parts)])
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def find(store: LakeStore, load_id: str) -> LoadRecord | None:
    """The record of a load, if it was committed."""
    path = f"{FOLDER}/{load_id}.json"
    return LoadRecord.from_bytes(store.read(path), store.url(path)) if store.exists(path) else None


def commit(store: LakeStore, record: LoadRecord, local: Sequence[Path]) -> bool:
    """Moves a load's files into the lake, then makes them visible. False where it was committed already, by whomever.

    In that case, and if anything fails on the way, the files of this attempt are removed again.

    :param local: where each of ``record.files`` lies now.
    """
    committed = False
    try:
        for file, path in zip(record.files, local, strict=True):
            store.publish(path, file.path)
        committed = store.put_new(record.path, record.to_bytes())
    finally:
        if not committed:
            store.delete(file.path for file in record.files)
    return committed


def names(store: LakeStore) -> list[str]:
    """The paths of all records: two equal lists mean the same lake, but for retirements."""
    return store.list(FOLDER, ".json")


def all_loads(store: LakeStore) -> list[LoadRecord]:
    """Every load ever committed, retired ones too, by export time."""
    records = [LoadRecord.from_bytes(store.read(path), store.url(path)) for path in names(store)]
    return sorted(records, key=lambda record: (record.exported_at, record.load_id))


def live_coverage(records: Iterable[LoadRecord]) -> list[Coverage]:
    """What loads claim, retired ones left out: what superseded them claims as much."""
    return [entry for record in records if record.retired_at is None for entry in record.coverage]


def retire_superseded(store: LakeStore) -> list[str]:
    """Marks every load of which no row can be visible as retired; the paths of the files that nobody needs then.

    Snapshot rows stay: who was once seen in a channel is not known to be gone from the app. The files are left to the
    caller, who removes them when no view names them any more.
    """
    records = all_loads(store)
    dead = superseded(live_coverage(records))
    unneeded: list[str] = []
    for record in records:
        if record.load_id in dead and record.retired_at is None and not record.n_uncovered:
            gone = [file for file in record.files if _is_superseded_with_its_load(file)]
            kept = tuple(file for file in record.files if file not in gone)
            store.replace(record.path, replace(record, retired_at=datetime.now(UTC), files=kept).to_bytes())
            unneeded += [file.path for file in gone]
    return unneeded


def _is_superseded_with_its_load(file: DataFile) -> bool:
    return schema.BY_NAME[file.table].placement is Placement.EVENT or file.table == schema.REJECTS.name


def _optional(moment: datetime | None) -> str | None:
    return format_rfc3339(moment) if moment else None


def _parsed(text: str | None) -> datetime | None:
    return parse_rfc3339(text) if text else None

"""Records as JSON, with lines that people read."""

from __future__ import annotations

import base64
import functools
import io
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any, Final

import orjson

from airflow_provider_chatexport.core.times import format_rfc3339, parse_written
from airflow_provider_chatexport.errors import DamagedRecordError, LakeError
from airflow_provider_chatexport.lake.commits import coverage as coverage_entries
from airflow_provider_chatexport.lake.commits.channels import ChannelSet
from airflow_provider_chatexport.lake.commits.coverage import CoverageEntry
from airflow_provider_chatexport.lake.commits.lost_coverage import LostSpan
from airflow_provider_chatexport.lake.commits.read_later import ReadLater
from airflow_provider_chatexport.lake.commits.record import DataFile, LoadRecord, SourceFile
from airflow_provider_chatexport.lake.schema.tables import SCHEMA_VERSION

RECORD_VERSION: Final = 4
# In version 1, files had a day and no span, and there was a coverage entry for each channel. In version 2, the files of
# a lake on an object store lay in the folders of their tables. Up to version 3, no list of channels was packed, and no
# record took single files of others.
_READ_VERSIONS: Final = (1, 2, 3, 4)
# A longer list of channels is packed. Of a load of 1,000 channels, the list is nine tenths of the record.
_MAX_PLAIN_CHANNELS: Final = 2_000  # bytes
_PACKED: Final = "packed"
# Counts that have another name in older records.
_RENAMED_COUNTS: Final = {"not_cast": "cast_failures"}


def to_bytes(record: LoadRecord) -> bytes:
    """Return the record as JSON."""
    sets: dict[ChannelSet, int] = {}
    # What was read from a checkpoint is its text, in one line. People read records.
    value = orjson.loads(orjson.dumps(to_json(record, sets)))
    value["coverage"] = {"channels": orjson.Fragment(_lines(sets)), "entries": value["coverage"]}
    return orjson.dumps(value, option=orjson.OPT_INDENT_2)


def to_json(record: LoadRecord, sets: dict[ChannelSet, int]) -> dict[str, Any]:
    """Return the record as a JSON value, in which coverage entries have the numbers of their sets of channels.

    :param sets: the number of each set of channels; gets those that it lacks.
    """
    return {
        "v": RECORD_VERSION,
        "load_id": record.load_id,
        "schema_version": record.schema_version,
        "writer": record.writer,
        "exported_at": format_rfc3339(record.exported_at),
        "committed_at": format_rfc3339(record.committed_at),
        "window": {"since": _text(record.since), "until": _text(record.until)},
        "flags": dict(record.flags),
        "sources": [asdict(source) for source in record.sources],
        "coverage": coverage_entries.to_json(record.coverage, record.load_id, sets),
        "counts": dict(record.counts),
        "files": [file_to_json(file) for file in record.files],
        "seconds": round(record.seconds, 3),
        "keep_superseded": record.keep_superseded,
        "late_changes": list(record.late_changes),
        "replaces": list(record.replaces),
        **({"taken": {load_id: list(paths) for load_id, paths in record.taken.items()}} if record.taken else {}),
        "has_unique_keys": record.has_unique_keys,
        "history": [file_to_json(file) for file in record.history],
        "purged": list(record.purged),
        "lost": [span.to_json() for span in record.lost],
        "facts": dict(record.facts),
    }


def from_bytes(content: bytes, where: str) -> LoadRecord:
    """Read a record from JSON.

    :param where: its address, for errors.
    :raises LakeError: it is not a record, or its version is unknown.
    """
    try:
        return from_json(orjson.loads(content), where)
    except ValueError:
        raise _not_a_record(where) from None


def from_json(value: dict[str, Any], where: str, sets: Sequence[ChannelSet] | None = None) -> LoadRecord:
    """Read a record from a JSON value.

    :param where: its address, for errors.
    :param sets: the sets of channels by number, if the value does not have them, as in a checkpoint of version 2.
    :raises LakeError: it is not a record, or its version is unknown.
    """
    try:
        check_version(value["v"], value["schema_version"], where)
        load_id = value["load_id"]
        return LoadRecord(
            load_id=load_id,
            schema_version=value["schema_version"],
            writer=value["writer"],
            exported_at=parse_written(value["exported_at"]),
            committed_at=parse_written(value["committed_at"]),
            since=_moment(value["window"]["since"]),
            until=_moment(value["window"]["until"]),
            flags=value["flags"],
            sources=tuple(SourceFile(**source) for source in value["sources"]),
            coverage=_coverage(value["coverage"], load_id, sets),
            counts={_RENAMED_COUNTS.get(name, name): count for name, count in value["counts"].items()},
            files=tuple(map(file_from_json, value["files"])),
            seconds=value["seconds"],
            keep_superseded=value["keep_superseded"],
            late_changes=tuple(value["late_changes"]),
            replaces=tuple(value["replaces"]),
            taken={load_id: tuple(paths) for load_id, paths in value.get("taken", {}).items()},
            has_unique_keys=value.get("has_unique_keys", bool(value["sources"])),
            history=tuple(map(file_from_json, value["history"])),
            purged=tuple(value["purged"]),
            lost=tuple(map(LostSpan.from_json, value.get("lost", ()))),
            facts=value["facts"],
        )
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        raise _not_a_record(where) from None


def file_to_json(file: DataFile) -> dict[str, Any]:
    """Return the file as JSON types, without what has its default."""
    return {
        each.name: value
        for each in fields(file)
        if (value := getattr(file, each.name)) != each.default or each.name == "schema_version"
    }


def file_from_json(value: dict[str, Any]) -> DataFile:
    """Read a file from a record. In records of version 1, a file has one day."""
    value = dict(value)
    if day := value.pop("day", None):
        value |= {"first_day": day, "last_day": day}
    # JSON gives lists, and files are kept in sets.
    for name in ("promoted", "bounds"):
        value[name] = tuple(tuple(each) for each in value.get(name, ()))
    return DataFile(**value)


def _lines(sets: Iterable[ChannelSet]) -> bytes:
    """Return lists of channels as a JSON array with one line for each list."""
    lines = io.BytesIO()
    for each in sets:
        lines.write(b",\n" if lines.tell() else b"[\n")
        lines.write(_channels_to_json(each))
    return lines.getvalue() + b"\n]" if lines.tell() else b"[]"


def _channels_to_json(channels: ChannelSet) -> bytes:
    """Return a list of channels as JSON: its text, or ``{"packed": ...}`` with the text in zlib and base64."""
    text = orjson.dumps(channels.to_json())
    if len(text) <= _MAX_PLAIN_CHANNELS:
        return text
    return orjson.dumps({_PACKED: base64.b64encode(zlib.compress(text, 9)).decode()})


def _channels(value: dict[str, Any]) -> ChannelSet:
    """Read a list of channels. No channel is ``packed``: what stands before their ids is empty or ends in a colon."""
    packed = value.get(_PACKED)
    return ChannelSet.from_json(value) if packed is None else _unpacked_channels(packed)


# Loads of one schedule have the same lists.
@functools.lru_cache(maxsize=256)
def _unpacked_channels(packed: str) -> ChannelSet:
    try:
        return ChannelSet.from_json(orjson.loads(zlib.decompress(base64.b64decode(packed, validate=True))))
    except zlib.error as error:
        raise ValueError from error


def names_in(files: Sequence[DataFile]) -> frozenset[str]:
    """Return the fields of which one of some files has another value than its default: what their JSON mentions."""
    if isinstance(files, ReadLater):
        return frozenset(files.known)
    return frozenset(name for file in files for name in file_to_json(file))


def check_version(version: int, schema_version: int, where: str) -> None:
    """Raise unless this installation knows the version of a record and of its files' tables.

    :raises LakeError: it does not.
    """
    if version not in _READ_VERSIONS:
        raise LakeError(
            f"{where} is a load record of version {version}, and this installation reads versions "
            f"up to {_READ_VERSIONS[-1]}; upgrade airflow-provider-chatexport where it reads this lake",
            retryable=False,
        )
    if schema_version > SCHEMA_VERSION:
        raise LakeError(
            f"{where} is of a newer version: its files have tables of version {schema_version}, and "
            f"this installation knows version {SCHEMA_VERSION}; upgrade airflow-provider-chatexport where it "
            "reads this lake",
            retryable=False,
        )


def _coverage(value: Any, load_id: str, sets: Sequence[ChannelSet] | None) -> tuple[CoverageEntry, ...]:
    if sets is not None:
        return coverage_entries.from_json(value, load_id, sets)
    if isinstance(value, list):
        return coverage_entries.from_json_per_channel(value, load_id)
    return coverage_entries.from_json(value["entries"], load_id, [_channels(each) for each in value["channels"]])


def _not_a_record(where: str) -> DamagedRecordError:
    return DamagedRecordError(
        f"{where} is not a load record; restore it from a backup, or run chatexport repair, which goes on without it, "
        "then load or export that window again"
    )


def _text(moment: datetime | None) -> str | None:
    return format_rfc3339(moment) if moment else None


def _moment(text: str | None) -> datetime | None:
    return parse_written(text) if text else None

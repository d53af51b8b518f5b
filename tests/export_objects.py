"""Objects of the service, written in any of the line shapes, and the rows that a conversion makes of them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow_provider_chatexport.core.entities import ExportKind, Shape
from airflow_provider_chatexport.core.window import Window
from airflow_provider_chatexport.lake.normalize.input_file import InputFile
from airflow_provider_chatexport.lake.schema.tables import TABLES
from airflow_provider_chatexport.lake.staging.conversion import Conversion
from airflow_provider_chatexport.lake.staging.counts import Counts

CID = "messaging:general"
EXPORTED_AT = datetime(2026, 1, 3, tzinfo=UTC)
AT = "2026-01-01T10:00:00Z"

Fields = dict[str, Any]


def message(message_id: str = "m1", **others: Any) -> Fields:
    return {
        "id": message_id,
        "cid": CID,
        "type": "regular",
        "text": f"text of {message_id}",
        "user": {"id": "u1"},
        "created_at": AT,
        "updated_at": AT,
        **others,
    }


def reaction(message_id: str = "m1", user_id: str = "u2", kind: str = "love", **others: Any) -> Fields:
    return {
        "message_id": message_id,
        "user_id": user_id,
        "user": {"id": user_id},
        "type": kind,
        "score": 1,
        "created_at": AT,
        "updated_at": AT,
        **others,
    }


def channel(cid: str = CID, **others: Any) -> Fields:
    channel_type, _, channel_id = cid.partition(":")
    return {
        "cid": cid,
        "type": channel_type,
        "id": channel_id,
        "config": {"commands": ["giphy"]},
        "frozen": False,
        "member_count": 2,
        "created_by": {"id": "u1"},
        "created_at": AT,
        "updated_at": AT,
        **others,
    }


def member(user_id: str = "u1", **others: Any) -> Fields:
    return {
        "user_id": user_id,
        "user": {"id": user_id},
        "channel_role": "channel_member",
        "notifications_muted": False,
        "created_at": AT,
        "updated_at": AT,
        **others,
    }


def read(user_id: str = "u1", **others: Any) -> Fields:
    return {"user": {"id": user_id}, "last_read": AT, "unread_messages": 3, **others}


def user(user_id: str = "u1", **others: Any) -> Fields:
    return {
        "id": user_id,
        "role": "user",
        "online": False,
        "banned": False,
        "created_at": AT,
        "updated_at": AT,
        **others,
    }


def encoded(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def line(entity: str, fields: Fields, shape: Shape = Shape.TYPED) -> bytes:
    """One entity as a line of a shape, without its end. ``channel`` is the shape of whole channels, not of entities."""
    match shape:
        case Shape.TYPED:
            return encoded({"type": entity, "data": fields})
        case Shape.ITEM:
            return encoded({"type": entity, "item": fields})
        case Shape.KEYED:
            return encoded({entity: fields})
        case Shape.BARE:
            return encoded(fields)
        case Shape.CHANNEL:
            raise ValueError("a line of the channel shape holds a whole channel; write it with encoded()")


def write_lines(path: Path, lines: Iterable[bytes], end: bytes = b"\n") -> Path:
    path.write_bytes(b"".join(each + end for each in lines))
    return path


@dataclass(frozen=True, slots=True)
class Converted:
    """What a conversion made: counts, and rows by table, in the files' order."""

    counts: Counts
    rows: dict[str, list[Fields]]
    named: set[str]

    def one(self, table: str) -> Fields:
        (row,) = self.rows[table]
        return row

    def column(self, table: str, name: str) -> list[Any]:
        return [row[name] for row in self.rows[table]]

    @property
    def reasons(self) -> list[str]:
        return self.column("rejects", "reason")

    @property
    def reason_by_line(self) -> dict[int, str]:
        """Of lines with one reject at most."""
        rows = self.rows["rejects"]
        by_line = {row["line_number"]: row["reason"] for row in rows}
        assert len(rows) == len(by_line)
        return by_line

    def by_id(self, table: str, name: str, key: str = "id") -> dict[str, Any]:
        """A column by id, or by another key."""
        return dict(zip(self.column(table, key), self.column(table, name), strict=True))


def assert_counts(converted: Converted, **expected: int) -> None:
    """Compare counts by name: ``lines=4, rejected=0, messages=41`` (a table's name counts its rows)."""
    counts = converted.counts
    found = {name: counts.rows[name] if name in counts.rows else getattr(counts, name) for name in expected}
    assert expected == found, f"expected {expected}, found {found}"


def input_file(path: Path, **others: Any) -> InputFile:
    """A file of a conversion by itself, without the digest that a load needs."""
    return InputFile(**{"path": path, "exported_at": EXPORTED_AT, "sha256": "", "size_bytes": 0, **others})


def convert(
    *paths: Path,
    folder: Path,
    window: Window | None = None,
    exported_at: Iterable[datetime] = (),
    kind: ExportKind | None = None,
    user_ids: tuple[str, ...] = (),
    **options: Any,
) -> Converted:
    """Converts files as one load; JSON columns are parsed, but for ``custom``, which stays the text that it is."""
    moments = list(exported_at) or [EXPORTED_AT] * len(paths)
    named: set[str] = set()
    with Conversion(folder / "work", load_id="load-1", **options) as conversion:
        for path, moment in zip(paths, moments, strict=True):
            file = input_file(path, exported_at=moment, window=window, kind=kind, user_ids=user_ids)
            named |= conversion.add(file).cids
        conversion.finish()
        rows = {
            table.name: [row for batch in conversion.rows(table, 10_000) for row in batch.to_pylist()]
            for table in TABLES
        }
        return Converted(conversion.counts, rows, named)


def convert_lines(folder: Path, *lines: bytes, **options: Any) -> Converted:
    return convert(write_lines(folder / "export.ndjson", lines), folder=folder, **options)

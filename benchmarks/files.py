"""The export files that the benchmarks read. The sandbox's world makes each once, and always the same bytes.

- Plain: every key is in the first lines, and has one type. So all peers can read it at their defaults.
- Uneven: keys appear late or change their type, and an integer exceeds 64 bits. All of that is legal in the service.
- Hours, and small files: what an hourly run loads.
- Years: the plain messages, spread over eight years.

Texts are those of the shipped chat. In plain files, several of them make one text, so that a message by id has 1.4 KB.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from airflow_provider_chatexport.core.entities import References, Shape
from airflow_provider_chatexport.core.plan import ExportFlags
from airflow_provider_chatexport.sandbox.chat.corpus import SHIPPED, read_corpus
from airflow_provider_chatexport.sandbox.chat.timestamps import stamp
from airflow_provider_chatexport.sandbox.chat.world import Bounds, World
from airflow_provider_chatexport.sandbox.exports.render import ExportJob, render_channels_export

CACHE = Path(__file__).resolve().parents[1] / ".cache" / "bench"
FIRST_DAY = datetime(2025, 1, 1, tzinfo=UTC)
# As many lines as DuckDB looks at by default to find keys and types.
SAMPLE_LINES = 20_480
TEXT_BYTES = 330
YEARS_DAYS = 2922
# ``sequence`` is an integer beyond 64 bits; ``priority`` is a number in one line and an object in another.
UNEVEN_KEYS = ("sequence", "priority")

_encode = msgspec.json.Encoder().encode
_Lines = Iterator[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """An export file that was made, with the window that it is of, if it is of one."""

    path: Path
    since: datetime | None = None
    until: datetime | None = None

    @property
    def mb(self) -> float:
        """Its size."""
        return round(self.path.stat().st_size / 1e6, 4)


def plain(n_messages: int, *, by_id: bool = True, folder: Path = CACHE) -> Export:
    """Return the plain file: ``item`` lines with references by id, or ``typed`` lines with objects."""
    path = folder / f"plain-{n_messages}-{_shape_name(by_id=by_id)}.ndjson"
    return _made(path, lambda: without_late_keys(_rendered(_plain_world(n_messages, folder), by_id=by_id)))


def uneven(n_messages: int, *, by_id: bool = False, folder: Path = CACHE) -> Export:
    """Return the file with late and changing keys."""
    path = folder / f"uneven-{n_messages}-{_shape_name(by_id=by_id)}.ndjson"
    return _made(path, lambda: _rendered(World.load(messages=n_messages), by_id=by_id))


def hours(n_hours: int, *, by_id: bool = True, folder: Path = CACHE) -> list[Export]:
    """Return the exports of consecutive hours, with some 830 messages each."""
    made = []
    for hour in range(n_hours):
        since = FIRST_DAY + timedelta(hours=hour)
        until = since + timedelta(hours=1)
        path = folder / f"hour-{hour}-{_shape_name(by_id=by_id)}.ndjson"
        window = (since, until)
        export = _made(path, lambda window=window: _rendered(_plain_world(60_000, folder), by_id=by_id, window=window))
        made.append(Export(path=export.path, since=since, until=until))
    return made


def small(number: int, folder: Path = CACHE) -> Export:
    """Return the export of an hour in which two messages were written: a file of 1 KB, by id."""
    since = FIRST_DAY + timedelta(hours=number)
    path = folder / f"small-{number}.ndjson"
    return Export(
        path=_made(path, lambda: _small_lines(number, since)).path, since=since, until=since + timedelta(hours=1)
    )


def years(n_messages: int, folder: Path = CACHE) -> Export:
    """Return the plain messages by id, spread over eight years: they move by whole days."""
    path = folder / f"years-{n_messages}.ndjson"
    return _made(path, lambda: _spread(plain(n_messages, folder=folder).path, n_messages))


def without_late_keys(lines: Iterable[bytes], sample_lines: int = SAMPLE_LINES) -> _Lines:
    """Yield lines without keys that come for the first time behind the sample, or that no peer can read."""
    known: set[tuple[str, ...]] = set()
    for number, line in enumerate(lines):
        yield _encode(_kept(json.loads(line), (), known, is_sample=number < sample_lines)) + b"\n"


def _kept(value: Any, path: tuple[str, ...], known: set[tuple[str, ...]], *, is_sample: bool) -> Any:
    if isinstance(value, list):
        return [_kept(each, path, known, is_sample=is_sample) for each in value]
    if not isinstance(value, dict):
        return value
    kept = {}
    for key, inner in value.items():
        here = (*path, key)
        # No Parquet file can hold an object without members.
        if key in UNEVEN_KEYS or inner == {}:
            continue
        if is_sample:
            known.add(here)
        if here in known:
            kept[key] = _kept(inner, here, known, is_sample=is_sample)
    return kept


def _shape_name(*, by_id: bool) -> str:
    return "item-by-id" if by_id else "typed"


def _made(path: Path, lines: Callable[[], Iterable[bytes]]) -> Export:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        with part.open("wb") as target:
            target.writelines(lines())
        part.rename(path)
    return Export(path=path)


def _plain_world(n_messages: int, folder: Path) -> World:
    """Return a world whose texts are longer than those of the shipped chat, and come from it."""
    corpus = folder / "corpus.ndjson"
    if not corpus.exists():
        _made(corpus, _longer_texts)
    return World.load(corpus, messages=n_messages)


def _longer_texts() -> _Lines:
    """Yield the shipped corpus, each text followed by the texts after it up to the wanted length."""
    lines = list(read_corpus(SHIPPED))
    for number, line in enumerate(lines):
        words, at = line.text, number
        while len(words.encode()) < TEXT_BYTES:
            at = (at + 1) % len(lines)
            words = f"{words} {lines[at].text}"
        fields = {"cid": line.cid, "id": line.id, "at": stamp(line.at_us), "author": line.author, "kind": line.kind}
        yield _encode({**fields, "text": words, "reply_to": line.reply_to}) + b"\n"


def _rendered(world: World, *, by_id: bool, window: tuple[datetime, datetime] | None = None) -> _Lines:
    cids = tuple(cid for cid in world.cids if not world.channel_is_deleted(cid))
    job = ExportJob(
        cids=cids,
        windows=(window or (None, None),) * len(cids),
        flags=ExportFlags(include_truncated_messages=True),
        bounds=Bounds.HALF_OPEN,
        shape=Shape.ITEM if by_id else Shape.TYPED,
        references=References.ID if by_id else References.OBJECT,
        gzip=False,
    )
    rest = b""
    for chunk in render_channels_export(world, job):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line + b"\n" for line in lines)
    if rest:
        yield rest + b"\n"


def _small_lines(number: int, since: datetime) -> _Lines:
    at = since.strftime("%Y-%m-%dT%H:%M:%SZ")
    channel = {"id": "small", "type": "messaging", "created_by": "ann", "created_at": at, "updated_at": at}
    yield _encode({"type": "channel", "item": channel}) + b"\n"
    for each in range(2):
        message = {
            "id": f"small-{number}-{each}",
            "channel_type": "messaging",
            "channel_id": "small",
            "user": "ann",
            "text": "A message of an hour in which little was written. " * 3,
            "type": "regular",
            "created_at": at,
            "updated_at": at,
            "attachments": [],
            "mentioned_users_ids": [],
        }
        yield _encode({"type": "message", "item": message}) + b"\n"


def _spread(path: Path, n_messages: int) -> _Lines:
    n_met = 0
    with path.open("rb") as lines:
        for line in lines:
            if not line.startswith(b'{"type":"message",'):
                continue  # a reaction of a message that moves; members and channels would all be of one day
            fields = json.loads(line)
            message = fields["item"]
            days = timedelta(days=n_met * YEARS_DAYS // n_messages)
            for key in ("created_at", "updated_at"):
                at = datetime.fromisoformat(message[key]) - days
                message[key] = at.isoformat().replace("+00:00", "Z")
            n_met += 1
            yield _encode(fields) + b"\n"

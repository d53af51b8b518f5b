"""Export files as a stream of bytes: v1, v2 in each of the line shapes it may have, and the export of users."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from airflow_provider_chatexport.core.entities import Entity, References, Shape
from airflow_provider_chatexport.core.plan import ExportFlags
from airflow_provider_chatexport.sandbox.chat.world import Bounds, World
from airflow_provider_chatexport.sandbox.exports.layout import Fields, Layout, to_json
from airflow_provider_chatexport.sandbox.exports.layout_by_id import LayoutById
from airflow_provider_chatexport.sandbox.exports.signed_links import RenewLinks

_CHUNK_BYTES: Final = 256 * 1024
_GZIP_CONTAINER: Final = 16 + zlib.MAX_WBITS

ChannelWindow = tuple[datetime | None, datetime | None]
_ALL_OF_IT: Final[ChannelWindow] = (None, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportJob:
    """A request for an export of channels.

    :param windows: one window per channel; an empty tuple is the whole history of all.
    :param references: None is what usually comes with the shape; v1 has objects in any case.
    :param renew_links: puts links to attachments into a message.
    """

    cids: tuple[str, ...]
    windows: tuple[ChannelWindow, ...] = ()
    flags: ExportFlags = field(default_factory=ExportFlags)
    bounds: Bounds = Bounds.HALF_OPEN
    shape: Shape = Shape.ITEM
    references: References | None = None
    gzip: bool = False
    renew_links: RenewLinks | None = None

    def __post_init__(self) -> None:
        if self.windows and len(self.windows) != len(self.cids):
            raise ValueError(f"{len(self.windows)} windows do not fit {len(self.cids)} channels")

    def each_channel(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield each channel with the arguments that select its messages in the world."""
        for cid, (since, until) in zip(self.cids, self.windows or (_ALL_OF_IT,) * len(self.cids), strict=True):
            yield (
                cid,
                {
                    "since": since,
                    "until": until,
                    "bounds": self.bounds,
                    "include_truncated": self.flags.include_truncated_messages,
                },
            )


def render_channels_export(world: World, job: ExportJob) -> Iterator[bytes]:
    """Yield the file of a channel export, in chunks of about 256 KiB.

    v1 is one JSON array with an element per channel. v2 has one entity a line: users if the job asks for them, then per
    channel the channel, its members, its reads, and its messages, each followed by its reactions. In the ``channel``
    shape a line is a channel with all of these. It has no lines for users and reactions, which are inside the messages.

    With references by id there are no reads, because members contain theirs; the ``channel`` shape has its reactions in
    a list of their own, because messages do not contain them.

    :raises KeyError: a channel that the world does not have.
    """
    if job.flags.version == "v1":
        pieces = _v1(world, job)
    elif job.shape is Shape.CHANNEL:
        pieces = _channel_lines(world, job)
    else:
        pieces = _entity_lines(world, job)
    return _chunks(pieces, packed=job.gzip)


def render_users_export(
    world: World,
    user_ids: Iterable[str],
    *,
    shape: Shape = Shape.ITEM,
    references: References | None = None,
    gzip: bool = False,
    renew_links: RenewLinks | None = None,
) -> Iterator[bytes]:
    """Yield the file of a users export: per user the user, their messages and their reactions, one entity a line.

    The options are those of ``ExportJob``.

    With references by id the user's devices follow. In the ``channel`` shape a line is
    ``{"user":..,"messages":[..],"reactions":[..]}``, as in the synchronous export.

    :raises KeyError: a user whom the world does not know.
    """
    layout = _layout(world, shape, references)
    if shape is Shape.CHANNEL:
        pieces = _user_lines(world, layout, user_ids, renew_links)
    else:
        pieces = _user_entity_lines(world, layout, user_ids, shape, renew_links)
    return _chunks(pieces, packed=gzip)


def export_user(world: World, user_id: str, renew_links: RenewLinks | None = None) -> dict[str, Any]:
    """Return the synchronous export of one user: their messages and reactions, with ``user`` and counts null.

    Objects are those of the world; ``Family.encode`` writes them as an endpoint has them.

    :raises KeyError: a user whom the world does not know.
    """
    messages = _with_links(world.messages_of(user_id), renew_links)
    return {
        "user": _user(world, user_id),
        "messages": [{**message, "user": None, "reaction_counts": None} for message in messages],
        "reactions": [{**reaction, "user": None} for reaction in world.reactions_by(user_id)],
    }


def _v1(world: World, job: ExportJob) -> Iterator[bytes]:
    layout = Layout(version="v1")
    yield b"["
    for place, (cid, selection) in enumerate(job.each_channel()):
        yield b"," if place else b""
        yield b'{"channel":' + to_json(layout.channel(_channel(world, cid))) + b',"messages":['
        yield from _joined(to_json(layout.message(message)) for message in _messages(world, job, cid, selection))
        yield b'],"members":[' + b",".join(to_json(layout.member(member)) for member in world.members(cid)) + b"]}"
    yield b"]"


def _channel_lines(world: World, job: ExportJob) -> Iterator[bytes]:
    layout = _layout(world, job.shape, job.references)
    for cid, selection in job.each_channel():
        members, reads = _members_and_reads(world, layout, cid)
        yield b'{"channel":' + to_json(layout.channel(_channel(world, cid))) + b',"messages":['
        yield from _joined(to_json(layout.message(message)) for message in _messages(world, job, cid, selection))
        yield b'],"members":[' + b",".join(map(to_json, members))
        if isinstance(layout, LayoutById):
            messages = _messages(world, job, cid, selection)
            reactions = (reaction for message in messages for reaction in world.reactions_of(message))
            yield b'],"reactions":['
            yield from _joined(to_json(layout.reaction(reaction)) for reaction in reactions)
        else:
            yield b'],"reads":[' + b",".join(map(to_json, reads))
        yield b"]}\n"


def _entity_lines(world: World, job: ExportJob) -> Iterator[bytes]:
    layout = _layout(world, job.shape, job.references)
    wrap = {entity: _wrapper(job.shape, entity.value) for entity in Entity}
    if job.flags.export_users:
        everyone = _everyone_named_in(world, job) if isinstance(layout, LayoutById) else _everyone_in(world, job)
        for user_id in everyone:
            yield wrap[Entity.USER](to_json(layout.user(_user(world, user_id))))
    for cid, selection in job.each_channel():
        members, reads = _members_and_reads(world, layout, cid)
        yield wrap[Entity.CHANNEL](to_json(layout.channel(_channel(world, cid))))
        yield from (wrap[Entity.MEMBER](to_json(member)) for member in members)
        yield from (wrap[Entity.READ](to_json(read)) for read in reads)
        for message in _messages(world, job, cid, selection):
            yield wrap[Entity.MESSAGE](to_json(layout.message(message)))
            for reaction in world.reactions_of(message):
                yield wrap[Entity.REACTION](to_json(layout.reaction(reaction)))


def _user_entity_lines(
    world: World, layout: Layout | LayoutById, user_ids: Iterable[str], shape: Shape, renew_links: RenewLinks | None
) -> Iterator[bytes]:
    wrap = {entity: _wrapper(shape, entity.value) for entity in Entity}
    wrap_device = _wrapper(shape, "device")
    for user_id in user_ids:
        yield wrap[Entity.USER](to_json(layout.user(_user(world, user_id))))
        if isinstance(layout, LayoutById):
            yield from (wrap_device(to_json(device)) for device in world.devices(user_id))
        for message in _with_links(world.messages_of(user_id), renew_links):
            yield wrap[Entity.MESSAGE](to_json(layout.message(message)))
        for reaction in world.reactions_by(user_id):
            yield wrap[Entity.REACTION](to_json(layout.reaction(reaction)))


def _user_lines(
    world: World, layout: Layout | LayoutById, user_ids: Iterable[str], renew_links: RenewLinks | None
) -> Iterator[bytes]:
    for user_id in user_ids:
        yield b'{"user":' + to_json(layout.user(_user(world, user_id))) + b',"messages":['
        messages = _with_links(world.messages_of(user_id), renew_links)
        yield from _joined(to_json(layout.message(message)) for message in messages)
        yield b'],"reactions":['
        yield from _joined(to_json(layout.reaction(reaction)) for reaction in world.reactions_by(user_id))
        yield b"]}\n"


def _layout(world: World, shape: Shape, references: References | None) -> Layout | LayoutById:
    match references or References.usual_in(shape):
        case References.ID:
            return LayoutById(world.members)
        case References.OBJECT:
            return Layout(version="v2")


def _members_and_reads(
    world: World, layout: Layout | LayoutById, cid: str
) -> tuple[Iterable[Fields], Iterable[Fields]]:
    members, reads = world.members(cid), world.reads(cid)
    if isinstance(layout, LayoutById):
        return [layout.member(member, cid=cid, read=read) for member, read in zip(members, reads, strict=True)], ()
    return map(layout.member, members), map(layout.read, reads)


def _wrapper(shape: Shape, entity_name: str) -> Callable[[bytes], bytes]:
    """Return a function that puts an entity's JSON into a line of a shape."""
    name = entity_name.encode()
    head, tail = {
        Shape.TYPED: (b'{"type":"' + name + b'","data":', b"}\n"),
        Shape.KEYED: (b'{"' + name + b'":', b"}\n"),
        Shape.BARE: (b"", b"\n"),
        Shape.ITEM: (b'{"type":"' + name + b'","item":', b"}\n"),
    }[shape]
    return lambda encoded: head + encoded + tail


def _messages(world: World, job: ExportJob, cid: str, selection: dict[str, Any]) -> Iterator[Fields]:
    messages = world.messages(cid, **selection, clear_deleted_text=job.flags.clear_deleted_message_text)
    return _with_links(messages, job.renew_links)


def _with_links(messages: Iterator[Fields], renew_links: RenewLinks | None) -> Iterator[Fields]:
    return messages if renew_links is None else map(renew_links, messages)


def _everyone_in(world: World, job: ExportJob) -> list[str]:
    """Return members of the channels and authors in the window, sorted. What the flag really adds is not documented."""
    user_ids: set[str] = set()
    for cid, selection in job.each_channel():
        user_ids |= {member["user_id"] for member in world.members(cid)}
        user_ids |= world.author_ids(cid, **selection)
    return sorted(user_ids)


def _everyone_named_in(world: World, job: ExportJob) -> list[str]:
    """Return all users whose ids a file by id contains, sorted. Without their lines, those people have no names."""
    user_ids = set(_everyone_in(world, job))
    for cid, selection in job.each_channel():
        for message in world.messages(cid, **selection):
            named = [*message["mentioned_users"], *([message["pinned_by"]] if message["pinned_by"] else [])]
            user_ids |= {user["id"] for user in named}
            user_ids |= {reaction["user_id"] for reaction in world.reactions_of(message)}
    return sorted(user_ids)


def _channel(world: World, cid: str) -> Fields:
    channel = world.channel(cid)
    if channel is None:
        raise KeyError(cid)
    return channel


def _user(world: World, user_id: str) -> Fields:
    user = world.user(user_id)
    if user is None:
        raise KeyError(user_id)
    return user


def _joined(items: Iterable[bytes]) -> Iterator[bytes]:
    comma = b""
    for item in items:
        yield comma + item
        comma = b","


def _chunks(pieces: Iterable[bytes], *, packed: bool) -> Iterator[bytes]:
    """Yield the pieces in chunks that are worth a write, gzip if ``packed``.

    The gzip header has no time, so equal files have equal bytes.
    """
    packer = zlib.compressobj(level=6, wbits=_GZIP_CONTAINER) if packed else None
    gathered: list[bytes] = []
    size_bytes = 0
    for piece in pieces:
        gathered.append(piece)
        size_bytes += len(piece)
        if size_bytes >= _CHUNK_BYTES:
            yield from _packed(b"".join(gathered), packer)
            gathered, size_bytes = [], 0
    yield from _packed(b"".join(gathered), packer)
    if packer is not None:
        yield packer.flush()


def _packed(chunk: bytes, packer: Any) -> Iterator[bytes]:
    if packer is not None:
        chunk = packer.compress(chunk)
    if chunk:
        yield chunk

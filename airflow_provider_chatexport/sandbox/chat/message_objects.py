"""From a record to the service's complete message object: html, links, mentions, reactions, edits, custom fields.

Everything is drawn from a stable hash of the record's seed, so the same record always makes the same object. Custom
fields stay apart under ``custom``, as the API has them; ``render`` lays them flat, as export files have them.
Threads and quotes need other messages; ``world`` adds those.
"""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple, Protocol

from airflow_provider_chatexport.sandbox.chat.chronicle import Record
from airflow_provider_chatexport.sandbox.chat.timestamps import DAY_US, HOUR_US, SECOND_US, stamp

MAX_LATEST_REACTIONS: Final = 10

_LINK: Final = re.compile(r"https?://[^\s<>\"')\]]+[^\s<>\"')\].,;:!?]")
_ADDRESSEE: Final = re.compile(r"([A-Za-z_\[\\^{|`][\w\-\[\]\\^{}|`]{1,30})[:,]\s")
_IMAGE_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".svg")
_VIDEO_SUFFIXES: Final = (".mp4", ".mpg", ".mpeg", ".avi", ".ogv", ".webm", ".mov")
_VIDEO_HOSTS: Final = ("www.youtube.com", "youtube.com", "youtu.be", "vimeo.com")
_REACTIONS: Final = ("like", "like", "like", "love", "haha", "wow", "sad", "clap", "👍")
_CLIENTS: Final = ("web", "ios", "android", "desktop")
_TAGS: Final = ("hardware", "wifi", "grub", "borrow-checker", "billing", "wiki", "follow-up")


class People(Protocol):
    """Whom a message may mention and who may react to it."""

    user_ids: Sequence[str]

    def known_user(self, user_id: str) -> dict[str, Any]:
        """The complete user object of someone in ``user_ids``."""


class PlannedReaction(NamedTuple):
    """A reaction before it has a message: who, what, and how long after."""

    user_id: str
    type: str
    score: int
    delay_us: int
    custom: dict[str, Any]


def dice(seed: str) -> bytes:
    """32 bytes that decide all of a message's texture. Each decision below has bytes of its own."""
    return hashlib.blake2b(seed.encode(), digest_size=32, person=b"texture").digest()


def is_deleted(thrown: bytes) -> bool:
    """Whether the author has deleted the message (0.8 %)."""
    return thrown[0] < 2


def message(record: Record, people: People) -> dict[str, Any]:
    """The message object without thread counts, thread participants and quoted message.

    Keys stand in the order of a real v1 export; those it does not have come after.
    """
    thrown = dice(record.seed)
    created_at = stamp(record.at_us)
    reactions = _reactions(record, plan_reactions(record.seed, thrown, people.user_ids), people)
    made: dict[str, Any] = {
        "id": record.id,
        "text": record.text,
        "html": to_html(record.text),
        "type": "system" if record.kind == "system" else "reply" if record.parent_id else "regular",
        "user": people.known_user(record.user_id),
        "attachments": attachments(record.text, thrown),
        **reaction_summary(reactions),
        "reply_count": 0,
        "deleted_reply_count": 0,
        "cid": record.cid,
        "created_at": created_at,
        "updated_at": created_at,
        "shadowed": thrown[1] == 0,
        "mentioned_users": _mentions(record.text, people),
        "silent": thrown[1] in (1, 2),
        "pinned": False,
        "pinned_at": None,
        "pinned_by": None,
        "pin_expires": None,
        "mentioned_channel": "@channel" in record.text,
        "mentioned_here": "@here" in record.text,
        "restricted_visibility": [record.user_id] if thrown[1] == 3 else [],
        "custom": custom(thrown) if thrown[2] < 64 else {},
    }
    if record.parent_id:
        made["parent_id"] = record.parent_id
        made["show_in_channel"] = thrown[3] < 64
    _add_life(made, record, thrown, people)
    return made


def _add_life(made: dict[str, Any], record: Record, thrown: bytes, people: People) -> None:
    """What happened to a message after it was sent: edited (3 %), deleted, pinned, translated, moderated."""
    later_us = record.at_us + 20 * SECOND_US + int.from_bytes(thrown[24:28], "big") % (3 * HOUR_US)
    if thrown[4] < 8:
        made["updated_at"] = made["message_text_updated_at"] = stamp(later_us)
    if thrown[5] < 2:
        made["pinned"] = True
        made["pinned_at"] = stamp(later_us + 1)
        made["pinned_by"] = people.known_user(_anyone(people.user_ids, thrown))
        if thrown[6] % 2:
            made["pin_expires"] = stamp(later_us + 7 * DAY_US)
    if thrown[7] < 2:
        made["i18n"] = {"language": "en", "en_text": record.text, "nl_text": f"[nl] {record.text}"}
    elif thrown[7] < 3:
        made["moderation"] = {
            "action": "flag",
            "original_text": record.text,
            "text_harms": ["spam"],
            "platform_circumvented": False,
        }
    if is_deleted(thrown):
        made["type"] = "deleted"
        made["deleted_at"] = made["updated_at"] = stamp(later_us + HOUR_US)


def to_html(text: str) -> str:
    """A text as the service renders it: one paragraph, escaped; nothing for nothing."""
    return f"<p>{html.escape(text, quote=False)}</p>\n" if text else ""


def attachments(text: str, thrown: bytes) -> list[dict[str, Any]]:
    """One attachment per link in a text: image and video by ending or host, else a link."""
    if "://" not in text:
        return []
    return [_attachment(url, thrown) for url in dict.fromkeys(_LINK.findall(text))]


def _attachment(url: str, thrown: bytes) -> dict[str, Any]:
    path = url.partition("?")[0]
    host = path.split("/")[2]
    title = path.rstrip("/").rpartition("/")[2] or host
    made: dict[str, Any] = {"title": title, "title_link": url, "og_scrape_url": url}
    ending = path.lower()
    if ending.endswith(_IMAGE_SUFFIXES):
        made |= {"type": "image", "image_url": url, "fallback": title}
        made |= {"original_width": 320 + thrown[8] * 4, "original_height": 200 + thrown[9] * 4}
    elif ending.endswith(_VIDEO_SUFFIXES) or host in _VIDEO_HOSTS or thrown[8] < 8:
        # The service goes by what a page says of itself, which no address tells: hence some videos by chance.
        made |= {"type": "video", "asset_url": url, "thumb_url": f"{url}.jpg"}
    else:
        made |= {"type": "link", "author_name": host, "text": f"A page at {host}"}
    scanned = {"file_size": thrown[8] * 1024, "scan": {"clean": True, "engine": "clam"}}
    return made | {"custom": scanned if thrown[9] < 64 else {}}


def _mentions(text: str, people: People) -> list[dict[str, Any]]:
    """IRC names its addressee first ("name: ..."). A name always maps to the same person; which one, the hash says."""
    addressee = _ADDRESSEE.match(text)
    if addressee is None or not people.user_ids:
        return []
    name = hashlib.blake2b(addressee[1].lower().encode(), digest_size=8, person=b"addressee").digest()
    return [people.known_user(people.user_ids[int.from_bytes(name, "big") % len(people.user_ids)])]


def plan_reactions(seed: str, thrown: bytes, user_ids: Sequence[str]) -> list[PlannedReaction]:
    """Who reacts to a message, oldest first: 12 % get one to three reactions, one in thirty of those more than ten."""
    if thrown[10] >= 31 or not user_ids:
        return []
    n_reactions = 11 + thrown[12] % 16 if thrown[11] < 8 else 1 + thrown[11] % 3
    first = int.from_bytes(thrown[12:20], "big")
    planned = []
    for number in range(min(n_reactions, len(user_ids))):
        # Neighbours in the sorted ids are strangers to each other, and never the same person twice.
        user_id = user_ids[(first + number) % len(user_ids)]
        bits = hashlib.blake2b(f"{seed} {number}".encode(), digest_size=8, person=b"reaction").digest()
        kind = _REACTIONS[bits[0] % len(_REACTIONS)]
        planned.append(
            PlannedReaction(
                user_id=user_id,
                type=kind,
                score=1 + bits[1] % 9 if kind == "clap" else 1,
                delay_us=5 * SECOND_US + int.from_bytes(bits[2:7], "big") % (30 * HOUR_US),
                custom={"device": _CLIENTS[bits[7] % 4], "pressure": {"force": bits[1] / 256}} if bits[7] < 26 else {},
            )
        )
    return sorted(planned, key=lambda reaction: reaction.delay_us)


def reactions(record: Record, people: People) -> list[dict[str, Any]]:
    """All reactions to a message, oldest first."""
    return _reactions(record, plan_reactions(record.seed, dice(record.seed), people.user_ids), people)


def _reactions(record: Record, planned: list[PlannedReaction], people: People) -> list[dict[str, Any]]:
    made = []
    for reaction in planned:
        created_at = stamp(record.at_us + reaction.delay_us)
        made.append(
            {
                "message_id": record.id,
                "user_id": reaction.user_id,
                "user": people.known_user(reaction.user_id),
                "type": reaction.type,
                "score": reaction.score,
                "created_at": created_at,
                "updated_at": created_at,
                "custom": reaction.custom,
            }
        )
    return made


def reaction_summary(reactions: list[dict[str, Any]]) -> dict[str, Any]:
    """What a message itself tells of its reactions (oldest first): the newest ten, and counts of all by type.

    ``reaction_groups`` is null without reactions, as in a real export; ``own_reactions`` is empty for a server.
    """
    counts: dict[str, int] = {}
    scores: dict[str, int] = {}
    groups: dict[str, dict[str, Any]] = {}
    for reaction in reactions:
        kind = reaction["type"]
        counts[kind] = counts.get(kind, 0) + 1
        scores[kind] = scores.get(kind, 0) + reaction["score"]
        by = {"user_id": reaction["user_id"], "created_at": reaction["created_at"], "user": reaction["user"]}
        group = groups.setdefault(kind, {"first_reaction_at": reaction["created_at"], "latest_reactions_by": []})
        group |= {"count": counts[kind], "sum_scores": scores[kind], "last_reaction_at": reaction["created_at"]}
        group["latest_reactions_by"] = [by, *group["latest_reactions_by"]][:MAX_LATEST_REACTIONS]
    return {
        "latest_reactions": reactions[: -MAX_LATEST_REACTIONS - 1 : -1],
        "own_reactions": [],
        "reaction_counts": counts,
        "reaction_scores": scores,
        "reaction_groups": groups or None,
    }


def custom(thrown: bytes) -> dict[str, Any]:
    """One to three custom fields: every JSON kind, and names that a careless reader trips over."""
    number = int.from_bytes(thrown[20:24], "big")
    made: dict[str, Any] = {}
    for which in thrown[21 : 22 + thrown[23] % 3]:
        made |= _CUSTOM[which % len(_CUSTOM)](number)
    return made


# ``priority`` is a number here and an object there; integers past 64 bits, an SQL keyword, an emoji, a key with spaces:
# all legal in the service, which takes any JSON object.
_CUSTOM: Final[tuple[Callable[[int], dict[str, Any]], ...]] = (
    lambda n: {"priority": n % 5},
    lambda n: {"priority": n % 5},
    lambda n: {"priority": {"level": n % 5, "by": _CLIENTS[n % 4]}},
    lambda n: {"client": _CLIENTS[n % 4]},
    lambda n: {"client": _CLIENTS[n % 4], "client_version": f"{n % 9}.{n % 31}.0"},
    lambda n: {"confidence": n % 1000 / 1000 + 0.0005},
    lambda n: {"resolved": n % 2 == 0},
    lambda _: {"assignee": None},
    lambda n: {"ticket": {"id": n % 100_000, "open": n % 3 > 0, "tags": [_TAGS[n % 7]], "assignee": None}},
    lambda n: {"labels": [_TAGS[n % 7], _TAGS[n % 5]]},
    lambda n: {"steps": [{"at": n % 60, "ok": True}, {"at": n % 60 + 1, "ok": False, "why": {"code": n % 9}}]},
    lambda n: {"🔥": n % 100},
    lambda n: {"select": _TAGS[n % 7]},
    lambda n: {"sequence": 2**64 + n},
    lambda _: {"with a space": "ünïcode “quoted” 漢字"},
    lambda _: {"empty_object": {}, "empty_list": []},
)


def _anyone(user_ids: Sequence[str], thrown: bytes) -> str:
    return user_ids[int.from_bytes(thrown[28:32], "big") % len(user_ids)]


def quotes(record: Record) -> bool:
    """Whether a message quotes the one that it answers (about one in six)."""
    return dice(record.seed)[28] < 40


def reactors(seed: str, user_ids: Sequence[str]) -> Iterator[str]:
    """Who reacts to records with this seed."""
    return (reaction.user_id for reaction in plan_reactions(seed, dice(seed), user_ids))

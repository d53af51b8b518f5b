"""From a record to the service's complete message object: html, links, mentions, reactions, edits, custom fields.

Everything follows from a hash of the record's seed, so the same record always becomes the same object. Custom fields
stay under ``custom``, as the API has them; ``exports.layout`` puts them flat, as export files have them. Threads and
quotes need other messages; ``world`` adds those.
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
    """The users whom a message may mention and who may react to it."""

    user_ids: Sequence[str]

    def known_user(self, user_id: str) -> dict[str, Any]:
        """Return the complete object of a user in ``user_ids``."""


class PlannedReaction(NamedTuple):
    """A reaction before it has a message. ``delay_us``: how long after the message."""

    user_id: str
    type: str
    score: int
    delay_us: int
    custom: dict[str, Any]


def seed_digest(seed: str) -> bytes:
    """Return 32 bytes that decide everything about a message. Each decision below has bytes of its own."""
    return hashlib.blake2b(seed.encode(), digest_size=32, person=b"texture").digest()


def is_deleted(digest: bytes) -> bool:
    """Return whether the author has deleted the message (0.8 %)."""
    return digest[0] < 2


def message(record: Record, people: People) -> dict[str, Any]:
    """Return the message object without thread counts, thread participants and quoted message.

    Keys are in the order of a real v1 export; keys that it does not have come last.
    """
    digest = seed_digest(record.seed)
    created_at = stamp(record.at_us)
    reactions = _reactions(record, plan_reactions(record.seed, digest, people.user_ids), people)
    fields: dict[str, Any] = {
        "id": record.id,
        "text": record.text,
        "html": to_html(record.text),
        "type": "system" if record.kind == "system" else "reply" if record.parent_id else "regular",
        "user": people.known_user(record.user_id),
        "attachments": attachments(record.text, digest),
        **reaction_summary(reactions),
        "reply_count": 0,
        "deleted_reply_count": 0,
        "cid": record.cid,
        "created_at": created_at,
        "updated_at": created_at,
        "shadowed": digest[1] == 0,
        "mentioned_users": _mentions(record.text, people),
        "silent": digest[1] in (1, 2),
        "pinned": False,
        "pinned_at": None,
        "pinned_by": None,
        "pin_expires": None,
        "mentioned_channel": "@channel" in record.text,
        "mentioned_here": "@here" in record.text,
        "restricted_visibility": [record.user_id] if digest[1] == 3 else [],
        "custom": custom(digest) if digest[2] < 64 else {},
    }
    if record.parent_id:
        fields["parent_id"] = record.parent_id
        fields["show_in_channel"] = digest[3] < 64
    _add_later_events(fields, record, digest, people)
    return fields


def _add_later_events(fields: dict[str, Any], record: Record, digest: bytes, people: People) -> None:
    """Set what happens to a message after it was sent: edited (3 %), deleted, pinned, translated, moderated."""
    later_us = record.at_us + 20 * SECOND_US + int.from_bytes(digest[24:28], "big") % (3 * HOUR_US)
    if digest[4] < 8:
        fields["updated_at"] = fields["message_text_updated_at"] = stamp(later_us)
    if digest[5] < 2:
        fields["pinned"] = True
        fields["pinned_at"] = stamp(later_us + 1)
        fields["pinned_by"] = people.known_user(_anyone(people.user_ids, digest))
        if digest[6] % 2:
            fields["pin_expires"] = stamp(later_us + 7 * DAY_US)
    if digest[7] < 2:
        fields["i18n"] = {"language": "en", "en_text": record.text, "nl_text": f"[nl] {record.text}"}
    elif digest[7] < 3:
        fields["moderation"] = {
            "action": "flag",
            "original_text": record.text,
            "text_harms": ["spam"],
            "platform_circumvented": False,
        }
    if is_deleted(digest):
        fields["type"] = "deleted"
        fields["deleted_at"] = fields["updated_at"] = stamp(later_us + HOUR_US)


def to_html(text: str) -> str:
    """Return a text as the service renders it: one paragraph, escaped; nothing for an empty text."""
    return f"<p>{html.escape(text, quote=False)}</p>\n" if text else ""


def attachments(text: str, digest: bytes) -> list[dict[str, Any]]:
    """Return one attachment per link in a text: image and video by ending or host, else a link."""
    if "://" not in text:
        return []
    return [_attachment(url, digest) for url in dict.fromkeys(_LINK.findall(text))]


def _attachment(url: str, digest: bytes) -> dict[str, Any]:
    path = url.partition("?")[0]
    host = path.split("/")[2]
    title = path.rstrip("/").rpartition("/")[2] or host
    fields: dict[str, Any] = {"title": title, "title_link": url, "og_scrape_url": url}
    ending = path.lower()
    if ending.endswith(_IMAGE_SUFFIXES):
        fields |= {"type": "image", "image_url": url, "fallback": title}
        fields |= {"original_width": 320 + digest[8] * 4, "original_height": 200 + digest[9] * 4}
    elif ending.endswith(_VIDEO_SUFFIXES) or host in _VIDEO_HOSTS or digest[8] < 8:
        # The service asks the page, and no address says what the page would answer: hence some videos by chance.
        fields |= {"type": "video", "asset_url": url, "thumb_url": f"{url}.jpg"}
    else:
        fields |= {"type": "link", "author_name": host, "text": f"A page at {host}"}
    scanned = {"file_size": digest[8] * 1024, "scan": {"clean": True, "engine": "clam"}}
    return fields | {"custom": scanned if digest[9] < 64 else {}}


def _mentions(text: str, people: People) -> list[dict[str, Any]]:
    """Return whom a message mentions: IRC names its addressee first ("name: ...").

    A hash maps a name to a user, always the same one.
    """
    addressee = _ADDRESSEE.match(text)
    if addressee is None or not people.user_ids:
        return []
    name = hashlib.blake2b(addressee[1].lower().encode(), digest_size=8, person=b"addressee").digest()
    return [people.known_user(people.user_ids[int.from_bytes(name, "big") % len(people.user_ids)])]


def plan_reactions(seed: str, digest: bytes, user_ids: Sequence[str]) -> list[PlannedReaction]:
    """Return who reacts to a message, oldest first.

    12 % of the messages get one to three reactions; one in thirty of those gets more than ten.
    """
    if digest[10] >= 31 or not user_ids:
        return []
    n_reactions = 11 + digest[12] % 16 if digest[11] < 8 else 1 + digest[11] % 3
    first = int.from_bytes(digest[12:20], "big")
    planned = []
    for number in range(min(n_reactions, len(user_ids))):
        # Neighbours in the sorted ids do not know each other, and no user comes twice.
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
    """Return all reactions to a message, oldest first."""
    return _reactions(record, plan_reactions(record.seed, seed_digest(record.seed), people.user_ids), people)


def _reactions(record: Record, planned: list[PlannedReaction], people: People) -> list[dict[str, Any]]:
    complete = []
    for reaction in planned:
        created_at = stamp(record.at_us + reaction.delay_us)
        complete.append(
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
    return complete


def reaction_summary(reactions: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what a message contains of its reactions: the newest ten, and counts of all by type.

    ``reaction_groups`` is null without reactions, as in a real export; ``own_reactions`` is empty for a server.

    :param reactions: oldest first.
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


def custom(digest: bytes) -> dict[str, Any]:
    """Return one to three custom fields: every JSON type, and names that break careless readers."""
    number = int.from_bytes(digest[20:24], "big")
    fields: dict[str, Any] = {}
    for which in digest[21 : 22 + digest[23] % 3]:
        fields |= _CUSTOM[which % len(_CUSTOM)](number)
    return fields


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


def _anyone(user_ids: Sequence[str], digest: bytes) -> str:
    return user_ids[int.from_bytes(digest[28:32], "big") % len(user_ids)]


def quotes(record: Record) -> bool:
    """Return whether a message quotes the one that it answers (about one in six)."""
    return seed_digest(record.seed)[28] < 40


def reactors(seed: str, user_ids: Sequence[str]) -> Iterator[str]:
    """Yield the users who react to records with this seed."""
    return (reaction.user_id for reaction in plan_reactions(seed, seed_digest(seed), user_ids))


def without_deleted_text(message: dict[str, Any]) -> dict[str, Any]:
    """Return the message without deleted text: its own, its translations, and that of the message that it quotes."""
    quoted = message.get("quoted_message")
    cleared = {**message, "quoted_message": without_deleted_text(quoted)} if quoted else message
    if message["type"] != "deleted":
        return cleared
    cleared = {name: value for name, value in cleared.items() if name != "i18n"}
    cleared |= {name: "" for name in ("text", "html", "mml") if name in cleared}
    if message.get("moderation"):
        cleared["moderation"] = {**message["moderation"], "original_text": ""}
    return cleared

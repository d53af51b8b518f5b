"""The suppression list: who is to stay out of the lake. One small file per person; the list only grows.

A file says nothing about the person but hashes of their id, of the id as texts write it, and of their names. They are
salted with a value that the lake holds. A reader of the lake who guesses an id or a name can check the guess, but
cannot read them from the list.

``checked`` says which loads contain no person on the list, although they were written before the list was as it is
now: the removal of a person searched them. A load that is not there, and whose record names another state of the list,
may have died before it could take a person out (``unchecked``). It also says who was on the list then (``missing``).

An entry that is damaged still keeps its person out, because its name is the hash of the id. Without the salt, loads
cannot recognise a person on the list, and stop.
"""

from __future__ import annotations

import hashlib
import logging
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

import orjson

from airflow_provider_chatexport.core.times import format_rfc3339
from airflow_provider_chatexport.errors import LakeError
from airflow_provider_chatexport.lake.privacy.matching import folded, word
from airflow_provider_chatexport.lake.schema import sql
from airflow_provider_chatexport.lake.storage.store import LakeStore

log = logging.getLogger(__name__)

FOLDER: Final = "_forgotten"
_SALT: Final = f"{FOLDER}/salt"
_CHECKED: Final = f"{FOLDER}/checked"
_VERSION: Final = 1
_ENTRY: Final = re.compile(rf"{FOLDER}/([0-9a-f]{{64}})\.json")
# Random bytes. They end with a part of their own digest, so that damage shows. Older ones do not.
_SALT_BYTES: Final = 32
_SALT_DIGEST_BYTES: Final = 8
# Damaged entries that a warning has named.
_NAMED: Final[set[str]] = set()


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedName:
    """A name on the list, as hashes. It is found by its first word.

    :param n_words: how many words it has.
    """

    first_word: str
    name: str
    n_words: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A person on the list, as hashes.

    :param user_id: of the id as it is.
    :param in_texts: of the id as texts may write it; None in entries of older versions.
    :param keep_messages: the person's messages stay as rows without author and text.
    :param any_word: texts lose names of one word, and the id even if it is an ordinary word.
    """

    user_id: str
    in_texts: str | None
    keep_messages: bool
    any_word: bool
    names: tuple[ListedName, ...]
    since: str

    def to_json(self) -> dict[str, Any]:
        """Return the entry as JSON types. Older versions read ``hash`` and ``keep_messages``, and nothing else."""
        return {
            "v": _VERSION,
            "hash": self.user_id,
            "keep_messages": self.keep_messages,
            "since": self.since,
            "in_texts": self.in_texts,
            "any_word": self.any_word,
            "names": [[name.first_word, name.name, name.n_words] for name in self.names],
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Entry:
        """Read an entry; older ones have a hash of the id, and nothing for texts."""
        names = [
            ListedName(first_word=first, name=name, n_words=n_words) for first, name, n_words in value.get("names", ())
        ]
        return cls(
            user_id=value["hash"],
            in_texts=value.get("in_texts"),
            keep_messages=bool(value["keep_messages"]),
            any_word=bool(value.get("any_word", False)),
            names=tuple(names),
            since=value.get("since", ""),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SuppressionList:
    """The list as it was when it was read.

    :param entries: by the hash of the id.
    """

    salt: bytes
    entries: dict[str, Entry]

    @property
    def digest(self) -> str:
        """Identifies this state of the list, and says nothing else; empty for an empty list."""
        if not self.entries:
            return ""
        parts = []
        for digest, entry in sorted(self.entries.items()):
            parts.append(f"{digest}{entry.keep_messages:d}")
            if entry.in_texts:
                parts.append(f"{entry.in_texts}{entry.any_word:d}{','.join(sorted(each.name for each in entry.names))}")
        return hashlib.sha256("".join(parts).encode()).hexdigest()[:16]

    def among(self, user_ids: Iterable[str]) -> dict[str, Entry]:
        """Return those of the ids that are on the list, each with its entry."""
        if not self.entries:
            return {}
        hashed = {user_id: _hash(self.salt, user_id) for user_id in user_ids}
        return {user_id: self.entries[digest] for user_id, digest in hashed.items() if digest in self.entries}

    def is_listed(self, text: str) -> str:
        """Return a condition in SQL: an expression is a user id on the list."""
        hashes = ", ".join(sql.quoted(digest) for digest in sorted(self.entries))
        return f"sha256(unhex('{self.salt.hex()}') || encode({text})) IN ({hashes})"

    def hash_of_word(self, text: str) -> str:
        """Return the hash of an id, a name or a word, as texts write it."""
        return _hash(self.salt, f"text:{folded(text)}")


def read(store: LakeStore) -> SuppressionList:
    """Read the list.

    :raises LakeError: the list cannot be read, or its salt is gone.
    """
    paths = store.list_folder(FOLDER, ".json")
    entries = {}
    for path in paths:
        try:
            entry = Entry.from_json(orjson.loads(store.read(path)))
        except (ValueError, KeyError, TypeError):
            entry = _known_by_name(store, path)
        entries[entry.user_id] = entry
    return SuppressionList(salt=_salt(store) if paths else b"", entries=entries)


def _known_by_name(store: LakeStore, path: str) -> Entry:
    """Return what the name of a damaged entry says: that the person is to stay out, and no more.

    :raises LakeError: it was never an entry.
    """
    match = _ENTRY.fullmatch(path)
    if match is None:
        raise LakeError(
            f"{store.url(path)} is not an entry of the suppression list; move it out of the lake", retryable=False
        )
    if store.url(path) not in _NAMED:
        _NAMED.add(store.url(path))
        log.warning(
            "%s is damaged. Loads leave the person's rows out, but not the id and the names in texts of others; "
            "restore it from a backup, or run forget-user again for the person",
            store.url(path),
        )
    return Entry(user_id=match.group(1), in_texts=None, keep_messages=False, any_word=False, names=(), since="")


def add(
    store: LakeStore,
    user_id: str,
    *,
    keep_messages: bool,
    now: datetime,
    any_word: bool = False,
    names: Iterable[str] = (),
) -> None:
    """Put a person on the list.

    A later call for the person can add names, set ``any_word`` and end ``keep_messages``. It takes nothing back.

    :param names: those that texts of later loads are to lose.
    :param now: aware.
    :raises LakeError: the lake cannot be written, or the list's salt is gone.
    """
    if not store.list_folder(FOLDER, ".json"):
        random = secrets.token_bytes(_SALT_BYTES)
        store.put_new(_SALT, random + _digest_of(random))
    listed = SuppressionList(salt=_salt(store), entries={})
    digest = _hash(listed.salt, user_id)
    added = Entry(
        user_id=digest,
        in_texts=listed.hash_of_word(user_id),
        keep_messages=keep_messages,
        any_word=any_word,
        names=tuple(_listed_names(listed, names)),
        since=format_rfc3339(now),
    )
    path = f"{FOLDER}/{digest}.json"
    if store.put_new(path, orjson.dumps(added.to_json())):
        return
    before = read(store).entries[digest]
    merged = replace(
        added,
        keep_messages=before.keep_messages and keep_messages,
        any_word=before.any_word or any_word,
        names=tuple(dict.fromkeys((*before.names, *added.names))),
        since=before.since or added.since,
    )
    if merged != before:
        store.replace(path, orjson.dumps(merged.to_json()))


def _listed_names(listed: SuppressionList, names: Iterable[str]) -> Iterable[ListedName]:
    for name in names:
        if words := word().findall(folded(name)):
            yield ListedName(
                first_word=listed.hash_of_word(words[0]),
                name=listed.hash_of_word(" ".join(words)),
                n_words=len(words),
            )


def unchecked(store: LakeStore, listed: SuppressionList, loads: Iterable[tuple[str, str]]) -> set[str]:
    """Return the loads that may contain people on the list: no removal has searched them since these were listed.

    :param loads: ids, each with the state of the list that the load was written under.
    :raises LakeError: the lake cannot be read.
    """
    if not listed.entries:
        return set()
    return {load_id for load_id, digest in loads if digest != listed.digest} - checked(store, listed.digest)


def mark_checked(store: LakeStore, listed: SuppressionList, loads: Iterable[str]) -> None:
    """Record which loads contain no person on the list, although they were written under another state of it.

    :param listed: the list that they were searched for.
    :raises LakeError: the lake cannot be written.
    """
    people = sorted(listed.entries.keys() | set(_checked_people(store)))
    value = {"v": _VERSION, "list": listed.digest, "loads": sorted(loads), "people": people}
    store.replace(_CHECKED, orjson.dumps(value))


def is_of_older_version(store: LakeStore, listed: SuppressionList) -> bool:
    """Return whether a version of this package that did not record searches wrote the list.

    :raises LakeError: the lake cannot be read.
    """
    return not store.exists(_CHECKED) and any(entry.in_texts is None for entry in listed.entries.values())


def checked(store: LakeStore, digest: str) -> set[str]:
    """Return the loads that were checked for a state of the list."""
    if not store.exists(_CHECKED):
        return set()
    try:
        value = orjson.loads(store.read(_CHECKED))
        return set(value["loads"]) if value["list"] == digest else set()
    except (ValueError, KeyError, TypeError):
        return set()  # it is written again after the next check


def missing(store: LakeStore, listed: SuppressionList) -> list[str]:
    """Return the addresses of entries that were on the list when loads were last searched, and are gone."""
    gone = (digest for digest in _checked_people(store) if digest not in listed.entries)
    return [store.url(f"{FOLDER}/{digest}.json") for digest in gone]


def _checked_people(store: LakeStore) -> list[str]:
    try:
        return list(orjson.loads(store.read(_CHECKED)).get("people", ())) if store.exists(_CHECKED) else []
    except (ValueError, TypeError, AttributeError):
        return []


def _salt(store: LakeStore) -> bytes:
    salt = store.read(_SALT) if store.exists(_SALT) else None
    if salt is not None and _is_whole(salt):
        return salt
    raise LakeError(
        f"{store.url(_SALT)} is {'gone' if salt is None else 'damaged'}, and without it no person on the suppression "
        f"list is recognised, so loads stop; restore it from a backup. Without one, move {store.url(FOLDER)} out of "
        "the lake, and run forget-user again for each person",
        retryable=False,
    )


def _is_whole(salt: bytes) -> bool:
    random, digest = salt[:_SALT_BYTES], salt[_SALT_BYTES:]
    return len(random) == _SALT_BYTES and digest in (b"", _digest_of(random))


def _digest_of(random: bytes) -> bytes:
    return hashlib.sha256(random).digest()[:_SALT_DIGEST_BYTES]


def _hash(salt: bytes, text: str) -> str:
    return hashlib.sha256(salt + text.encode()).hexdigest()

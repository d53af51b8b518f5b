"""The suppression list: who is to stay out of the lake. One small file per person; the list only grows.

A file says nothing about the person but a hash of their id, salted with a value that the lake holds. A reader of the
lake who guesses an id can check the guess, but cannot read ids from the list.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import orjson

from airflow_provider_chatexport.core.times import format_rfc3339
from airflow_provider_chatexport.errors import LakeError
from airflow_provider_chatexport.lake.schema import sql
from airflow_provider_chatexport.lake.storage.store import LakeStore

FOLDER: Final = "_forgotten"
_SALT: Final = f"{FOLDER}/salt"
_VERSION: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SuppressionList:
    """The list as it was when it was read.

    :param keep_messages: by hash, whether the person's messages stay as rows without author and text.
    """

    salt: bytes
    keep_messages: dict[str, bool]

    @property
    def digest(self) -> str:
        """Identifies this state of the list, and says nothing else; empty for an empty list."""
        if not self.keep_messages:
            return ""
        entries = "".join(f"{digest}{keep:d}" for digest, keep in sorted(self.keep_messages.items()))
        return hashlib.sha256(entries.encode()).hexdigest()[:16]

    def among(self, user_ids: Iterable[str]) -> dict[str, bool]:
        """Return those of the ids that are on the list, and whether their messages stay."""
        if not self.keep_messages:
            return {}
        hashed = {user_id: _hash(self.salt, user_id) for user_id in user_ids}
        return {
            user_id: self.keep_messages[digest] for user_id, digest in hashed.items() if digest in self.keep_messages
        }

    def is_listed(self, text: str) -> str:
        """Return a condition in SQL: an expression is a user id on the list."""
        hashes = ", ".join(sql.quoted(digest) for digest in sorted(self.keep_messages))
        return f"sha256(unhex('{self.salt.hex()}') || encode({text})) IN ({hashes})"


def read(store: LakeStore) -> SuppressionList:
    """Read the list.

    :raises LakeError: the list cannot be read.
    """
    paths = store.list_folder(FOLDER, ".json")
    keep_messages = {}
    for path in paths:
        try:
            value = orjson.loads(store.read(path))
            keep_messages[value["hash"]] = bool(value["keep_messages"])
        except (ValueError, KeyError, TypeError):
            raise LakeError(f"{store.url(path)} is not an entry of the list of forgotten people; restore it") from None
    return SuppressionList(salt=store.read(_SALT) if paths else b"", keep_messages=keep_messages)


def add(store: LakeStore, user_id: str, *, keep_messages: bool, now: datetime) -> None:
    """Put a person on the list. A second call for a person changes nothing, except that it can end ``keep_messages``.

    :param now: aware.
    :raises LakeError: the lake cannot be written.
    """
    if store.list_folder(FOLDER, ".json") and not store.exists(_SALT):
        raise LakeError(f"{store.url(_SALT)} is gone, and without it the list of forgotten people is void; restore it")
    store.put_new(_SALT, secrets.token_bytes(32))
    digest = _hash(store.read(_SALT), user_id)
    entry = {"v": _VERSION, "hash": digest, "keep_messages": keep_messages, "since": format_rfc3339(now)}
    path = f"{FOLDER}/{digest}.json"
    if not store.put_new(path, orjson.dumps(entry)) and not keep_messages:
        store.replace(path, orjson.dumps(entry))


def _hash(salt: bytes, user_id: str) -> str:
    return hashlib.sha256(salt + user_id.encode()).hexdigest()

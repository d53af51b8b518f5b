"""Keys that the registry does not read: found in a first pass over a file, so that a second can ask for each by name.

Reading one STRUCT of all keys is several times faster than stripping the known ones off every object. That remains for
files whose keys no STRUCT can hold: they differ by case only, they need escapes, or they are very many.

A STRUCT does not tell a key with null from one that is absent either: the first pass notes which objects have one.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from airflow_provider_chatexport.lake.rawjson import NO_JSON
from airflow_provider_chatexport.lake.sql import name, quoted
from airflow_provider_chatexport.lake.table import Table

MAX_KEYS: Final = 200
# Each key of an object is looked for in its text: longer objects would take their time.
MAX_OBJECT_BYTES: Final = 1_000_000

SUMMARY: Final = f"SELECT key, count(null_in) FROM custom_keys GROUP BY key ORDER BY key LIMIT {MAX_KEYS + 1}"
NULLS: Final = (
    "CREATE OR REPLACE TEMP TABLE custom_nulls AS SELECT null_in, "
    "string_agg('\"' || key || '\":null', ',' ORDER BY key) AS nulls FROM custom_keys "
    "WHERE null_in IS NOT NULL GROUP BY null_in"
)


def doubtful(data: str) -> str:
    """A condition on an object's text: it may not be JSON, though the database reads it."""
    return " OR ".join(f"contains({data}, {quoted(word.decode())})" for word in NO_JSON)


def find(table: Table, objects: str, identity: str) -> str:
    """A statement that makes ``custom_keys``: the keys that the table does not read, and in which objects one is null.

    :param objects: a query for ``data``, the objects as JSON.
    :param identity: what tells them apart.
    """
    known = ", ".join(quoted(key) for key in table.known_keys)
    pointer = "'/' || replace(replace(key, '~', '~0'), '/', '~1')"
    # An object of very many keys, a very long or a doubtful one has the empty key, which no STRUCT can hold either.
    too_much = (
        f"len(keys) > {len(table.known_keys) + MAX_KEYS} OR strlen(data) > {MAX_OBJECT_BYTES} OR {doubtful('data')}"
    )
    return (
        "CREATE OR REPLACE TEMP TABLE custom_keys AS SELECT key, CASE WHEN contains(data, '\"' || key || '\":null') "
        f"AND json_type(data, {pointer}) = 'NULL' THEN {identity} END AS null_in FROM (SELECT *, "
        f"unnest(CASE WHEN {too_much} THEN [''] ELSE keys END) AS key FROM (SELECT *, json_keys(data) AS keys "
        f"FROM ({objects}))) WHERE key NOT IN ({known}) GROUP BY ALL"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomKeys:
    """The keys that the objects of a file have beside those that the registry reads."""

    names: tuple[str, ...]
    with_null: bool

    @classmethod
    def of(cls, table: Table, found: Sequence[tuple[str, int]]) -> Self | None:
        """What the summary says; None where a STRUCT cannot hold it."""
        names = tuple(key for key, _ in found)
        spellings = Counter(key.casefold() for key in (*table.known_keys, *names))
        odd = any(not key or json.dumps(key, ensure_ascii=False) != f'"{key}"' for key in names)
        if odd or max(spellings.values()) > 1 or len(names) > MAX_KEYS:
            return None
        return cls(names=names, with_null=any(n_nulls for _, n_nulls in found))

    @property
    def joined(self) -> str:
        """The JSON object of those keys that an object ``d`` has; null where it has none. ``nulls``: its keys with
        null, as the members of an object."""
        if not self.names:
            return "NULL::JSON"
        parts = [quoted(f'"{key}":') + f" || d.{name(key)}" for key in self.names]
        members = ", ".join(["nulls", *parts] if self.with_null else parts)
        return f"('{{' || nullif(concat_ws(',', {members}), '') || '}}')::JSON"


def joined(flat: dict[str, Any], nested: dict[str, Any]) -> str:
    """Both sets of keys in one object; where they contradict each other, the flat one, and all of the nested ones
    once more under ``custom``."""
    both = nested | flat
    if any(nested[key] != flat[key] for key in nested.keys() & flat.keys()):
        both["custom"] = nested
    return json.dumps(both, ensure_ascii=False, separators=(",", ":"))

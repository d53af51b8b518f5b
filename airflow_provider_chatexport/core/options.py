"""The options of a load, the same for the load operator, the command line, ``Lake`` and ``pipeline``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final

from airflow_provider_chatexport.errors import CallError

MAX_LINE_BYTES: Final = 16 * 1024 * 1024
# The types of promoted columns: names that users may write, and DuckDB's name for each.
PROMOTED_TYPES: Final[Mapping[str, str]] = {
    "VARCHAR": "VARCHAR",
    "BIGINT": "BIGINT",
    "DOUBLE": "DOUBLE",
    "BOOLEAN": "BOOLEAN",
    "DATE": "DATE",
    "TIMESTAMPTZ": "TIMESTAMP WITH TIME ZONE",
    "TIMESTAMP WITH TIME ZONE": "TIMESTAMP WITH TIME ZONE",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """What one load allows, and how it writes rows.

    :param max_rejected: how many rejects a committed load may have: a count (int), or a share of its lines (float, 0 to
        1); None for any number. ``strict`` is 0.
    :param accept_shrink: commit a load even if it has no message of a channel that has messages in the lake.
    :param keep_superseded: keep the messages of this load for ``messages_history`` after newer exports supersede them.
    :param promote: table -> key of ``custom`` -> type of an additional column with the key's value, such as
        ``{"messages": {"priority": "BIGINT"}}``.
    :param max_line_bytes: longer lines, and longer objects of an array, are rejects.
    :param max_unpacked_bytes: refuse a gzip file that unpacks to more; None for 200 times its size and at least 1 GB.
    :param hash_users: write pseudonyms in place of user ids, and leave out values that describe a person.
    :param pseudonym_key: the secret that pseudonyms are computed with; use the same one in every load.
    :param drop_text: leave out everything that people wrote.
    :raises CallError: a value is out of range, a type is not one of ``PROMOTED_TYPES``, or ``hash_users`` has no key.
    """

    max_rejected: int | float | None = None
    accept_shrink: bool = False
    keep_superseded: bool = False
    promote: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    max_line_bytes: int = MAX_LINE_BYTES
    max_unpacked_bytes: int | None = None
    hash_users: bool = False
    pseudonym_key: str | None = field(default=None, repr=False)
    drop_text: bool = False

    def __post_init__(self) -> None:
        limit = self.max_rejected
        is_share = isinstance(limit, float) and 0 <= limit <= 1
        if limit is not None and not is_share and not _is_whole(limit, least=0):
            raise CallError(
                f"max_rejected is {_shown(limit)}; give a count (0, 10, ...), or a share of the lines (0.0 to 1.0)",
                argument="max_rejected",
            )
        for name, size in (("max_line_bytes", self.max_line_bytes), ("max_unpacked_bytes", self.max_unpacked_bytes)):
            if not (_is_whole(size, least=1) or (size is None and name == "max_unpacked_bytes")):
                raise CallError(f"{name} is {_shown(size)}; give a number of bytes above 0", argument=name)
        object.__setattr__(self, "promote", _canonical(self.promote))
        if self.hash_users and not self.pseudonym_key:
            raise CallError(
                "hash_users needs a secret for pseudonyms, and there is none; set pseudonym_key in the extra of the "
                "connection (operators), or the variable CHATEXPORT_PSEUDONYM_KEY (command line)",
                argument="hash_users",
            )

    @property
    def changes_personal_data(self) -> bool:
        """Whether the load removes personal data before it writes."""
        return self.hash_users or self.drop_text

    def row_options(self) -> dict[str, Any]:
        """Return the options that decide how rows are written and that differ from the defaults, as JSON types."""
        default = LoadOptions()
        names = ("keep_superseded", "promote", "max_line_bytes", "hash_users", "drop_text")
        return {name: getattr(self, name) for name in names if getattr(self, name) != getattr(default, name)}

    @property
    def allowed_rejects(self) -> str:
        """``max_rejected`` for a sentence: ``10``, ``5 %``, ``any number``."""
        limit = self.max_rejected
        if limit is None:
            return "any number"
        return f"{limit * 100:.6g} %" if isinstance(limit, float) else str(limit)

    def allows(self, *, rejected: int, lines: int) -> bool:
        """Return whether a load with this number of rejects may be committed."""
        if self.max_rejected is None:
            return True
        if isinstance(self.max_rejected, float):
            # Exactly as written: 0.29 as a float, times 100, is less than 29.
            return rejected <= Fraction(str(self.max_rejected)) * lines
        return rejected <= self.max_rejected


def parse_promote(texts: Iterable[str]) -> dict[str, dict[str, str]]:
    """Parse texts such as ``messages.priority=BIGINT`` into ``promote``.

    :raises CallError: a text has another form, or a key has two types.
    """
    promote: dict[str, dict[str, str]] = {}
    for text in texts:
        place, _, kind = text.rpartition("=")
        table, _, key = place.partition(".")
        if not (table and key and kind):
            raise CallError(f"{text[:80]!r} promotes nothing; write TABLE.KEY=TYPE, such as messages.priority=BIGINT")
        if promote.setdefault(table, {}).setdefault(key, kind) != kind:
            raise CallError(
                f"{table}.{key} is promoted twice, to {promote[table][key]} and to {kind[:40]}; name one type"
            )
    return promote


def _is_whole(value: object, *, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _shown(value: object) -> str:
    return repr(value)[:40]


def _canonical(promote: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    if not isinstance(promote, Mapping) or not all(isinstance(columns, Mapping) for columns in promote.values()):
        raise CallError(f'promote is {_shown(promote)}; write {{"messages": {{"priority": "BIGINT"}}}}')
    for table, columns in promote.items():
        for key, kind in columns.items():
            if not key or not isinstance(kind, str) or kind.upper() not in PROMOTED_TYPES:
                raise CallError(
                    f"{table}.{key} cannot be promoted to {_shown(kind)}; types are {', '.join(PROMOTED_TYPES)}"
                )
    return {
        table: {key: PROMOTED_TYPES[kind.upper()] for key, kind in columns.items()}
        for table, columns in promote.items()
        if columns
    }

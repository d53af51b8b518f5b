"""The options of a load, the same for the load operator, the command line, ``Lake`` and ``pipeline``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final

from airflow_provider_chatexport.core.arguments import is_whole
from airflow_provider_chatexport.core.retention import Retention, RetentionArgument, parse_retention
from airflow_provider_chatexport.errors import CallError

MAX_LINE_BYTES: Final = 16 * 1024 * 1024
# A file of which more is rejected is most likely not an export, or one of a shape that this version does not know.
MAX_REJECTED: Final = 0.5
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

    :param max_rejected: how many rejects a committed load may have: a count (int), or a share of its lines and of the
        objects in them (float, 0 to 1); None for any number. ``strict`` is 0.
    :param max_vanished: how many messages may vanish from the lake because a committed load covers them and does not
        contain them: a count (int), or a share of the messages that the lake shows where the load covers (float, 0 to
        1); None for any number.
    :param retention: how long the service keeps messages, by the app's retention policies: a duration such as ``30d``
        or a timedelta, or ``service`` for what the service said when the export was submitted. The load then claims
        nothing about older messages, and the lake keeps those that it has. None if the app has no policy.
    :param accept_shrink: commit a load even if it has no message of a channel that has messages in the lake.
    :param keep_superseded: keep the messages of this load for ``messages_history`` after newer exports supersede them.
    :param promote: table -> key of ``custom`` -> type of an additional column with the key's value, such as
        ``{"messages": {"priority": "BIGINT"}}``.
    :param max_line_bytes: longer lines, and longer objects of an array, are rejects.
    :param max_unpacked_bytes: refuse a gzip file that unpacks to more; None for 200 times its size and at least 1 GB.
    :param hash_users: write pseudonyms in place of user ids, and leave out values that describe a person.
    :param pseudonym_key: the secret that pseudonyms are computed with; use the same one in every load.
    :param drop_text: leave out everything that people wrote.
    :param auto_compact: after the commit, merge some of the small files that earlier loads have left behind.
    :raises CallError: a value is out of range, a type is not one of ``PROMOTED_TYPES``, or ``hash_users`` has no key.
    """

    max_rejected: int | float | None = MAX_REJECTED
    max_vanished: int | float | None = None
    retention: RetentionArgument = None
    accept_shrink: bool = False
    keep_superseded: bool = False
    promote: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    max_line_bytes: int = MAX_LINE_BYTES
    max_unpacked_bytes: int | None = None
    hash_users: bool = False
    pseudonym_key: str | None = field(default=None, repr=False)
    drop_text: bool = False
    auto_compact: bool = True

    def __post_init__(self) -> None:
        limits = (("max_rejected", self.max_rejected, "lines"), ("max_vanished", self.max_vanished, "messages"))
        for name, limit, whole in limits:
            if not _is_limit(limit):
                raise CallError(
                    f"{name} is {_shown(limit)}; give a count (0, 10, ...), or a share of the {whole} (0.0 to 1.0)",
                    argument=name,
                )
        for name, size in (("max_line_bytes", self.max_line_bytes), ("max_unpacked_bytes", self.max_unpacked_bytes)):
            if not (is_whole(size, least=1) or (size is None and name == "max_unpacked_bytes")):
                raise CallError(f"{name} is {_shown(size)}; give a number of bytes above 0", argument=name)
        object.__setattr__(self, "retention", parse_retention(self.retention))
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
        names = ("keep_superseded", "promote", "max_line_bytes", "hash_users", "drop_text", "retention")
        values = {name: getattr(self, name) for name in names if getattr(self, name) != getattr(default, name)}
        return {name: value.to_json() if isinstance(value, Retention) else value for name, value in values.items()}

    @property
    def allowed_rejects(self) -> str:
        """``max_rejected`` for a sentence: ``10``, ``5 %``, ``any number``."""
        return _in_words(self.max_rejected)

    @property
    def allowed_vanished(self) -> str:
        """``max_vanished`` for a sentence."""
        return _in_words(self.max_vanished)

    def allows(self, *, rejected: int, decoded: int) -> bool:
        """Return whether a load with this number of rejects may be committed.

        :param decoded: how many objects its lines have, and lines without an object.
        """
        return _is_within(self.max_rejected, rejected, decoded)

    def allows_vanished(self, *, vanished: int, shown: int) -> bool:
        """Return whether a load may be committed that takes away so many of the messages that the lake shows."""
        return _is_within(self.max_vanished, vanished, shown)


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


def _is_limit(value: object) -> bool:
    is_share = isinstance(value, float) and 0 <= value <= 1
    return value is None or is_share or is_whole(value, least=0)


def _is_within(limit: int | float | None, number: int, whole: int) -> bool:
    if isinstance(limit, float):
        # Exactly as written: 0.29 as a float, times 100, is less than 29.
        return number <= Fraction(str(limit)) * whole
    return limit is None or number <= limit


def _in_words(limit: int | float | None) -> str:
    if limit is None:
        return "any number"
    return f"{limit * 100:.6g} %" if isinstance(limit, float) else str(limit)


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

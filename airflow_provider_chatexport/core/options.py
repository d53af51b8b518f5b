"""How exports are loaded: what the load operator, the command line and ``pipeline`` take alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final

from airflow_provider_chatexport.errors import CallError

MAX_LINE_BYTES: Final = 16 * 1024 * 1024
# What a custom field may be promoted to: DuckDB's names, and ours for them.
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
    """What one load allows and does.

    :param max_rejected: how many rejects a load may have and still be committed: a count (int), or a share of its
        lines (float, 0 to 1); None for any number. ``strict`` is 0.
    :param accept_shrink: commit a load even if it has no message of a channel where the lake shows some.
    :param keep_superseded: keep the messages of this load for ``messages_history`` when newer exports supersede it.
    :param promote: by table and key of ``custom``, the type of a column that has the key's value beside ``custom``:
        ``{"messages": {"priority": "BIGINT"}}``.
    :param max_line_bytes: longer lines, and longer objects of an array, are rejects.
    :param max_unpacked_bytes: a packed file that unpacks to more is refused; None for 200 times its size, and at
        least 1 GB.
    :param hash_users: user ids become pseudonyms, and what describes a person does not land in the lake.
    :param pseudonym_key: the secret that pseudonyms are made with; the same one in every load.
    :param drop_text: what people wrote does not land in the lake.
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
                f"max_rejected is {_shown(limit)}; give a count (0, 10, ...) or a share of the lines (0.0 to 1.0)"
            )
        for name, size in (("max_line_bytes", self.max_line_bytes), ("max_unpacked_bytes", self.max_unpacked_bytes)):
            if not (_is_whole(size, least=1) or (size is None and name == "max_unpacked_bytes")):
                raise CallError(f"{name} is {_shown(size)}; give a number of bytes above 0")
        object.__setattr__(self, "promote", _canonical(self.promote))

        if self.hash_users and not self.pseudonym_key:
            raise CallError(
                "hash_users needs a secret to make pseudonyms with: operators take it from pseudonym_key in the extra "
                "of their connection, the command line from CHATEXPORT_PSEUDONYM_KEY; set it there"
            )

    @property
    def changes_personal_data(self) -> bool:
        """Whether personal data is taken out before anything is written."""
        return self.hash_users or self.drop_text

    def shaping(self) -> dict[str, Any]:
        """Those that say how rows are written, where they are not the usual ones; JSON types."""
        usual = LoadOptions()
        names = ("keep_superseded", "promote", "max_line_bytes", "hash_users", "drop_text")
        return {name: getattr(self, name) for name in names if getattr(self, name) != getattr(usual, name)}

    @property
    def allowed(self) -> str:
        """How many rejects may be, as people say it: ``10``, ``5 %``, ``any number``."""
        limit = self.max_rejected
        if limit is None:
            return "any number"
        return f"{limit * 100:.6g} %" if isinstance(limit, float) else str(limit)

    def allows(self, *, rejected: int, lines: int) -> bool:
        """Whether a load with so many rejects may be committed."""
        if self.max_rejected is None:
            return True
        if isinstance(self.max_rejected, float):
            # As it is written: the float next to 0.29, times 100, is less than 29.
            return rejected <= Fraction(str(self.max_rejected)) * lines
        return rejected <= self.max_rejected


def parse_promote(texts: Iterable[str]) -> dict[str, dict[str, str]]:
    """``messages.priority=BIGINT``, any number of them, as ``promote``.

    :raises CallError: one is not of this form.
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

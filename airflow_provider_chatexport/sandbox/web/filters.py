"""The filter language of QueryChannels: from a JSON object to a predicate over channels.

Operators are those of the service's API description. A plain value is ``$eq``. Several fields, and several operators of
one field, must all hold. A field that the schema does not know is a custom field.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cached_property, lru_cache
from typing import Any, Final

from airflow_provider_chatexport.core.times import EPOCH, parse_instant
from airflow_provider_chatexport.sandbox.chat.world import World
from airflow_provider_chatexport.sandbox.web.responses import ApiError, input_error

TIME_FIELDS: Final = frozenset({"created_at", "updated_at", "last_message_at", "last_updated"})
SCHEMA_FIELDS: Final = frozenset(
    {"cid", "id", "type", "team", "frozen", "disabled", "member_count", "message_count", "filter_tags"} | TIME_FIELDS
)
# What a user did with a channel. No user of the sandbox did any of it.
FLAGS_OF_A_USER: Final = frozenset(
    {"hidden", "muted", "archived", "pinned", "blocked", "joined", "has_unread", "app_banned"}
)
_DISTINCT: Final = "!members-"  # how the id of a channel begins that exists for its members

# A search through thousands of channels reads the same times for each page of 30.
_instant: Final = lru_cache(maxsize=1 << 16)(parse_instant)


class Candidate:
    """A channel that a filter may match. What costs time is looked up on first use."""

    def __init__(self, world: World, cid: str) -> None:
        self._world = world
        self.cid = cid

    @cached_property
    def channel(self) -> dict[str, Any]:
        """The complete channel object."""
        channel = self._world.channel(self.cid)
        if channel is None:
            raise LookupError(f"the world lists a channel that it does not have: {self.cid}")
        return channel

    @cached_property
    def members(self) -> list[dict[str, Any]]:
        """The complete member objects."""
        return self._world.members(self.cid)

    def value(self, field: str) -> Any:
        """Return a field's value: a datetime for times, a list for fields of members, None if it is missing."""
        if field in _COMPUTED:
            return _COMPUTED[field](self)
        if field in TIME_FIELDS:
            return _instant(self.channel.get(field))
        if field in FLAGS_OF_A_USER:
            return False
        if field in SCHEMA_FIELDS:
            return self.channel.get(field)
        return (self.channel.get("custom") or {}).get(field, self.channel.get(field))

    def sort_key(self, field: str) -> tuple[int, Any]:
        """Return a key that orders values of one type, and channels without the field first."""
        match self.value(field):
            case None:
                return (0, 0)
            case bool() | int() | float() as number:
                return (1, number)
            case datetime() as moment:
                return (2, moment - EPOCH)
            case str() as text:
                return (3, text)
            case other:
                return (4, str(other))


# Fields that the channel's object does not have.
_COMPUTED: Final[dict[str, Callable[[Candidate], Any]]] = {
    "members": lambda candidate: [member["user_id"] for member in candidate.members],
    "member.user.name": lambda candidate: [member["user"].get("name") for member in candidate.members],
    "channel_role": lambda candidate: [member["channel_role"] for member in candidate.members],
    "created_by_id": lambda candidate: (candidate.channel.get("created_by") or {}).get("id"),
    "distinct": lambda candidate: candidate.channel["id"].startswith(_DISTINCT),
    "last_updated": lambda candidate: _instant(
        candidate.channel.get("last_message_at") or candidate.channel.get("created_at")
    ),
}

Predicate = Callable[[Candidate], bool]


def compile_filter(conditions: Mapping[str, Any], *, path: str = "filter_conditions") -> Predicate:
    """Return a predicate for channels that match all conditions; an empty object matches every channel.

    :raises ApiError: 400, for an operator that does not exist, or a value of the wrong type.
    """
    parts = [_compile_condition(name, value, f"{path}.{name}") for name, value in conditions.items()]
    return lambda candidate: all(part(candidate) for part in parts)


def _compile_condition(name: str, value: Any, path: str) -> Predicate:
    if name in ("$and", "$or", "$nor"):
        return _compile_branches(name, value, path)
    if name.startswith("$"):
        raise input_error(f"{name} is not an operator between conditions; use $and, $or or $nor", field=path)
    operators = value if _is_operators(value) else {"$eq": value}
    tests = [_compile_test(name, operator, operand, path) for operator, operand in operators.items()]
    return lambda candidate: all(test(candidate.value(name)) for test in tests)


def _compile_branches(name: str, value: Any, path: str) -> Predicate:
    if not isinstance(value, list) or not value or not all(isinstance(branch, dict) for branch in value):
        raise input_error(f"{path} must be a list of conditions that is not empty", field=path)
    branches = [compile_filter(branch, path=f"{path}[{index}]") for index, branch in enumerate(value)]
    match name:
        case "$and":
            return lambda candidate: all(branch(candidate) for branch in branches)
        case "$or":
            return lambda candidate: any(branch(candidate) for branch in branches)
        case _:
            return lambda candidate: not any(branch(candidate) for branch in branches)


def _is_operators(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(key.startswith("$") for key in value)


def _compile_test(name: str, operator: str, operand: Any, path: str) -> Callable[[Any], bool]:
    """Return a test of one field's value."""
    if operator == "$exists":
        if not isinstance(operand, bool):
            raise _bad_operand(path, operator, "a boolean")
        return lambda value: (value is not None) is operand
    if operator == "$in":
        if not isinstance(operand, list):
            raise _bad_operand(path, operator, "a list")
        wanted = [_operand(name, item, path) for item in operand]
        return lambda value: any(_equal(item, each) for item in _each(value) for each in wanted)
    wanted_one = _operand(name, operand, path)
    match operator:
        case "$eq":
            return lambda value: _equal(value, wanted_one)
        case "$contains":
            return lambda value: isinstance(value, list) and any(_equal(item, wanted_one) for item in value)
        case "$autocomplete" | "$q":
            if not isinstance(wanted_one, str) or not wanted_one:
                raise _bad_operand(path, operator, "a string that is not empty")
            return lambda value: any(isinstance(item, str) and _word_begins(item, wanted_one) for item in _each(value))
        case "$gt" | "$gte" | "$lt" | "$lte":
            if isinstance(wanted_one, (list, dict)) or wanted_one is None:
                raise _bad_operand(path, operator, "a single value")
            return lambda value: _compares(operator, value, wanted_one)
        case _:
            raise input_error(f"operator {operator} is not supported for field {name}", field=path)


def _operand(name: str, operand: Any, path: str) -> Any:
    if name not in TIME_FIELDS:
        return operand
    try:
        if isinstance(operand, (dict, list)):
            raise TypeError(name)
        return parse_instant(operand)
    except (TypeError, ValueError, OverflowError):
        raise input_error(f"{path} must be an RFC3339 time with an offset", field=path) from None


def _each(value: Any) -> list[Any]:
    """Return the values that ``$in`` compares: any item of a list may match (members, tags, custom lists)."""
    return value if isinstance(value, list) else [value]


def _equal(value: Any, wanted: Any) -> bool:
    if isinstance(value, list) and not isinstance(wanted, list):
        return any(_equal(item, wanted) for item in value)
    if isinstance(value, list):
        return sorted(map(str, value)) == sorted(map(str, wanted))
    # In JSON true is not 1; in Python they are equal.
    return bool(value == wanted) and isinstance(value, bool) is isinstance(wanted, bool)


def _compares(operator: str, value: Any, wanted: Any) -> bool:
    try:
        match operator:
            case "$gt":
                return bool(value > wanted)
            case "$gte":
                return bool(value >= wanted)
            case "$lt":
                return bool(value < wanted)
            case _:
                return bool(value <= wanted)
    except TypeError:
        # Values of different types have no order: such a channel does not match.
        return False


def _word_begins(text: str, prefix: str) -> bool:
    lowered, wanted = text.lower(), prefix.lower()
    return lowered.startswith(wanted) or f" {wanted}" in lowered


def _bad_operand(path: str, operator: str, wanted: str) -> ApiError:
    return input_error(f"{path}: {operator} takes {wanted}", field=path)

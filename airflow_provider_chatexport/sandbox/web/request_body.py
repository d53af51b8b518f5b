"""Reads a JSON body field by field, and refuses what is wrong with the field's name (400, code 4).

Not ``msgspec.convert``, as for control calls: the service's wording of these errors is known, and tests hold it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, TypeVar

import orjson

from airflow_provider_chatexport.core.times import parse_instant
from airflow_provider_chatexport.sandbox.web.responses import ApiCode, ApiError, input_error

MAX_BODY_BYTES: Final = 2 * 1024 * 1024

_T = TypeVar("_T")


class RequestBody:
    """An object of a request body. A null counts as absent, because official SDKs send nulls for unset fields."""

    def __init__(self, values: Mapping[str, Any], *, path: str = "") -> None:
        self._values = values
        self._path = path

    @classmethod
    def parse(cls, body: bytes) -> RequestBody:
        """Return the body of a request.

        :raises ApiError: it is not a JSON object, or is too big.
        """
        if len(body) > MAX_BODY_BYTES:
            raise ApiError(413, ApiCode.PAYLOAD_TOO_BIG, f"the request body is over {MAX_BODY_BYTES} bytes")
        try:
            values = parse_json(body)
        except ValueError:
            raise input_error("the request body is not valid JSON", field="body") from None
        if not isinstance(values, dict):
            raise input_error(f"the request body must be an object, not {_kind(values)}", field="body")
        return cls(values)

    def has(self, name: str) -> bool:
        """Return whether the field is present and not null."""
        return self._values.get(name) is not None

    def name_of(self, name: str) -> str:
        """Return the field's name for an error: ``channels[2].cid``."""
        return f"{self._path}{name}"

    def text(self, name: str) -> str | None:
        """Return a string."""
        return self._typed(name, str, "string")

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Return a boolean."""
        value = self._typed(name, bool, "boolean")
        return default if value is None else value

    def items(self, name: str) -> list[Any] | None:
        """Return a list."""
        return self._typed(name, list, "list")

    def mapping(self, name: str) -> dict[str, Any] | None:
        """Return an object."""
        return self._typed(name, dict, "object")

    def whole(self, name: str, *, default: int, low: int, high: int | None = None) -> int:
        """Return an integer from ``low`` to ``high``."""
        value = self._values.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._mistyped(name, "integer", value)
        if value < low or (high is not None and value > high):
            span = f"at least {low}" if high is None else f"from {low} to {high}"
            raise input_error(f"{self.name_of(name)} must be {span}, not {value}", field=self.name_of(name))
        return value

    def texts(self, name: str) -> list[str]:
        """Return a list of at least one string; no string is empty."""
        items = self.required_items(name)
        for item in items:
            if not isinstance(item, str) or not item:
                raise input_error(
                    f"{self.name_of(name)} must hold strings that are not empty, not {_kind(item)}",
                    field=self.name_of(name),
                )
        return items

    def required_items(self, name: str) -> list[Any]:
        """Return a list of at least one item."""
        items = self.items(name)
        if not items:
            raise input_error(
                f"{self.name_of(name)} is a required field and must contain at least 1 item", field=self.name_of(name)
            )
        return items

    def time(self, name: str) -> datetime | None:
        """Return a time: an RFC3339 string with an offset, or unix nanoseconds.

        Both families accept both, because official SDKs mix them.
        """
        value = self._values.get(name)
        try:
            if isinstance(value, (dict, list)):
                raise TypeError(name)
            return parse_instant(value)
        except (TypeError, ValueError, OverflowError):
            raise input_error(
                f"{self.name_of(name)} must be an RFC3339 time with an offset, such as 2026-01-01T00:00:00Z",
                field=self.name_of(name),
            ) from None

    def _typed(self, name: str, kind: type[_T], kind_name: str) -> _T | None:
        value = self._values.get(name)
        if value is None or isinstance(value, kind):
            return value
        raise self._mistyped(name, kind_name, value)

    def _mistyped(self, name: str, wanted: str, value: object) -> ApiError:
        path = self.name_of(name)
        return input_error(f"expected {wanted} for field {path} but got {_kind(value)}", field=path)


def parse_json(body: bytes) -> Any:
    """Return JSON as Python values, with exact integers of any size.

    :raises ValueError: it is not JSON.
    """
    # orjson is strict about encoding, depth and NaN, but makes integers past 64 bits floats. json does the reverse.
    orjson.loads(body)
    try:
        return json.loads(body)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def objects(items: list[Any], *, path: str) -> list[RequestBody]:
    """Return the items of a list, which must be objects."""
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            where = f"{path}[{index}]"
            raise input_error(f"expected object for field {where} but got {_kind(item)}", field=where)
    return [RequestBody(item, path=f"{path}[{index}].") for index, item in enumerate(items)]


def _kind(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case str():
            return "string"
        case int() | float():
            return "number"
        case list():
            return "list"
        case _:
            return "object"

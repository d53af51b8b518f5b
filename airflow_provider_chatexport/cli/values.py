"""Types of values on the command line."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
from typing import Any, Final

import click

from airflow_provider_chatexport.core.arguments import DURATION_EXAMPLES, parse_duration_text
from airflow_provider_chatexport.core.discovery import ChannelQuery
from airflow_provider_chatexport.core.retention import RetentionOption, parse_retention
from airflow_provider_chatexport.core.window import parse_moment
from airflow_provider_chatexport.errors import CallError, ChatExportError

LONGEST: Final = timedelta(days=36_525)


class Duration(click.ParamType):  # type: ignore[type-arg] # a generic since click 8.4
    """A duration: ``90s``, ``15m``, ``36h``, ``7d``."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Return the duration."""
        duration = value if isinstance(value, timedelta) else parse_duration_text(str(value))
        if duration is None:
            self.fail(f"{value!r} is not a duration; write {DURATION_EXAMPLES}", param, ctx)
        if duration > LONGEST:
            self.fail(f"{value!r} is longer than a century; write a shorter one", param, ctx)
        return duration


class Limit(click.ParamType):  # type: ignore[type-arg] # a generic since click 8.4
    """A count such as ``10``, or a share such as ``0.5%``."""

    name = "count or share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | float:
        """Return a count as an int, and a share as a float."""
        match = re.fullmatch(r"(\d+)|(\d+(?:\.\d+)?)%", str(value).strip())
        if match is None:
            self.fail(f"{value!r} is neither a count nor a share; write 10 or 0.5%", param, ctx)
        return int(match.group(1)) if match.group(1) else float(match.group(2)) / 100


class RetentionType(click.ParamType):  # type: ignore[type-arg] # a generic since click 8.4
    """How long the service keeps messages: a duration, or ``service`` to ask it."""

    name = "duration or service"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> RetentionOption:
        """Return the retention."""
        try:
            return parse_retention(value)
        except CallError as error:
            self.fail(error.message, param, ctx)


class Moment(click.ParamType):  # type: ignore[type-arg] # a generic since click 8.4
    """A time: ISO 8601 with an offset. A date alone is its UTC midnight."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return the time in UTC."""
        try:
            return parse_moment(value, (param.name if param else None) or "the time")
        except ChatExportError as error:
            self.fail(error.message, param, ctx)


class Query(click.ParamType):  # type: ignore[type-arg] # a generic since click 8.4
    """A query for channels: the service's filter conditions, as a JSON object."""

    name = "JSON"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> ChannelQuery:
        """Return the query."""
        if isinstance(value, ChannelQuery):
            return value
        try:
            conditions = json.loads(value)
        except ValueError:
            conditions = None
        if not isinstance(conditions, dict):
            self.fail('the filter conditions are not a JSON object; write \'{"type": "team"}\'', param, ctx)
        return ChannelQuery(filter_conditions=conditions)

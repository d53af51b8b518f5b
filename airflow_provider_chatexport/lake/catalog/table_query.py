"""One view of the catalog, narrowed to channels and a window, as a query that reads only the files it needs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from airflow_provider_chatexport.core.plan import parse_cids
from airflow_provider_chatexport.core.times import EARLIEST, LATEST
from airflow_provider_chatexport.core.window import Moment, Window
from airflow_provider_chatexport.errors import CallError
from airflow_provider_chatexport.lake.catalog import history_view, metadata_views
from airflow_provider_chatexport.lake.schema import sql
from airflow_provider_chatexport.lake.schema.tables import MESSAGES, TABLES
from airflow_provider_chatexport.lake.schema.types import Placement, Table


@dataclass(frozen=True, slots=True, kw_only=True)
class _View:
    """What a view can be narrowed by.

    :param time: the column of its time; None where it has none.
    :param day: the column of its day, which is the UTC day of ``time``.
    """

    name: str
    has_channels: bool
    time: str | None = None
    day: str | None = None


def _view_of(table: Table, name: str) -> _View:
    has_channels = any(column.name == "cid" for column in table)
    if table.placement is Placement.SNAPSHOT:  # the newest state of something, which is of no time
        return _View(name=name, has_channels=has_channels)
    time = table.day_column if table.placement is Placement.EVENT else "_exported_at"
    return _View(name=name, has_channels=has_channels, time=time, day=table.date_column)


_VIEWS: Final = {
    view.name: view
    for view in (
        *(_view_of(table, table.name) for table in TABLES),
        _view_of(MESSAGES, history_view.NAME),
        *(
            _View(name=view.name, has_channels=any(column == "cid" for column, _, _ in view.columns))
            for view in metadata_views.VIEWS
        ),
    )
}
_WITH_CHANNELS: Final = ", ".join(name for name, view in _VIEWS.items() if view.has_channels)
_WITH_TIME: Final = ", ".join(name for name, view in _VIEWS.items() if view.time is not None)


def table_query(
    name: str,
    *,
    channels: str | Iterable[str] | None = None,
    since: Moment | None = None,
    until: Moment | None = None,
) -> str:
    """Return the query over a view of the catalog.

    :param channels: one channel or several, as ``TYPE:ID``; None for all.
    :param since: start of the window (inclusive); None for no start. The window is on the view's time: ``created_at``
        of messages, ``message_created_at`` of reactions and attachments, ``_exported_at`` of rejects and other
        entities.
    :param until: end of the window (exclusive); None for no end.
    :raises CallError: there is no such view, it has no channels or no time, or a channel is not ``TYPE:ID``.
    :raises WindowError: a time is naive or not a time, or since is not before until.
    """
    view = _VIEWS.get(name)
    if view is None:
        raise CallError(f"the lake has no table {str(name)[:80]!r}; its tables are {', '.join(_VIEWS)}")
    conditions = []
    if channels is not None:
        if not view.has_channels:
            raise CallError(f"{name} has no channels; leave channels out. Tables with channels: {_WITH_CHANNELS}")
        conditions.append(in_channels(channels_from(channels)))
    if since is not None or until is not None:
        if view.time is None:
            raise CallError(
                f"{name} has no time to choose by; leave since and until out. Tables with a time: {_WITH_TIME}"
            )
        conditions += _in_window(view, since, until)
    return f"FROM {name}" + (f" WHERE {' AND '.join(conditions)}" if conditions else "")


def channels_from(channels: str | Iterable[str]) -> list[str]:
    """Return the channels that a caller names.

    :raises CallError: there is none, or one is not ``TYPE:ID``.
    """
    cids: list[str] = [*parse_cids(channels)]
    if not cids:
        raise CallError("the list of channels is empty; name at least one, or leave channels out for all")
    return cids


def in_channels(cids: Sequence[str]) -> str:
    """Return the condition that ``cid`` is one of these."""
    return f"cid IN ({', '.join(map(sql.quoted, cids))})"


def _in_window(view: _View, since: Moment | None, until: Moment | None) -> list[str]:
    """Return conditions on the view's time, and on its day: by those, DuckDB skips files and parts of files."""
    window = Window.parse(
        since if since is not None else EARLIEST,
        until if until is not None else LATEST - timedelta.resolution,
    )
    conditions = []
    if since is not None:
        conditions += [f"{view.time} >= {sql.instant(window.since)}", f"{view.day} >= {_day(window.since)}"]
    if until is not None:
        last = window.until - timedelta.resolution
        conditions += [f"{view.time} < {sql.instant(window.until)}", f"{view.day} <= {_day(last)}"]
    return conditions


def _day(moment: datetime) -> str:
    return f"DATE '{moment.date()}'"

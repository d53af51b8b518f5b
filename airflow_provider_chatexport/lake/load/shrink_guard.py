"""The second step of a load: what it would change in what the lake shows.

Newest-wins must not turn a hiccup of the service into lost data. So an export without a message of a channel whose
messages the lake shows is refused, unless the caller says that it is right. The same comparison finds late changes:
messages that were edited or deleted after an earlier export had them.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from airflow_provider_chatexport.core.options import LoadOptions
from airflow_provider_chatexport.errors import ShrinkError
from airflow_provider_chatexport.lake.commits import coverage_tables, visibility
from airflow_provider_chatexport.lake.commits.channels import ChannelSet
from airflow_provider_chatexport.lake.commits.coverage import CoverageEntry, channels_of
from airflow_provider_chatexport.lake.commits.file_state import FileState
from airflow_provider_chatexport.lake.commits.snapshot import Snapshot
from airflow_provider_chatexport.lake.duckdb_session import lake_errors
from airflow_provider_chatexport.lake.load.vanished import Vanished
from airflow_provider_chatexport.lake.privacy import message_ids
from airflow_provider_chatexport.lake.schema.tables import MESSAGES
from airflow_provider_chatexport.lake.staging.conversion import Conversion
from airflow_provider_chatexport.lake.storage.store import LakeStore

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shrunk:
    """Messages of a channel that are visible now and that the load would hide, and how many it has in their place."""

    cid: str
    before: int
    after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Impact:
    """What a load would change.

    :param n_shown: how many messages the lake shows where the load covers.
    :param late_changes: by age of the message in days, how many messages changed and how.
    """

    shrunk: tuple[Shrunk, ...] = ()
    n_shown: int = 0
    late_changes: tuple[dict[str, int], ...] = ()


def impact(store: LakeStore, snapshot: Snapshot, conversion: Conversion, coverage: Sequence[CoverageEntry]) -> Impact:
    """Compare a finished conversion with what the lake shows: messages that it hides, and those that it has newer.

    It reads the files of messages of the days that overlap, and no file if none does. Of the lake's coverage, it needs
    only the moments of these messages.

    :raises LakeError: a file cannot be read.
    """
    live = list(snapshot.live_files_of(MESSAGES))
    days = {day for _, day in conversion.uncovered(coverage, [MESSAGES])} if live else set()
    compared = [each for each in live if each.file.has_any(days)]
    compared += (each for each in _overlapped(live, coverage) if not each.file.has_any(days))
    if not compared:
        return Impact()
    # Coverage matters at the moments of rows only: of the load's rows, and of the files that they are compared with.
    # Of other channels, no coverage is needed, except to hide rows of the files, which are read whole.
    cids = channels_of(coverage)
    moments = [(each.span.since, each.span.until) for each in compared]
    moments += (bounds for of_file in conversion.message_spans.values() for bounds in of_file.values())
    first, last = min(since for since, _ in moments), max(until for _, until in moments) + timedelta(microseconds=1)

    def at_rows(entries: Iterable[CoverageEntry]) -> list[CoverageEntry]:
        return [entry for entry in entries if entry.overlaps(first, last)]

    database = conversion.database
    with (
        lake_errors(f"the lake at {store.uri} cannot be compared with the load", hint="run chatexport verify"),
        coverage_tables.table(database, "new_coverage", coverage),
        coverage_tables.table(database, "known_coverage", at_rows(snapshot.coverage), only=cids),
        coverage_tables.table(database, "covered", at_rows(snapshot.covered), only=cids),
        coverage_tables.table(database, "masking_coverage", at_rows(snapshot.masking_coverage)),
    ):
        store.let_read(database.connection, visibility.sizes_of(store, snapshot.readable_files_of(MESSAGES)))
        database.execute(_NEW_UNCOVERED)
        database.execute(_shown_before(_visible(store, snapshot, compared)))
        database.execute(_SHOWN_AFTER)
        counted = database.all(_COUNTED)
        late = database.all(_LATE_CHANGES)
    names = ("age_days", "edited", "deleted", "vanished", "appeared")
    return Impact(
        shrunk=tuple(Shrunk(cid=cid, before=before, after=after) for cid, before, after in counted if after < before),
        n_shown=sum(before for _, before, _ in counted),
        late_changes=tuple(dict(zip(names, row, strict=True)) for row in late),
    )


def check(impact: Impact, options: LoadOptions) -> None:
    """Refuse a load that would hide all that is visible of a channel in its window; warn of one that hides most.

    :raises ShrinkError: the load would, and the caller did not accept that; or more messages would vanish than allowed.
    """
    emptied = [each for each in impact.shrunk if each.after == 0]
    if emptied and not options.accept_shrink:
        first = emptied[0]
        others = f" (and all of {len(emptied) - 1} other channels)" if len(emptied) > 1 else ""
        raise ShrinkError(
            f"this load has no message of {first.cid} where the lake shows {first.before}{others}, and would hide "
            "them; nothing was loaded. Look into the service, then export again; if they are really gone, load with "
            "accept_shrink (--accept-shrink), and if a retention policy deleted them, with retention (--retention)",
            cids=tuple(each.cid for each in emptied),
        )
    vanished = Vanished.among(impact.late_changes)
    if not options.allows_vanished(vanished=vanished.n_messages, shown=impact.n_shown):
        raise ShrinkError(
            f"{vanished.n_messages} of the {impact.n_shown} messages that the lake shows where this load covers would "
            f"vanish ({vanished.age}), and max_vanished allows {options.allowed_vanished}; nothing was loaded. If a "
            "retention policy of the service deleted them, load with retention (--retention): it keeps them. If they "
            "are gone for good, raise max_vanished (--max-vanished)",
        )
    for each in impact.shrunk:
        if each.after * 2 < each.before:
            log.warning(
                "load hides more than half of what was visible cid=%s before=%d after=%d",
                each.cid,
                each.before,
                each.after,
            )


# Ids are compared without their author: the lake may hold a message pseudonymized or redacted that this load still has
# in clear.
_ID: Final = f"{message_ids.without_author('rows.id')} AS id"


# Messages of the load that none of its entries contains: each replaces an older row of its id.
_NEW_UNCOVERED: Final = f"""
CREATE OR REPLACE TEMP TABLE new_uncovered AS
SELECT {_ID}, _exported_at, _load_id
FROM stage_messages rows
WHERE {visibility.uncovered(MESSAGES, "new_coverage")} AND NOT {visibility.masked(MESSAGES, "known_coverage")}
"""


def _visible(store: LakeStore, snapshot: Snapshot, files: Sequence[FileState]) -> str:
    """Return the query for the messages that are visible now in some files."""
    names = ("id", "cid", "created_at", "updated_at", "deleted_at", "_exported_at", "_load_id", MESSAGES.date_column)
    select = ", ".join(f"rows.{name}" for name in names)
    rows = visibility.unmasked(store, MESSAGES, files, "masking_coverage", select)
    rivals = [
        each
        for each in snapshot.live_files_of(MESSAGES)
        if each.is_contested and any(each.file.shares_days(other.file) for other in files)
    ]
    newest = visibility.newest_of_loose_keys(store, MESSAGES, rivals, "masking_coverage")
    return visibility.unless_outdated(MESSAGES, rows, f"({newest})") if newest else rows


def _shown_before(visible: str) -> str:
    """Return the statement that gathers the messages that are visible now and that the load would hide or replace.

    :param visible: a query for the messages that are visible now.
    """
    return f"""
CREATE OR REPLACE TEMP TABLE shown_before AS
SELECT {_ID}, cid, created_at, updated_at, deleted_at, is_hidden,
    {visibility.uncovered(MESSAGES, "known_coverage")} AS is_uncovered
FROM (SELECT *, {visibility.masked(MESSAGES, "new_coverage")} AS is_hidden FROM ({visible}) rows) rows
WHERE is_hidden OR EXISTS (
    SELECT 1 FROM new_uncovered newer
    WHERE newer.id = {message_ids.without_author("rows.id")}
        AND (newer._exported_at, newer._load_id) > (rows._exported_at, rows._load_id)
)
"""


# Where older and new coverage meet, both exports looked: a message there that only one of them has, changed. An export
# with a message that it does not cover did not look at the moments around that message. There, any message of the new
# entry shows that the channel is not suddenly empty, and only a message of the same id is compared.
_SHOWN_AFTER: Final = f"""
CREATE OR REPLACE TEMP TABLE shown_after AS
SELECT *, is_looked_at_again OR id IN (SELECT id FROM shown_before) AS is_compared
FROM (
    SELECT {_ID}, cid, created_at, updated_at, deleted_at, EXISTS (
        SELECT 1 FROM covered old, new_coverage new
        WHERE old.cid = rows.cid AND rows.created_at >= old.since AND rows.created_at < old.until
            AND new.cid = rows.cid AND rows.created_at >= new.since AND rows.created_at < new.until
            AND (old.exported_at, old.load_id) < (new.exported_at, new.load_id)
    ) AS is_looked_at_again
    FROM stage_messages rows
    WHERE NOT {visibility.masked(MESSAGES, "known_coverage")}
)
"""
_COUNTED: Final = """
SELECT cid, n_before, coalesce(n_after, 0)
FROM (SELECT cid, count(*) AS n_before FROM shown_before WHERE is_hidden GROUP BY cid)
LEFT JOIN (
    SELECT cid, count(*) AS n_after FROM shown_after
    WHERE is_compared OR EXISTS (
        SELECT 1 FROM shown_before old, new_coverage new
        WHERE old.is_hidden AND old.is_uncovered AND old.cid = shown_after.cid AND new.cid = shown_after.cid
            AND old.created_at >= new.since AND old.created_at < new.until
            AND shown_after.created_at >= new.since AND shown_after.created_at < new.until
    )
    GROUP BY cid
) USING (cid)
ORDER BY cid
"""
_LATE_CHANGES: Final = """
    WITH changes AS (
        SELECT CASE
                WHEN after.id IS NULL THEN 'vanished'
                WHEN before.id IS NULL THEN 'appeared'
                WHEN before.deleted_at IS NULL AND after.deleted_at IS NOT NULL THEN 'deleted'
                WHEN after.updated_at IS DISTINCT FROM before.updated_at THEN 'edited'
            END AS what,
            coalesce(after.created_at, before.created_at) AS written_at,
            CASE WHEN before.id IS NULL OR after.id IS NULL THEN (SELECT max(exported_at) FROM new_coverage)
                WHEN before.deleted_at IS NULL THEN coalesce(after.deleted_at, after.updated_at)
                ELSE after.updated_at END AS changed_at
        FROM shown_before before
        FULL JOIN (FROM shown_after WHERE is_compared) after ON before.id = after.id
    )
    SELECT greatest(date_diff('second', written_at, changed_at) // 86400, 0) AS age_days,
        count(*) FILTER (what = 'edited'), count(*) FILTER (what = 'deleted'),
        count(*) FILTER (what = 'vanished'), count(*) FILTER (what = 'appeared')
    FROM changes WHERE what IS NOT NULL GROUP BY age_days ORDER BY age_days
"""


def _overlapped(live: Iterable[FileState], coverage: Sequence[CoverageEntry]) -> Iterator[FileState]:
    """Yield the live files of messages of which new entries may hide rows.

    An older entry of the same channel shares their days with a new one, or they have uncovered rows on a day of one.
    """
    by_cid: dict[str, list[CoverageEntry]] = {}
    for entry in coverage:
        for cid in entry.channels.names:
            by_cid.setdefault(cid, []).append(entry)

    @functools.cache
    def new_of(channels: ChannelSet) -> list[CoverageEntry]:
        return list(dict.fromkeys(entry for cid in channels.names for entry in by_cid.get(cid, ())))

    for each in live:
        span = each.span
        if (each.file.n_uncovered and any(entry.overlaps(span.since, span.until) for entry in coverage)) or any(
            newer.rank > entry.rank and newer.overlaps(entry.since, entry.until) and newer.overlaps(*span.within(entry))
            for entry in each.record.coverage
            if entry.overlaps(span.since, span.until)
            for newer in new_of(entry.channels)
        ):
            yield each

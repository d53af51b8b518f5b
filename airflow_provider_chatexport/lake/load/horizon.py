"""From when on an export has every message that nobody deleted: what retention policies leave of its claim. Pure.

A policy deletes what is older than its age, for good. An export that was made afterwards does not contain it, and must
not claim that it was never there. So its coverage entries begin at its horizon::

    window       |==============================|        asked for
    service      |..x..x....x...|===============|        x: deleted by the policy, or not yet
                                horizon
    claim                       |===============|        the rows before the horizon are kept, and claim nothing

What is deleted stays deleted, also after a policy ends or gets a longer age. So the horizon of a channel never moves
back: an earlier load of the lake that knew a later one is still right about what the service had lost by then.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime

from airflow_provider_chatexport.core.retention import Retention
from airflow_provider_chatexport.core.times import format_rfc3339, parse_rfc3339
from airflow_provider_chatexport.lake.commits.record import LoadRecord
from airflow_provider_chatexport.lake.normalize.input_file import InputFile


class Horizons:
    """The horizons that loads of a lake knew, by channel.

    :param records: all records of the lake.
    """

    def __init__(self, records: Iterable[LoadRecord] = ()) -> None:
        self._known: dict[str, list[tuple[datetime, datetime]]] = defaultdict(list)
        for record in records:
            horizon = record.facts.get("retention", {}).get("horizon")
            if horizon is not None:
                for cid in {entry.cid for entry in record.coverage}:
                    self._known[cid].append((record.exported_at, parse_rfc3339(horizon)))

    def of(self, cid: str, retention: Retention | None, *, exported_at: datetime, moment: datetime) -> datetime | None:
        """Return from when on an export of a channel knows all; None for all of time.

        :param retention: None if the export claims its whole window, whatever policies there are.
        :param exported_at: of the export, which says which loads were earlier.
        :param moment: when it was finished.
        """
        if retention is None:
            return None
        own = retention.horizon(moment)
        earlier = (horizon for made_at, horizon in self._known.get(cid, ()) if made_at <= exported_at)
        return max(earlier if own is None else [own, *earlier], default=None)


def retention_facts(files: Iterable[InputFile], n_clipped: int) -> dict[str, object]:
    """Return what the record of a load says about retention; empty if it was loaded without.

    :param n_clipped: of how many coverage entries the start, or all, lies before the horizon.
    """
    known = [(file.retention, file.finished_at or file.exported_at) for file in files if file.retention is not None]
    if not known:
        return {}
    horizons = [horizon for retention, moment in known if (horizon := retention.horizon(moment)) is not None]
    ages = [retention.max_age_hours for retention, _ in known if retention.max_age_hours is not None]
    return {
        "retention": {
            **Retention(max_age_hours=min(ages, default=None)).to_json(),
            "horizon": format_rfc3339(max(horizons)) if horizons else None,
            "clipped": n_clipped,
        }
    }

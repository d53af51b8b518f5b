"""From when on an export has every message that no person deleted: what retention policies leave of its claim. Pure.

A policy deletes what is older than its age, for good. An export that was made afterwards does not contain it, and must
not claim that it was never there. So its coverage entries begin at its horizon::

    window       |==============================|        asked for
    service      |..x..x....x...|===============|        x: deleted by the policy; the others are still to come
                                horizon
    claim                       |===============|        rows before the horizon are kept, and claim nothing

What is deleted stays deleted, also after a policy ends or gets a longer age. So the ages that earlier loads of the lake
knew count too, each until the next load knew another one. A policy that no load knew stays unknown. As a policy deletes
nothing in its first 24 hours, a load a day that asks the service knows all of them in time.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from itertools import pairwise

from airflow_provider_chatexport.core.retention import Retention
from airflow_provider_chatexport.core.times import format_rfc3339
from airflow_provider_chatexport.lake.commits.channels import ChannelSet
from airflow_provider_chatexport.lake.commits.record import LoadRecord
from airflow_provider_chatexport.lake.normalize.input_file import InputFile


class Horizons:
    """The horizons of exports of a lake's channels, by what all of its loads knew of retention policies.

    :param records: all records of the lake.
    """

    def __init__(self, records: Iterable[LoadRecord] = ()) -> None:
        self._known: dict[ChannelSet, list[tuple[datetime, Retention]]] = defaultdict(list)
        for record in records:
            if facts := record.facts.get("retention"):
                retention = Retention.from_json(facts)
                for channels in dict.fromkeys(entry.channels for entry in record.coverage):
                    self._known[channels].append((record.exported_at, retention))
        self._sets_of: dict[str, list[ChannelSet]] = defaultdict(list)
        for channels in self._known:
            for cid in channels.names:
                self._sets_of[cid].append(channels)
        # Channels that are in the same sets have the same horizon.
        self._of_sets = functools.cache(self._horizon)

    def of(self, cid: str, retention: Retention | None, *, exported_at: datetime, moment: datetime) -> datetime | None:
        """Return from when on an export of a channel knows all; None for all of time.

        :param retention: None if the export claims its whole window, whatever policies there are.
        :param exported_at: of the export, which says which loads were earlier.
        :param moment: when it was finished.
        """
        if retention is None:
            return None
        return self._of_sets(tuple(self._sets_of.get(cid, ())), retention, exported_at, moment)

    def _horizon(
        self, sets: tuple[ChannelSet, ...], retention: Retention, exported_at: datetime, moment: datetime
    ) -> datetime | None:
        known = (each for channels in sets for each in self._known[channels])
        earlier = sorted((each for each in known if each[0] <= exported_at), key=lambda each: each[0])
        # An age may have counted until the next load asked.
        steps = pairwise([*earlier, (exported_at, retention)])
        horizons = [before.horizon(asked_at) for (_, before), (asked_at, _) in steps]
        return max((each for each in [*horizons, retention.horizon(moment)] if each is not None), default=None)


def retention_facts(files: Iterable[InputFile], n_clipped: int) -> dict[str, object]:
    """Return what the record of a load says about retention; empty if it was loaded without.

    :param n_clipped: how many coverage entries start before the horizon, or lie before it.
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

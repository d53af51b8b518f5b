"""Random coverage of a few channels in a few hours, for tests that compare it with a model."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from airflow_provider_chatexport.lake.commits.channels import ChannelSet
from airflow_provider_chatexport.lake.commits.coverage import CoverageEntry

START = datetime(2026, 1, 1, tzinfo=UTC)
HOURS = range(8)


def at(hour: int) -> datetime:
    return START + timedelta(hours=hour)


def entry(since: int, until: int, exported: int, load: str, *cids: str) -> CoverageEntry:
    return CoverageEntry(
        channels=ChannelSet.of(cids or ["a:1"]),
        since=at(since),
        until=at(until),
        exported_at=at(100 + exported),
        load_id=load,
    )


CHANNELS = ("a:1", "a:2", "a:3", "a:4")
# Sets that are the same, disjoint, nested, and that overlap.
SETS = (("a:1",), ("a:2",), ("a:1", "a:2"), ("a:1", "a:2", "a:3"), ("a:2", "a:3", "a:4"), ("a:3", "a:4"), CHANNELS)
entries = st.builds(
    lambda since, span, exported, load, cids: entry(since, min(8, since + span), exported, f"load-{load}", *cids),
    st.sampled_from(range(8)),
    st.integers(1, 8),
    st.integers(0, 3),
    st.integers(0, 4),
    st.sampled_from(SETS),
)
lakes = st.lists(entries, max_size=12)

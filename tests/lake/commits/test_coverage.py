"""The truth rule, compared with a model that looks for the newest export of each moment."""

from __future__ import annotations

import pickle
from dataclasses import replace
from itertools import pairwise, product

from coverages import CHANNELS, HOURS, at, entry, lakes
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_chatexport.lake.commits.channels import ChannelSet
from airflow_provider_chatexport.lake.commits.coverage import (
    BEGINNING,
    CoverageEntry,
    EntriesByTime,
    NewerCoverage,
    TimeSpan,
    coverage_entry,
    coverage_runs,
    from_json,
    from_json_per_channel,
    overlapping_pairs,
    to_json,
)

EMPTY, ONE = ChannelSet.of([]), ChannelSet.of(["a:1"])


def superseded(lake: list[CoverageEntry]) -> set[str]:
    """Return the loads that can have no visible row."""
    newer = NewerCoverage(lake)
    return {
        each.load_id for each in lake if newer.are_fully_hidden([own for own in lake if own.load_id == each.load_id])
    }


def newest_at(lake: list[CoverageEntry], cid: str, hour: int) -> CoverageEntry | None:
    """Return the newest of all exports that cover a moment of a channel: the definition of the rule."""
    covering = [each for each in lake if cid in each.channels.names and each.since <= at(hour) < each.until]
    return max(covering, key=lambda each: each.rank, default=None)


@given(lakes)
@settings(max_examples=300, deadline=None)
def test_a_row_is_hidden_exactly_where_a_newer_export_covers_its_moment(lake: list[CoverageEntry]) -> None:
    """The pairs must hide every entry at a moment but the newest, and never the newest, whatever overlaps."""
    pairs = list(overlapping_pairs(lake))
    for each in lake:
        for cid, hour in product(each.channels.names, HOURS):
            if not each.since <= at(hour) < each.until:
                continue
            newest = newest_at(lake, cid, hour)
            assert newest is not None
            hidden = any(
                older == each and cid in newer.channels.names and newer.since <= at(hour) < newer.until
                for older, newer in pairs
            )
            assert (newest.rank > each.rank) == hidden


@given(lakes)
@settings(max_examples=300, deadline=None)
def test_an_entry_is_fully_hidden_exactly_where_newer_ones_cover_it_in_each_of_its_channels(
    lake: list[CoverageEntry],
) -> None:
    """Entries that are dropped too early lose what they decide, in a span of a day and over all."""
    newer = NewerCoverage(lake)
    middle = TimeSpan(since=at(2), until=at(5))
    for each in lake:
        for span in (None, middle):
            moments = [
                (cid, hour)
                for cid, hour in product(each.channels.names, HOURS)
                if each.since <= at(hour) < each.until and (span is None or span.since <= at(hour) < span.until)
            ]
            assert newer.is_fully_hidden(each, span) == all(
                newest_at(lake, cid, hour).rank > each.rank for cid, hour in moments
            )
            overlapping = {
                other
                for other in lake
                if other.rank > each.rank
                and any(cid in other.channels.names and other.since <= at(hour) < other.until for cid, hour in moments)
            }
            assert overlapping == set(newer.than(each, span))


@given(lakes, st.lists(st.integers(0, 6), min_size=12, max_size=12))
@settings(max_examples=200, deadline=None)
def test_an_entry_is_hidden_since_the_commit_that_covered_its_last_moment(
    lake: list[CoverageEntry], commits: list[int]
) -> None:
    """Vacuum keeps a dead file for a day from that commit on."""
    lake = list(dict.fromkeys(lake))
    committed = {each: at(moment) for each, moment in zip(lake, commits, strict=False)}
    newer = NewerCoverage(lake)
    for each in lake:
        found = [
            moment
            for moment in sorted(set(committed.values()))
            if NewerCoverage([each, *(one for one in lake if committed[one] <= moment)]).is_fully_hidden(each)
        ]
        assert (found[0] if found else None) == newer.hidden_since(each, None, lambda one: committed[one])


@given(lakes)
@settings(max_examples=300, deadline=None)
def test_a_load_is_superseded_exactly_where_no_moment_of_it_is_visible(lake: list[CoverageEntry]) -> None:
    """A load that is retired too early loses data for good. One that is never retired keeps dead files for ever."""
    expected = {
        each.load_id
        for each in lake
        if not any(
            newest.load_id == each.load_id
            for cid in CHANNELS
            for hour in HOURS
            if (newest := newest_at(lake, cid, hour)) is not None
        )
    }
    # A load that is newest nowhere may have an entry that only an entry of its own load covers: the rule keeps it.
    actual = superseded(lake)
    assert actual <= expected
    assert all(
        any(_covered_by_itself(lake, each) for each in lake if each.load_id == load) for load in expected - actual
    )


def _covered_by_itself(lake: list[CoverageEntry], each: CoverageEntry) -> bool:
    """Return whether at some moment of an entry, only entries of its own load are newer."""
    return any(
        not any(
            other.load_id != each.load_id
            and cid in other.channels.names
            and other.rank > each.rank
            and other.since <= at(hour) < other.until
            for other in lake
        )
        for cid, hour in product(each.channels.names, HOURS)
        if each.since <= at(hour) < each.until
    )


@given(lakes, st.randoms())
@settings(max_examples=100, deadline=None)
def test_the_order_of_loads_does_not_matter(lake: list[CoverageEntry], random: object) -> None:
    """Backfills arrive in any order."""
    shuffled = list(lake)
    random.shuffle(shuffled)
    assert superseded(lake) == superseded(shuffled)
    assert set(overlapping_pairs(lake)) == set(overlapping_pairs(shuffled))


@given(lakes, st.integers(-1, 8), st.integers(1, 4))
@settings(max_examples=200)
def test_the_entries_of_a_span_are_found_without_a_look_at_the_others(
    lake: list[CoverageEntry], since: int, hours: int
) -> None:
    """A year of hourly loads has thousands of entries, and a file a day of them."""
    span = TimeSpan(since=at(since), until=at(since + hours))
    expected = [each for each in lake if each.overlaps(span.since, span.until)]
    found = EntriesByTime(lake).overlapping(span)
    assert sorted(expected, key=repr) == sorted(found, key=repr)


def test_windows_that_tile_hide_nothing() -> None:
    """Most lakes must not pay for a filter. Windows are half-open, so neighbours do not overlap."""
    assert [] == list(overlapping_pairs([entry(hour, hour + 1, hour, f"load-{hour}") for hour in HOURS]))


def test_another_channel_hides_nothing() -> None:
    """The newest export of one channel says nothing about another."""
    assert [] == list(overlapping_pairs([entry(0, 8, 0, "old"), entry(0, 8, 1, "new", "a:2")]))


def test_two_newer_loads_together_supersede_one() -> None:
    """A day loaded again as two halves is superseded, though by neither half alone."""
    day, morning, evening = entry(0, 8, 0, "day"), entry(0, 4, 1, "morning"), entry(4, 8, 2, "evening")
    assert {"day"} == superseded([day, morning, evening])
    assert set() == superseded([day, morning])


def test_of_two_exports_at_the_same_instant_the_later_load_id_is_right() -> None:
    """A tie must be decided in the same way on every machine."""
    assert {"load-1"} == superseded([entry(0, 8, 0, "load-2"), entry(0, 8, 0, "load-1")])


def test_a_coverage_entry_ends_when_the_export_was_made() -> None:
    """An export of an open window knows nothing about the rest of it, so the rest must show as a gap."""
    covered = coverage_entry(channels=ONE, since=at(0), until=at(8), exported_at=at(5), load_id="load-1")
    assert covered is not None
    assert (at(0), at(5)) == (covered.since, covered.until)


def test_an_export_without_bounds_covers_everything_before_it() -> None:
    """The whole history was requested, and is known up to that moment."""
    covered = coverage_entry(channels=ONE, since=None, until=None, exported_at=at(5), load_id="load-1")
    assert covered is not None
    assert (BEGINNING, at(5)) == (covered.since, covered.until)


def test_a_window_in_the_future_covers_nothing() -> None:
    """Otherwise the empty export would hide the messages that people send then."""
    assert coverage_entry(channels=ONE, since=at(6), until=at(8), exported_at=at(5), load_id="load-1") is None


@given(lakes)
@settings(deadline=None)
def test_coverage_entries_survive_their_record(lake: list[CoverageEntry]) -> None:
    """A later process knows a load by its record alone."""
    for record_id in ("load-1", "rewrite-000001"):
        sets: dict[ChannelSet, int] = {}
        written = to_json(lake, record_id, sets)
        lists = [ChannelSet.from_json(each.to_json()) for each in sets]
        assert tuple(lake) == from_json(written, record_id, lists)


def test_an_entry_without_a_start_survives_its_record() -> None:
    """Its start is written as null, because readers do not agree on a first moment."""
    each = replace(entry(0, 1, 2, "load-1"), since=BEGINNING)
    sets: dict[ChannelSet, int] = {}
    (written,) = to_json([each], "load-1", sets)
    assert written["since"] is None
    assert (each,) == from_json([written], "load-1", list(sets))


@given(lakes)
@settings(deadline=None)
def test_a_record_of_version_1_covers_the_same(lake: list[CoverageEntry]) -> None:
    """Lakes of older versions have an entry for each channel."""
    per_channel = [
        {"cid": cid} | {name: value for name, value in written.items() if name != "channels"}
        for each in lake
        for written in to_json([each], "load-1", {})
        for cid in each.channels.names
    ]
    read = from_json_per_channel(per_channel, "load-1")
    assert {(cid, replace(each, channels=EMPTY)) for each in lake for cid in each.channels.names} == {
        (cid, replace(each, channels=EMPTY)) for each in read for cid in each.channels.names
    }
    assert len(read) <= len(lake)


@given(st.lists(st.text(max_size=5), max_size=5))
def test_equal_sets_of_channels_are_one_object(names: list[str]) -> None:
    """A lake keeps each list of channels once, and compares lists without reading them. Ids may contain anything."""
    channels = ChannelSet.of(names)
    assert tuple(sorted(set(names))) == channels.names
    assert channels is ChannelSet.of(reversed(names))
    assert channels is ChannelSet.from_json(channels.to_json())
    assert channels is pickle.loads(pickle.dumps(channels))


@given(lakes)
@settings(max_examples=300, deadline=None)
def test_coverage_runs_count_how_often_each_moment_was_loaded(lake: list[CoverageEntry]) -> None:
    """The picture of coverage shows them, with no border where nothing changes."""
    for cid, runs in coverage_runs(lake).items():
        for hour in HOURS:
            covering = sum(cid in each.channels.names and each.since <= at(hour) < each.until for each in lake)
            shown = [each.n_entries for each in runs if each.since <= at(hour) < each.until]
            assert [covering] == (shown or [0])
        for one, other in pairwise(runs):
            assert one.until == other.since
            assert one.n_entries != other.n_entries

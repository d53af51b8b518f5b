"""What lost files leave uncovered, compared with a model that looks at each moment."""

from __future__ import annotations

from itertools import product

from coverages import CHANNELS, HOURS, at, lakes
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_chatexport.lake.commits.coverage import CoverageEntry
from airflow_provider_chatexport.lake.commits.gaps import uncovered_spans
from airflow_provider_chatexport.lake.commits.lost_coverage import LostSpan, without_lost

lost_spans = st.lists(
    st.builds(
        lambda since, hours, load: LostSpan(since=at(since), until=at(since + hours), load_ids=(f"load-{load}",)),
        st.integers(-1, 7),
        st.integers(1, 4),
        st.integers(0, 4),
    ),
    max_size=3,
)


@given(lakes, lost_spans)
@settings(max_examples=200)
def test_lost_files_leave_a_moment_uncovered_unless_a_newer_export_covers_it(
    lake: list[CoverageEntry], lost: list[LostSpan]
) -> None:
    """What was in a lost file has to be exported again, but for what a later load has brought back."""
    left = without_lost(lake, lost)
    for cid, hour in product(CHANNELS, HOURS):
        covering, still = (
            [each for each in some if cid in each.channels.names and each.since <= at(hour) < each.until]
            for some in (lake, left)
        )
        gone = [
            each.rank
            for each in covering
            for span in lost
            if each.load_id in span.load_ids and span.since <= at(hour) < span.until
        ]
        assert sorted(each.rank for each in covering if all(each.rank > rank for rank in gone)) == sorted(
            each.rank for each in still
        )
        is_gap = any(span.since <= at(hour) < span.until for span in uncovered_spans(lake, lost).get(cid, ()))
        if covering:
            assert (not still) == is_gap

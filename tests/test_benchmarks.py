"""The benchmarks, made small: they run seldom, and would be found broken only then. Speeds are not looked at."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import aged
import ages
import costs
import files
import history
import peers
import publishing
import pyarrow.parquet as pq
import reading
import years

from airflow_provider_chatexport.lake import Lake


def test_the_lake_that_reading_is_measured_on_has_the_rows_that_plain_copy_wrote(tmp_path: Path) -> None:
    """Each question is asked of both, and answers that differ end the measurement."""
    export = costs.export_file(tmp_path, datetime(2025, 1, 1, tzinfo=UTC), "messaging:c0", 50)
    history.main(export, 60, 5_000, tmp_path)
    answers = reading.ask(tmp_path, 1)
    assert list(reading.QUESTIONS) == [each.question for each in answers]
    assert all(each.rows for each in answers)
    assert {"ours", "plain"} == {name for name, mb in reading.sizes_mb(tmp_path).items() if mb}


def test_a_lake_of_many_loads_is_loaded_into_opened_and_compacted(tmp_path: Path) -> None:
    """What a lake's age costs, of a young one."""
    assert 3 == costs.cost(tmp_path, 3).loads
    (days := tmp_path / "days").mkdir()
    assert all(per_s > 0 for per_s in costs.compaction(days, n_days=1, n_messages=20))


def test_a_lake_of_daily_loads_answers_as_the_plain_file(tmp_path: Path) -> None:
    """Seven questions of a small app's years, of fewer messages."""
    years.make(tmp_path, files.years(1_000, folder=tmp_path), n_daily=2)
    assert list(years.QUESTIONS) == [each.question for each in years.ask(tmp_path, 1)]


def test_an_aged_lake_is_as_loads_and_compactions_leave_it(tmp_path: Path) -> None:
    """It is made without them, so that 20,000 loads take minutes and not hours."""
    age = aged.Age(name="", n_loads=60, n_channels=2, n_groups=2, step=ages.DAY / 2)
    lake = Lake(aged.make_lake(tmp_path, age).uri)
    assert lake.verify().ok
    ((n_rows, n_loads, n_merged, n_channels),) = lake.fetch("""
        SELECT count(DISTINCT id), count(DISTINCT _load_id),
            (SELECT count(rewritten_into) FROM loads), (SELECT count(*) FROM channels)
        FROM messages""").rows
    assert (60 * aged.N_MESSAGES, 60, 4) == (n_rows, n_loads, n_channels)
    assert n_merged > age.n_loads / 2


def test_commands_are_measured_in_an_aged_lake(tmp_path: Path) -> None:
    """What an old lake costs, of a young one."""
    assert all(each for each in asdict(ages.cost(tmp_path, ages.Age(name="young", n_loads=3), n_runs=1)).values())


def test_a_lake_is_published_and_a_file_taken_out_and_brought_back(tmp_path: Path) -> None:
    """What a publication costs, of a young lake."""
    uri = costs.make_lake(tmp_path, 3).uri
    assert all(
        publishing.cost(uri, "iceberg", 3, *step).cpu_s > 0 for step in (publishing.STEPS[0], publishing.STEPS[-1])
    )


def test_the_plain_file_is_one_that_peers_read_at_their_defaults(tmp_path: Path) -> None:
    """A comparison on a file that stops the peers says nothing."""
    plain = files.plain(2_000, folder=tmp_path).path
    for peer in ("DuckDB COPY", "pyarrow.json"):
        peers.PEERS[peer](str(plain), tmp_path)
        assert 2_000 == pq.read_metadata(tmp_path / "messages.parquet").num_rows


def test_a_plain_file_has_no_key_that_comes_late() -> None:
    """DuckDB looks at the first lines only, and fails at what it does not know from them."""
    lines = [b'{"a":{"b":1}}', b'{"a":{"b":2,"late":3},"priority":1,"empty":{}}']
    assert [b'{"a":{"b":1}}\n', b'{"a":{"b":2}}\n'] == list(files.without_late_keys(lines, 1))

"""The window of a run with each kind of schedule, with the runs that Airflow's own timetables create."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import airflow.sdk
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.sdk import DAG
from airflow.timetables import trigger
from airflow.timetables.base import DataInterval, TimeRestriction
from airflow.timetables.interval import CronDataIntervalTimetable, DeltaDataIntervalTimetable
from airflow.timetables.simple import NullTimetable
from airflow.timetables.trigger import CronTriggerTimetable, DeltaTriggerTimetable
from pendulum import instance

from airflow_provider_chatexport.core.window import Window
from airflow_provider_chatexport.operators.export import ExportChannelsOperator

DAY = timedelta(days=1)
FROM = instance(datetime(2025, 1, 6, tzinfo=UTC))
NOON = instance(datetime(2025, 1, 8, 12, tzinfo=UTC))
THE_6TH = Window.parse("2025-01-06", "2025-01-07")
THE_5TH = Window.parse("2025-01-05", "2025-01-06")


def first_run(timetable: Any) -> dict[str, Any]:
    """Return the context of the first run that a scheduler creates from the 6th on."""
    restriction = TimeRestriction(earliest=FROM, latest=None, catchup=True)
    if not hasattr(timetable, "next_dagrun_info_v2"):  # before Airflow 3.2
        info = timetable.next_dagrun_info(last_automated_data_interval=None, restriction=restriction)
        return context_of(info.data_interval)
    info = timetable.next_dagrun_info_v2(last_dagrun_info=None, restriction=restriction)
    return {**context_of(info.data_interval), "partition_date": info.partition_date}


def manual_run(timetable: Any) -> dict[str, Any]:
    """Return the context of a manual run with a logical date, at noon of the 8th."""
    return context_of(timetable.infer_manual_data_interval(run_after=NOON))


def context_of(interval: DataInterval | None) -> dict[str, Any]:
    return {"data_interval_start": interval.start, "data_interval_end": interval.end} if interval else {}


def window(context: Any, **arguments: Any) -> Window:
    return ExportChannelsOperator(task_id="export", channels="a:b", **arguments).run_window(context)


@pytest.mark.parametrize(
    ("timetable", "expected"),
    [
        (CronDataIntervalTimetable("@daily", timezone="UTC"), THE_6TH),
        (CronTriggerTimetable("@daily", timezone="UTC", interval=DAY), THE_5TH),
        (DeltaDataIntervalTimetable(DAY), THE_6TH),
        (DeltaTriggerTimetable(DAY, interval=DAY), THE_5TH),
    ],
    ids=["cron data interval", "cron trigger", "delta data interval", "delta trigger"],
)
def test_the_window_of_a_scheduled_run_is_the_day_before_it(timetable, expected) -> None:
    """Both kinds of timetable give whole days; the first day differs by one."""
    assert expected == window(first_run(timetable))


def test_the_refusal_of_plain_daily_names_the_timetable_to_use() -> None:
    """In Airflow 3, a run of "@daily" has an interval of zero length, and would export nothing."""
    operator = ExportChannelsOperator(task_id="export", channels="a:b")
    with pytest.raises(AirflowFailException, match="CronDataIntervalTimetable"):
        operator.execute(first_run(CronTriggerTimetable("@daily", timezone="UTC")))


@pytest.mark.parametrize("in_a_dag_file", [True, False], ids=["in a DAG file", "in the scheduler"])
def test_the_refusal_on_the_day_of_a_clock_change_does_not_name_the_timetable_as_the_cure(in_a_dag_file) -> None:
    """A manual run has zero length if the time of the schedule falls into the hour that does not exist."""
    timetable = CronDataIntervalTimetable("0 2 * * *", timezone="Europe/Berlin")
    interval = timetable.infer_manual_data_interval(run_after=instance(datetime(2026, 3, 29, 12, tzinfo=UTC)))
    assert interval.start == interval.end
    if in_a_dag_file:
        timetable = getattr(airflow.sdk, "CronDataIntervalTimetable", CronDataIntervalTimetable)(
            "0 2 * * *", timezone="Europe/Berlin"
        )
    context = {**context_of(interval), "dag": DAG("spring", schedule=timetable)}
    operator = ExportChannelsOperator(task_id="export", channels="a:b")
    with pytest.raises(AirflowFailException, match="clocks change in Europe/Berlin on that day") as caught:
        operator.execute(context)
    assert "schedule the DAG" not in str(caught.value)


def test_the_window_of_a_manual_run_is_the_last_whole_day() -> None:
    """The form of a manual run sets the logical date to now."""
    assert Window.parse("2025-01-07", "2025-01-08") == window(
        manual_run(CronDataIntervalTimetable("@daily", timezone="UTC"))
    )


@pytest.mark.parametrize("context", [{}, manual_run(NullTimetable())], ids=["no logical date", "no schedule"])
def test_a_run_without_an_interval_needs_a_window_in_arguments_or_params(context) -> None:
    """Manual runs without a schedule, runs by an asset, and REST calls without a logical date have no interval."""
    with pytest.raises(AirflowFailException, match="give the operator since and until"):
        ExportChannelsOperator(task_id="export", channels="a:b").execute(context)
    ends = {"since": "2025-01-06T00:00:00Z", "until": "2025-01-07T00:00:00Z"}
    assert THE_6TH == window(context, **ends) == window({**context, "params": ends})


def test_partitions_in_a_zone_with_summer_time_tile() -> None:
    """The day on which summer time ends has 25 hours, and Airflow gives only its start."""
    if not hasattr(trigger, "CronPartitionTimetable"):
        pytest.skip("this Airflow has no partitioned runs; they came with 3.2")
    timetable = trigger.CronPartitionTimetable("@daily", timezone="Europe/Berlin", run_offset=0)
    in_a_dag_file: Any = airflow.sdk.CronPartitionTimetable("@daily", timezone="Europe/Berlin")
    for schedule in (timetable, in_a_dag_file):
        dag = DAG("partitions", schedule=schedule)
        windows = []
        for day in (25, 26, 27):
            start = instance(datetime(2025, 10, day, tzinfo=ZoneInfo("Europe/Berlin")).astimezone(UTC))
            (date, _) = timetable._get_partition_info(start)
            windows.append(window({"dag": dag, "partition_date": date}, partition_span=DAY))
        assert [24, 25, 24] == [each.span / timedelta(hours=1) for each in windows]
        assert [each.until for each in windows[:-1]] == [each.since for each in windows[1:]]


def test_the_window_of_a_partitioned_run_is_its_partition() -> None:
    """With ``run_offset=-1`` that is the day before; without it, a day that has only started, which is refused."""
    if not hasattr(trigger, "CronPartitionTimetable"):
        pytest.skip("this Airflow has no partitioned runs; they came with 3.2")
    context = first_run(trigger.CronPartitionTimetable("@daily", timezone="UTC", run_offset=-1))
    assert THE_5TH == window(context, partition_span=DAY)
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    today: Any = {"partition_date": midnight}
    with pytest.raises(AirflowFailException, match="ends in the future"):
        ExportChannelsOperator(task_id="export", channels="a:b", partition_span=DAY).execute(today)

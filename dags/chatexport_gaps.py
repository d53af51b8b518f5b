"""Export and load what the lake does not cover yet, every night: a DAG that repairs itself.

After an outage, a pause or a failed load, the next run exports what is missing, and nothing else. A new channel in the
list gets its whole history. The two days before each gap are exported once more, for late changes.

A run that is triggered by hand may say from when on the lake should be complete:

    airflow dags trigger chatexport_gaps --conf '{"since": "2025-01-01T00:00:00Z"}'
"""

import os
from datetime import timedelta
from pathlib import Path

from airflow.sdk import DAG, task_group
from airflow.timetables.interval import CronDataIntervalTimetable
from pendulum import datetime

from airflow_provider_chatexport.operators.export import ExportChannelsOperator
from airflow_provider_chatexport.operators.gaps import ListGapsOperator
from airflow_provider_chatexport.operators.load import LoadExportOperator

LAKE = os.environ.get("CHATEXPORT_LAKE", str(Path.home() / "chatexport-lake"))
CHANNELS = os.environ.get("CHATEXPORT_CHANNELS", "livestream:ubuntu,messaging:ubuntu-support")
POOL = os.environ.get("CHATEXPORT_POOL", "default_pool")


@task_group
def missing(channels: list[str], window: str, since: str, until: str) -> None:
    export = ExportChannelsOperator(
        task_id="export",
        channels=channels,
        window=window,
        since=since,
        until=until,
        on_missing_channel="skip",
        deferrable=True,
        pool=POOL,
    )
    export >> LoadExportOperator(task_id="load", exports=export.output, lake=LAKE)


with DAG(
    dag_id="chatexport_gaps",
    description="Every night, what the lake does not cover yet",
    doc_md=__doc__,
    schedule=CronDataIntervalTimetable("@daily", timezone="UTC"),
    start_date=datetime(2025, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,  # two runs at once would export the same
    default_args={"retries": 3},
    tags=["chatexport"],
) as dag:
    # Two years that are missing are nine windows, and not a hundred tasks that wait for the service's rate limit.
    gaps = ListGapsOperator(
        task_id="gaps", lake=LAKE, channels=CHANNELS, lookback=timedelta(days=2), max_window=timedelta(days=90)
    )
    missing.expand_kwargs(gaps.output)

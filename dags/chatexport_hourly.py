"""Load the last hour every hour, and the two days before it again, with their late edits, deletes and reactions.

The view ``late_changes`` of the lake shows how late changes come, and so which ``lookback`` is worth its exports.
"""

import os
from datetime import timedelta
from pathlib import Path

from airflow.sdk import DAG
from airflow.timetables.interval import CronDataIntervalTimetable
from pendulum import datetime

from airflow_provider_chatexport.operators.export import ExportChannelsOperator
from airflow_provider_chatexport.operators.load import LoadExportOperator

LAKE = os.environ.get("CHATEXPORT_LAKE", str(Path.home() / "chatexport-lake"))
CHANNELS = os.environ.get("CHATEXPORT_CHANNELS", "livestream:ubuntu,messaging:ubuntu-support")

with DAG(
    dag_id="chatexport_hourly",
    description="The last hour, every hour, and the two days before it again",
    doc_md=__doc__,
    schedule=CronDataIntervalTimetable("@hourly", timezone="UTC"),
    start_date=datetime(2025, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=4,
    default_args={"retries": 3},
    tags=["chatexport"],
) as dag:
    export = ExportChannelsOperator(task_id="export", channels=CHANNELS, lookback=timedelta(days=2), deferrable=True)
    load = LoadExportOperator(task_id="load", exports=export.output, lake=LAKE)
    export >> load

"""Load yesterday's messages of some channels into a lake, every day.

``CronDataIntervalTimetable`` gives each run one day as its window. Plain ``"@daily"`` gives none in Airflow 3.
"""

import os
from pathlib import Path

from airflow.sdk import DAG, Asset
from airflow.timetables.interval import CronDataIntervalTimetable
from pendulum import datetime

from airflow_provider_chatexport.operators.export import ExportChannelsOperator
from airflow_provider_chatexport.operators.load import LoadExportOperator

LAKE = os.environ.get("CHATEXPORT_LAKE", str(Path.home() / "chatexport-lake"))
CHANNELS = os.environ.get("CHATEXPORT_CHANNELS", "livestream:ubuntu,messaging:ubuntu-support")

with DAG(
    dag_id="chatexport_daily",
    description="Yesterday's messages of some channels, every day",
    doc_md=__doc__,
    schedule=CronDataIntervalTimetable("@daily", timezone="UTC"),
    start_date=datetime(2025, 1, 1, tz="UTC"),
    catchup=False,
    default_args={"retries": 3},
    tags=["chatexport"],
) as dag:
    export = ExportChannelsOperator(task_id="export", channels=CHANNELS, deferrable=True)
    load = LoadExportOperator(task_id="load", exports=export.output, lake=LAKE, outlets=[Asset("chatexport_lake")])
    export >> load

"""Load a day's messages of some channels into a lake, with one task group: the usual case.

``export`` and ``load`` take further arguments of the two operators. A run that is triggered by hand may have another
window.
"""

import os
from datetime import timedelta
from pathlib import Path

from airflow.sdk import DAG
from airflow.timetables.interval import CronDataIntervalTimetable
from pendulum import datetime

from airflow_provider_chatexport.operators.params import window_params
from airflow_provider_chatexport.task_groups import chat_export_to_lake

LAKE = os.environ.get("CHATEXPORT_LAKE", str(Path.home() / "chatexport-lake"))
CHANNELS = os.environ.get("CHATEXPORT_CHANNELS", "livestream:ubuntu,messaging:ubuntu-support")
# "service", or an age such as "30d", if the app has a retention policy: the lake then keeps what the service deletes.
RETENTION = os.environ.get("CHATEXPORT_RETENTION")

with DAG(
    dag_id="chatexport_quick",
    description="A day of some channels, with one task group; a manual run asks for its window",
    doc_md=__doc__,
    schedule=CronDataIntervalTimetable("@daily", timezone="UTC"),
    start_date=datetime(2025, 1, 1, tz="UTC"),
    catchup=False,
    params=window_params(channels=False),
    default_args={"retries": 3},
    tags=["chatexport"],
) as dag:
    chat_export_to_lake(
        channels=CHANNELS,
        lake=LAKE,
        lookback=timedelta(days=1),
        retention=RETENTION,
        max_rejected=0.01,
    )

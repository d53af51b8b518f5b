"""Every channel of the app that had a message since the window began, in batches of mapped tasks.

The service takes 60 exports a minute for the whole app. A pool keeps many batches from waiting for each other's turn:

    airflow pools set chatexport 4 "exports at one time" --include-deferred

Channels that were deleted softly are not found by any query: name them as ``extra_channels``.
"""

import os
from pathlib import Path

from airflow.sdk import DAG
from airflow.timetables.interval import CronDataIntervalTimetable
from pendulum import datetime

from airflow_provider_chatexport.core.discovery import ChannelQuery
from airflow_provider_chatexport.task_groups import chat_export_to_lake

LAKE = os.environ.get("CHATEXPORT_LAKE", str(Path.home() / "chatexport-lake"))
POOL = os.environ.get("CHATEXPORT_POOL", "default_pool")
CHANNELS_PER_TASK = int(os.environ.get("CHATEXPORT_CHANNELS_PER_TASK", "250"))
# ``since`` is the begin of the run's window, also of one that is given by hand.
LIVELY = ChannelQuery(filter_conditions={"last_message_at": {"$gte": "{{ since }}"}})

with DAG(
    dag_id="chatexport_discovery",
    schedule=CronDataIntervalTimetable("@daily", timezone="UTC"),
    start_date=datetime(2025, 1, 1, tz="UTC"),
    catchup=False,
    tags=["chatexport"],
) as dag:
    chat_export_to_lake(
        channels=LIVELY,
        channels_per_task=CHANNELS_PER_TASK,
        lake=LAKE,
        export={"pool": POOL, "on_missing_channel": "skip"},
        default_args={"retries": 3},
    )

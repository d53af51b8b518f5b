"""Load every channel of the app that had a message since the window began, in batches of mapped tasks.

The service takes 60 exports a minute for the whole app. A pool keeps the batches from competing for them:

    airflow pools set chatexport 4 "concurrent exports" --include-deferred

No query finds soft-deleted channels: name them as ``extra_channels``.
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
# ``since`` is the start of the run's window, whether it comes from the schedule or from the run's conf.
ACTIVE = ChannelQuery(filter_conditions={"last_message_at": {"$gte": "{{ since }}"}})

with DAG(
    dag_id="chatexport_discovery",
    description="Every active channel of the app, in batches",
    doc_md=__doc__,
    schedule=CronDataIntervalTimetable("@daily", timezone="UTC"),
    start_date=datetime(2025, 1, 1, tz="UTC"),
    catchup=False,
    default_args={"retries": 3},
    tags=["chatexport"],
) as dag:
    chat_export_to_lake(
        channels=ACTIVE,
        channels_per_task=CHANNELS_PER_TASK,
        lake=LAKE,
        on_missing_channel="skip",
        export={"pool": POOL},
    )

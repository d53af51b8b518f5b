"""Load yesterday's messages of the channels that a function chooses, and report on them: functions and operators mixed.

The first task asks the service with the hook. The last one reads the lake.
"""

import os
from pathlib import Path
from typing import Any

from airflow.sdk import dag, task
from airflow.timetables.interval import CronDataIntervalTimetable
from pendulum import datetime

from airflow_provider_chatexport.core.discovery import ChannelQuery
from airflow_provider_chatexport.hooks.chatexport import ChatExportHook
from airflow_provider_chatexport.operators.export import ExportChannelsOperator
from airflow_provider_chatexport.operators.load import LoadExportOperator

LAKE = os.environ.get("CHATEXPORT_LAKE", str(Path.home() / "chatexport-lake"))


@task
def choose_channels() -> list[str]:
    with ChatExportHook("chatexport_default").client() as client:
        channels = client.find_channels(ChannelQuery(filter_conditions={"type": "messaging"}))
        return [cid for cid in channels if not cid.startswith("messaging:test-")]


@task
def report(load: dict[str, Any]) -> str:
    from airflow_provider_chatexport.lake import Lake

    with Lake(LAKE) as lake:
        day = lake.table("messages", since=load["window"]["since"], until=load["window"]["until"])
        ((n_people,),) = day.aggregate("count(DISTINCT user_id)").fetchall()
    return f"{load['rows']['messages']} messages of {n_people} people"


@dag(
    dag_id="chatexport_taskflow",
    description="Yesterday's messages of the channels that a function chooses, and a report",
    doc_md=__doc__,
    schedule=CronDataIntervalTimetable("@daily", timezone="UTC"),
    start_date=datetime(2025, 1, 1, tz="UTC"),
    catchup=False,
    default_args={"retries": 3},
    tags=["chatexport"],
)
def chatexport_taskflow() -> None:
    export = ExportChannelsOperator(task_id="export", channels=choose_channels(), deferrable=True)
    load = LoadExportOperator(task_id="load", exports=export.output, lake=LAKE)
    export >> load
    report(load.output)


dag = chatexport_taskflow()

"""A DAG for each way in which a run gets its window. Each has a lake of its own, next to that of the examples."""

import os
from datetime import timedelta
from pathlib import Path

from airflow.sdk import DAG, Asset
from airflow.timetables.interval import CronDataIntervalTimetable
from airflow.timetables.trigger import CronPartitionTimetable, CronTriggerTimetable
from pendulum import datetime

from airflow_provider_chatexport.core.discovery import ChannelQuery
from airflow_provider_chatexport.operators.params import window_params
from airflow_provider_chatexport.task_groups import chat_export_to_lake

DAY = timedelta(days=1)
CHANNELS = os.environ["CHATEXPORT_CHANNELS"]
LOADED = Asset("e2e_loaded")
WINDOWS = "triggering_asset_events.values() | first | map(attribute='extra.window.{}') | {}"

EXPORTS = {
    "cron_interval": {"schedule": CronDataIntervalTimetable("@daily", timezone="UTC"), "outlets": [LOADED]},
    "cron_trigger": {"schedule": CronTriggerTimetable("@daily", timezone="UTC", interval=DAY)},
    "plain_daily": {"schedule": "@daily"},
    "partition": {
        "schedule": CronPartitionTimetable("@daily", timezone="UTC", run_offset=-1),
        "export": {"partition_span": DAY},
    },
    "asset": {
        "schedule": LOADED,
        "export": {end: f"{{{{ {WINDOWS.format(end, of)} }}}}" for end, of in (("since", "min"), ("until", "max"))},
    },
    "by_hand": {"schedule": None, "params": window_params()},
    "splits": {"schedule": None, "export": {"max_splits": 1}},
    "mapped": {"schedule": None, "channels": ChannelQuery(filter_conditions={}), "channels_per_task": 3},
}

for name, how in EXPORTS.items():
    with DAG(
        dag_id=f"e2e_{name}",
        schedule=how["schedule"],
        params=how.get("params"),
        start_date=datetime(2025, 1, 6 if name == "cron_trigger" else 7, tz="UTC"),
        end_date=datetime(2025, 1, 7, tz="UTC") if name != "asset" else None,
        catchup=True,
    ) as dag:
        chat_export_to_lake(
            channels=how.get("channels", CHANNELS),
            channels_per_task=how.get("channels_per_task"),
            lake=str(Path(os.environ["CHATEXPORT_LAKE"]).with_name(f"lake-{name}")),
            export=how.get("export"),
            outlets=how.get("outlets", ()),
        )
    globals()[dag.dag_id] = dag

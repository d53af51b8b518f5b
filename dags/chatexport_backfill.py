"""Months of history in one run, triggered by hand with a window: a week at a time, each a load of its own.

    airflow pools set chatexport 4 "exports at one time" --include-deferred
    airflow dags trigger chatexport_backfill --conf '{"since": "2025-01-01T00:00:00Z", "until": "2025-07-01T00:00:00Z"}'

The pool bounds how many weeks are under way; a week that fails is retried alone. For a DAG with a schedule, Airflow's
own backfill does as well:

    airflow backfill create --dag-id chatexport_daily --from-date 2025-01-01 --to-date 2025-06-30 --max-active-runs 4
"""

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, task, task_group
from pendulum import datetime

from airflow_provider_chatexport.core.window import Window
from airflow_provider_chatexport.hooks.exceptions import as_airflow_errors
from airflow_provider_chatexport.operators.export import ExportChannelsOperator
from airflow_provider_chatexport.operators.load import LoadExportOperator
from airflow_provider_chatexport.operators.params import window_params

LAKE = os.environ.get("CHATEXPORT_LAKE", str(Path.home() / "chatexport-lake"))
CHANNELS = os.environ.get("CHATEXPORT_CHANNELS", "livestream:ubuntu,messaging:ubuntu-support")
POOL = os.environ.get("CHATEXPORT_POOL", "default_pool")


@task
def weeks(params: dict[str, Any]) -> list[dict[str, str]]:
    with as_airflow_errors():  # a window that is wrong is not tried again
        whole = Window.parse(params["since"], params["until"])
    return [window.to_json() for window in whole.split(timedelta(days=7))]


@task_group
def week(since: str, until: str) -> None:
    export = ExportChannelsOperator(
        task_id="export", channels=CHANNELS, since=since, until=until, deferrable=True, max_splits=2, pool=POOL
    )
    export >> LoadExportOperator(task_id="load", exports=export.output, lake=LAKE)


with DAG(
    dag_id="chatexport_backfill",
    schedule=None,
    start_date=datetime(2025, 1, 1, tz="UTC"),
    params=window_params(channels=False),
    default_args={"retries": 3},
    tags=["chatexport"],
) as dag:
    week.expand_kwargs(weeks())

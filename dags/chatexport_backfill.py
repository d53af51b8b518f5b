"""Load months of history in one run, triggered by hand with a window: week by week, each week a load of its own.

    airflow pools set chatexport 4 "concurrent exports" --include-deferred
    airflow dags trigger chatexport_backfill --conf '{"since": "2025-01-01T00:00:00Z", "until": "2025-07-01T00:00:00Z"}'

The pool limits how many weeks run at the same time. A week that fails is retried alone. For a DAG with a schedule,
Airflow's own backfill does the same:

    airflow backfill create --dag-id chatexport_daily --from-date 2025-01-01 --to-date 2025-06-30 --max-active-runs 4
"""

import os
from datetime import timedelta
from pathlib import Path

from airflow.sdk import DAG, task_group
from pendulum import datetime

from airflow_provider_chatexport.operators.export import ExportChannelsOperator
from airflow_provider_chatexport.operators.load import LoadExportOperator
from airflow_provider_chatexport.operators.params import window_params
from airflow_provider_chatexport.operators.windowed import SplitWindowOperator

LAKE = os.environ.get("CHATEXPORT_LAKE", str(Path.home() / "chatexport-lake"))
CHANNELS = os.environ.get("CHATEXPORT_CHANNELS", "livestream:ubuntu,messaging:ubuntu-support")
POOL = os.environ.get("CHATEXPORT_POOL", "default_pool")


@task_group
def week(since: str, until: str) -> None:
    export = ExportChannelsOperator(
        task_id="export", channels=CHANNELS, since=since, until=until, deferrable=True, max_splits=2, pool=POOL
    )
    export >> LoadExportOperator(task_id="load", exports=export.output, lake=LAKE)


with DAG(
    dag_id="chatexport_backfill",
    description="Months of history in one run, week by week",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2025, 1, 1, tz="UTC"),
    params=window_params(channels=False, required=True),
    default_args={"retries": 3},
    tags=["chatexport"],
) as dag:
    weeks = SplitWindowOperator(task_id="weeks", max_window=timedelta(days=7))
    week.expand_kwargs(weeks.output)

"""Run dbt after every load of ``chatexport_daily``.

``chatexport dbt init`` creates the project. dbt has its own environment, because its dependencies conflict with
Airflow's; this DAG only starts it.
"""

import os
from pathlib import Path

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, Asset
from pendulum import datetime

PROJECT = os.environ.get("CHATEXPORT_DBT_PROJECT", str(Path.home() / "chat-dbt"))
DBT = os.environ.get("CHATEXPORT_DBT", f"{PROJECT}/.venv/bin/dbt")

with DAG(
    dag_id="chatexport_dbt",
    description="dbt after every load of chatexport_daily",
    doc_md=__doc__,
    schedule=[Asset("chatexport_lake")],
    start_date=datetime(2025, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,  # only one process at a time can write a DuckDB database
    default_args={"retries": 3},
    tags=["chatexport"],
) as dag:
    BashOperator(task_id="build", bash_command=f"{DBT} build", cwd=PROJECT, append_env=True)

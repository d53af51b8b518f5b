"""After every load of ``chatexport_daily``: dbt builds what changed.

The project is one that ``chatexport dbt init`` made. dbt lives in an environment of its own, because its dependencies
and Airflow's do not go together; this DAG only calls it.
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
    schedule=[Asset("chatexport_lake")],
    start_date=datetime(2025, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,  # DuckDB lets one process write a database
    tags=["chatexport"],
) as dag:
    BashOperator(task_id="build", bash_command=f"{DBT} build", cwd=PROJECT, append_env=True)

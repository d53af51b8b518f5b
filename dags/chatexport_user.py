"""Load everything that the service stores about some users, for a data-subject request.

Trigger it by hand, with the user ids:

    airflow dags trigger chatexport_user --conf '{"user_ids": ["ann-17"]}'

The rows are in the views ``user_export_users``, ``user_export_messages`` and ``user_export_reactions``.
"""

import os
from pathlib import Path

from airflow.sdk import DAG, Param
from pendulum import datetime

from airflow_provider_chatexport.operators.export import ExportUsersOperator
from airflow_provider_chatexport.operators.load import LoadExportOperator

LAKE = os.environ.get("CHATEXPORT_LAKE", str(Path.home() / "chatexport-lake"))

with DAG(
    dag_id="chatexport_user",
    description="All that the service stores about some users",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2025, 1, 1, tz="UTC"),
    params={"user_ids": Param([], type="array", title="User ids", items={"type": "string"})},
    default_args={"retries": 3},
    tags=["chatexport"],
) as dag:
    export = ExportUsersOperator(task_id="export", deferrable=True)
    load = LoadExportOperator(task_id="load", exports=export.output, lake=LAKE)
    export >> load

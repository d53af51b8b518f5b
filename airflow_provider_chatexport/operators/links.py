"""The button of an export task in Airflow's UI."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


class ExportTaskLink(BaseOperatorLink):
    """The first export of the task, at the service: there from the moment that it is submitted, also while deferred.

    The service has no page for an export. The address says which export it is and on which host; the answer behind it
    takes a key and a token, neither of which is in it.
    """

    name = "Export at the service"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002
        # Airflow asks in the process that ran the task, when that ends or defers, and keeps the answer.
        return str(getattr(operator, "export_url", ""))

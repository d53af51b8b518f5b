"""The button of an export task in Airflow's UI."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


class ExportTaskLink(BaseOperatorLink):
    """The address of the task's first export at the service, from its submission on, also while the task is deferred.

    The service has no web page for an export. The address names the host and the export. It contains neither the key
    nor the token that a request to it needs.
    """

    name = "Export at the service"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002
        """Return the address; empty if nothing was submitted yet."""
        # Airflow calls this in the worker process when the task ends or defers, and stores the result.
        return str(getattr(operator, "export_url", ""))

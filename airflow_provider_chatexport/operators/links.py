"""The button of an export task in Airflow's UI, and the page that it leads to."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from airflow.providers.common.compat.sdk import BaseOperatorLink, conf

from airflow_provider_chatexport.core.plan import ChannelsRequest
from airflow_provider_chatexport.core.times import format_rfc3339

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator
    from airflow.sdk import Context
    from airflow.sdk.types import TaskInstanceKey

    from airflow_provider_chatexport.core.receipt import Receipt

log = logging.getLogger(__name__)

# The XCom of an export task that describes its exports for people. The value that it returns is for the load.
EXPORTS_KEY: Final = "exports"
_MOST_SHOWN: Final = 20


class ExportTaskLink(BaseOperatorLink):
    """The page of the task on which people find its exports, from their submission on: its XComs.

    The service has no web page for an export, and an address of its API answers a browser with 401.
    """

    name = "Exports at the service"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002
        """Return the address of the page."""
        # Airflow calls this in the worker process when the task ends or defers, and stores the result.
        mapped = "" if ti_key.map_index in (None, -1) else f"/mapped/{ti_key.map_index}"
        path = f"dags/{ti_key.dag_id}/runs/{quote(ti_key.run_id, safe=':+')}/tasks/{ti_key.task_id}{mapped}/xcom"
        base_url: str = conf.get("api", "base_url", fallback="/")
        return f"{base_url.rstrip('/')}/{path}"


def show_exports(context: Context, receipts: Sequence[Receipt], status: str) -> None:
    """Write the XCom that the button of the task leads to: its exports, without key, link or token.

    :param status: how the wait for the exports stands: ``submitted``, ``completed``, ``failed`` or ``timeout``.
    """
    if (ti := context.get("ti")) is None:
        return
    shown = [_described(receipt) for receipt in receipts[:_MOST_SHOWN]]
    try:
        ti.xcom_push(key=EXPORTS_KEY, value={"status": status, "n_exports": len(receipts), "exports": shown})
    except Exception as error:  # noqa: BLE001 - an XCom backend has errors of its own, and the export goes on without it
        log.warning("the exports cannot be shown on the page of the task: %s", type(error).__name__)


def _described(receipt: Receipt) -> dict[str, Any]:
    request = receipt.request
    if not isinstance(request, ChannelsRequest):
        return {"task_id": receipt.task_id, "n_users": len(request.user_ids)}
    window = request.window
    return {
        "task_id": receipt.task_id,
        "channels": list(request.channels),
        "since": format_rfc3339(window.since) if window else None,
        "until": format_rfc3339(window.until) if window else None,
    }

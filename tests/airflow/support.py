"""Operators with arguments that suit the sandbox, and what Airflow does with them."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from pkgutil import resolve_name
from typing import Any

from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_chatexport.core.plan import ChannelsRequest, Cid
from airflow_provider_chatexport.core.task import TaskId
from airflow_provider_chatexport.core.window import Window
from airflow_provider_chatexport.hooks.chatexport import ChatExportHook
from airflow_provider_chatexport.operators.export import ExportChannelsOperator
from airflow_provider_chatexport.operators.load import LoadExportOperator
from airflow_provider_chatexport.sandbox import Sandbox

SINCE, UNTIL = "2025-01-01T00:00:00Z", "2025-01-01T02:00:00Z"
WINDOW = Window.parse(SINCE, UNTIL)
REQUEST = ChannelsRequest(channels=(Cid("livestream:ubuntu"),), window=WINDOW)
EXPORTS = "/api/v2/chat/export_channels"
# More failed status requests in a row than a wait accepts.
TOO_MANY_FAILURES = 20


class TaskStateStore:
    """The store that Airflow keeps for a task instance: JSON values by key, which survive retries and clears."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def get(self, key: str, default: Any = None) -> Any:
        return json.loads(self.values[key]) if key in self.values else default

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        self.values[key] = json.dumps(value)

    def delete(self, key: str) -> None:
        self.values.pop(key, None)

    def clear(self) -> None:
        self.values.clear()

    def move_start_back(self, seconds: float) -> None:
        """Make the first try of the task older. Tests of deadlines do not have to wait then."""
        series = self.get("chatexport.series")
        self.set("chatexport.series", {**series, "began_epoch_s": series["began_epoch_s"] - seconds})


class TaskInstance:
    """A task instance: how often it may be tried, and what it shows people."""

    def __init__(self, max_tries: int = 2) -> None:
        self.max_tries = max_tries
        self.xcoms: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms[key] = json.loads(json.dumps(value))


def exporting(**arguments: Any) -> ExportChannelsOperator:
    """Return an operator that exports two hours of one channel, unless the arguments say otherwise."""
    defaults = {"channels": ["livestream:ubuntu"], "since": SINCE, "until": UNTIL, "poll_interval": 0.02}
    return ExportChannelsOperator(task_id="export", **{**defaults, **arguments})


def loading(exports: Any, lake: Any, **arguments: Any) -> LoadExportOperator:
    """Return an operator that loads these exports."""
    return LoadExportOperator(task_id="load", exports=exports, lake=lake, **arguments)


def exported(channel: str = "livestream:ubuntu", **window: str) -> list[dict[str, Any]]:
    """Export one hour of a channel; return the receipts, as JSON."""
    hour = {"since": "2025-01-01T09:00:00Z", "until": "2025-01-01T10:00:00Z", **window}
    return exporting(channels=[channel], deferrable=False, **hour).execute({})


def run(operator: Any, context: dict[str, Any] | None = None) -> Any:
    """Run a task as Airflow does, deferrals included. All that crosses a process goes through JSON."""
    step = partial(operator.execute, context or {})
    while True:
        try:
            return step()
        except TaskDeferred as deferral:
            path, arguments = deferral.trigger.serialize()
            trigger = resolve_name(path)(**json.loads(json.dumps(arguments)))
            (event,) = asyncio.run(events_of(trigger))
            method = getattr(operator, deferral.method_name)
            step = partial(method, context or {}, event=json.loads(json.dumps(event.payload)))


async def events_of(trigger: Any) -> list[Any]:
    """Run a trigger to its end; return its events."""
    return [event async for event in trigger.run()]


def submit(n_exports: int = 1) -> list[TaskId]:
    """Start exports at the service; return their ids."""
    with ChatExportHook().client() as client:
        return [client.submit_channels(REQUEST) for _ in range(n_exports)]


def n_exports(sandbox: Sandbox) -> int:
    """Return how many exports of channels the sandbox has started."""
    return sum(request.status == 201 for request in sandbox.control.requests(EXPORTS) if request.method == "POST")

"""Calls to a sandbox, as a program without an SDK makes them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import jwt

from airflow_provider_chatexport.sandbox import Sandbox

PATIENCE_S = 120.0
NS_PER_S = 1_000_000_000


class Calls:
    """A server-side client of one endpoint family.

    :param legacy: the legacy family, instead of ``/api/v2``.
    """

    def __init__(self, sandbox: Sandbox, *, legacy: bool = False) -> None:
        self.sandbox = sandbox
        self.control = sandbox.control
        self.legacy = legacy
        self.http = httpx.Client(
            base_url=sandbox.url,
            params={"api_key": sandbox.api_key},
            headers={"Authorization": token(sandbox, {"server": True}), "stream-auth-type": "jwt"},
            timeout=PATIENCE_S,
            verify=False,
        )
        # Without key and token. Neither client uses TLS, and reading its certificates takes 20 ms.
        self.keyless = httpx.Client(timeout=PATIENCE_S, verify=False)

    def close(self) -> None:
        """Close all connections."""
        self.http.close()
        self.keyless.close()

    def path(self, path: str, *, chat: bool = False) -> str:
        """Return a path in this family. ``chat``: it is one of those under ``/api/v2/chat``."""
        return path if self.legacy else f"/api/v2{'/chat' if chat else ''}{path}"

    def export(self, *cids: str, **body: Any) -> httpx.Response:
        """Request a v2 export of whole channels. ``channels=[...]`` replaces the list."""
        channels = [{"cid": cid} for cid in cids]
        return self.http.post(
            self.path("/export_channels", chat=True), json={"channels": channels, "version": "v2", **body}
        )

    def export_users(self, *user_ids: str) -> httpx.Response:
        """Request an export of users."""
        return self.http.post(self.path("/export/users"), json={"user_ids": list(user_ids)})

    def query(self, **body: Any) -> httpx.Response:
        """Query channels."""
        return self.http.post(self.path("/channels", chat=True), json={"filter_conditions": {}, **body})

    def cids(self, **body: Any) -> list[str]:
        """Return the channels of a query, in order."""
        return [entry["channel"]["cid"] for entry in self.query(**{"state": False, **body}).json()["channels"]]

    def task(self, task_id: str) -> dict[str, Any]:
        """Return the state of a task."""
        reply = self.http.get(self.path(f"/tasks/{task_id}"))
        assert reply.status_code == 200, reply.text
        return reply.json()

    def ended(self, created: httpx.Response) -> dict[str, Any]:
        """Wait for the task of a reply to be completed or failed, and return it."""
        assert created.status_code == 201, created.text
        deadline_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline_s:
            task = self.task(created.json()["task_id"])
            if task["status"] in ("completed", "failed"):
                return task
        raise AssertionError("the task did not end")

    def link(self, created: httpx.Response) -> str:
        """Wait for an export, and return the link to its file."""
        return self.ended(created)["result"]["url"]

    def file(self, created: httpx.Response) -> bytes:
        """Wait for an export, and return its file, downloaded without a key."""
        reply = self.keyless.get(self.link(created))
        assert reply.status_code == 200, reply.text
        return reply.content

    def entities(self, created: httpx.Response, name: str) -> Iterator[dict[str, Any]]:
        """Yield the objects of one entity in a file of the shape ``item`` or ``typed``."""
        lines = (json.loads(line) for line in self.file(created).splitlines() if line.strip())
        return (line["item"] if "item" in line else line["data"] for line in lines if line["type"] == name)

    def call_control(self, method: str, path: str, value: Any = None) -> httpx.Response:
        """Make a control call without ``SandboxControl``, for tests of the HTTP interface itself."""
        return self.keyless.request(method, f"{self.sandbox.url}/_sandbox{path}", json=value)


def token(sandbox: Sandbox, claims: dict[str, Any], *, secret: str | None = None, algorithm: str = "HS256") -> str:
    """Return a token with these claims, signed by the sandbox's secret unless the test gives another."""
    return jwt.encode(claims, secret or sandbox.api_secret, algorithm=algorithm)

"""Calls to a sandbox as a program without any SDK makes them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import jwt

from airflow_provider_chatexport.sandbox.server import Sandbox

PATIENCE_S = 30.0
NS_PER_S = 1_000_000_000


class Calls:
    """A server-side client of one endpoint family: ``/api/v2`` by default, the legacy one with ``legacy=True``."""

    def __init__(self, sandbox: Sandbox, *, legacy: bool = False) -> None:
        self.sandbox = sandbox
        self.legacy = legacy
        self.http = httpx.Client(
            base_url=sandbox.url,
            params={"api_key": sandbox.api_key},
            headers={"Authorization": token(sandbox, {"server": True}), "stream-auth-type": "jwt"},
            timeout=PATIENCE_S,
            verify=False,
        )
        # A stranger has no key and no token. Neither client speaks TLS, and reading its certificates takes 20 ms.
        self.stranger = httpx.Client(timeout=PATIENCE_S, verify=False)

    def close(self) -> None:
        self.http.close()
        self.stranger.close()

    def path(self, path: str, *, chat: bool = False) -> str:
        return path if self.legacy else f"/api/v2{'/chat' if chat else ''}{path}"

    def export(self, *cids: str, **body: Any) -> httpx.Response:
        """POST of a v2 export of whole channels; ``channels=[...]`` replaces the list."""
        channels = [{"cid": cid} for cid in cids]
        return self.http.post(
            self.path("/export_channels", chat=True), json={"channels": channels, "version": "v2", **body}
        )

    def export_users(self, *user_ids: str) -> httpx.Response:
        return self.http.post(self.path("/export/users"), json={"user_ids": list(user_ids)})

    def query(self, **body: Any) -> httpx.Response:
        return self.http.post(self.path("/channels", chat=True), json={"filter_conditions": {}, **body})

    def cids(self, **body: Any) -> list[str]:
        """The channels that a query finds, in order."""
        return [entry["channel"]["cid"] for entry in self.query(**{"state": False, **body}).json()["channels"]]

    def task(self, task_id: str) -> dict[str, Any]:
        reply = self.http.get(self.path(f"/tasks/{task_id}"))
        assert reply.status_code == 200, reply.text
        return reply.json()

    def ended(self, created: httpx.Response) -> dict[str, Any]:
        """The task that a reply announces, once it is completed or failed."""
        assert created.status_code == 201, created.text
        deadline_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline_s:
            task = self.task(created.json()["task_id"])
            if task["status"] in ("completed", "failed"):
                return task
        raise AssertionError("the task did not end")

    def link(self, created: httpx.Response) -> str:
        return self.ended(created)["result"]["url"]

    def file(self, created: httpx.Response) -> bytes:
        """The bytes of a finished export, fetched as a stranger would."""
        reply = self.stranger.get(self.link(created))
        assert reply.status_code == 200, reply.text
        return reply.content

    def entities(self, created: httpx.Response, name: str) -> Iterator[dict[str, Any]]:
        """The entities of one kind in a file of the typed shape."""
        lines = (json.loads(line) for line in self.file(created).splitlines() if line.strip())
        return (line["data"] for line in lines if line["type"] == name)

    def control(self, method: str, path: str, value: Any = None) -> httpx.Response:
        return self.stranger.request(method, f"{self.sandbox.url}/_sandbox{path}", json=value)

    def fault(self, do: str, path: str, **more: Any) -> None:
        assert self.control("POST", "/faults", {"do": do, "path": path, **more}).status_code == 200

    def advance(self, seconds: float) -> None:
        assert self.control("POST", "/clock", {"advance_s": seconds}).status_code == 200


def token(sandbox: Sandbox, claims: dict[str, Any], *, secret: str | None = None, algorithm: str = "HS256") -> str:
    return jwt.encode(claims, secret or sandbox.api_secret, algorithm=algorithm)

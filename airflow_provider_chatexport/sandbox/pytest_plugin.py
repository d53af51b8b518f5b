"""pytest fixtures for people who test their own DAGs, registered as an entry point of the package.

pytest imports this module in every run of every project that has the package installed, so it must stay this small:
the sandbox, with its web server, is imported when a test first uses a fixture. ``-p no:chatexport_sandbox`` turns it
off.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_chatexport import sandbox

if TYPE_CHECKING:
    from airflow_provider_chatexport.sandbox import Sandbox


@pytest.fixture
def chatexport_sandbox_factory() -> Iterator[Callable[..., Sandbox]]:
    """Start sandboxes that end with the test; arguments are those of ``SandboxSettings``.

    Unless they say otherwise, a sandbox is on a free port, its exports take no time, and it has no rate limits.
    """
    with contextlib.ExitStack() as running:

        def start(**settings: Any) -> Sandbox:
            chosen = sandbox.SandboxSettings(**{"task_s": 0.0, "rate_limit": False, **settings})
            return running.enter_context(sandbox.Sandbox(chosen))

        yield start


@pytest.fixture
def chatexport_sandbox(chatexport_sandbox_factory: Callable[..., Sandbox]) -> Sandbox:
    """Return a running sandbox of this test: ``url``, ``api_key``, ``api_secret``, ``world`` and ``control``."""
    return chatexport_sandbox_factory()


@pytest.fixture
def chatexport_connection(chatexport_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """Point the Airflow connection ``chatexport_default`` to ``chatexport_sandbox``, and return that.

    The connection polls every few milliseconds.
    """
    connection = {
        "conn_type": "chatexport",
        "login": chatexport_sandbox.api_key,
        "password": chatexport_sandbox.api_secret,
        "host": chatexport_sandbox.url,
        "extra": {"first_wait_s": 0.01, "longest_wait_s": 0.1},
    }
    monkeypatch.setenv("AIRFLOW_CONN_CHATEXPORT_DEFAULT", json.dumps(connection))
    return chatexport_sandbox

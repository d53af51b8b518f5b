"""Clients for the sandboxes of a test."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest
from sandbox_calls import Calls

from airflow_provider_chatexport.sandbox import Sandbox


@pytest.fixture
def calls_to() -> Iterator[Callable[..., Calls]]:
    """Yield a factory of clients whose connections end with the test."""
    with contextlib.ExitStack() as open_connections:

        def calls_to(sandbox: Sandbox, *, legacy: bool = False) -> Calls:
            calls = Calls(sandbox, legacy=legacy)
            open_connections.callback(calls.close)
            return calls

        yield calls_to


@pytest.fixture
def calls(sandbox: Sandbox, calls_to: Callable[..., Calls]) -> Calls:
    """Return a client of the current family."""
    return calls_to(sandbox)

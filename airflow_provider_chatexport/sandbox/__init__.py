"""The service on localhost: a real HTTP server that behaves as the service documents itself, with real chat in it.

For tests of your own DAGs, for demos, and for this package's tests::

    from airflow_provider_chatexport.sandbox import Sandbox

    with Sandbox() as sandbox:
        sandbox.control.fault("status:503", "/api/v2/tasks", times=2)
        ...  # point a connection or an SDK to sandbox.url, with sandbox.api_key and sandbox.api_secret

``chatexport sandbox`` runs the same server in a terminal, and ``SandboxControl(url)`` controls a sandbox of another
process. ``docs/sandbox.md`` has the rest.

``chat`` holds the messages and lets them change, ``exports`` writes them into files, ``web`` answers HTTP.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from airflow_provider_chatexport.sandbox.control import SandboxControl
    from airflow_provider_chatexport.sandbox.server import Sandbox
    from airflow_provider_chatexport.sandbox.settings import SandboxSettings

__all__ = ["Sandbox", "SandboxControl", "SandboxSettings"]

# Name -> module, loaded when the name is first used (PEP 562). pytest imports this package in every run of every
# project that has it installed, because of the plugin; the web server would cost each of them a third of a second.
_MODULES: Final = {"Sandbox": "server", "SandboxControl": "control", "SandboxSettings": "settings"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)

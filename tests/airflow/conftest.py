"""A home for Airflow, set up before anything imports it, and a connection to the sandbox."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_chatexport.sandbox import Sandbox

HOME = Path(tempfile.mkdtemp(prefix="chatexport-airflow-"))
atexit.register(shutil.rmtree, HOME, ignore_errors=True)

# Airflow reads its configuration when it is first imported, by the first test module in this folder.
os.environ.update(
    AIRFLOW_HOME=str(HOME),
    AIRFLOW__CORE__DAGS_FOLDER=str(Path(__file__).parents[2] / "dags"),
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__CORE__UNIT_TEST_MODE="False",
    AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{HOME}/airflow.db",
    AIRFLOW__LOGGING__BASE_LOG_FOLDER=str(HOME / "logs"),
    # A synchronous call that blocks the triggerer's loop is a warning in production, and must be an error here.
    AIRFLOW_DISABLE_GREENBACK_PORTAL="1",
)

# Airflow collects no lineage without a plugin that reads it.
(HOME / "plugins").mkdir()
(HOME / "plugins" / "lineage_reader.py").write_text("""
from airflow.plugins_manager import AirflowPlugin
from airflow.sdk.lineage import HookLineageReader

class LineageReaderPlugin(AirflowPlugin):
    name = "lineage_reader"
    hook_lineage_readers = [HookLineageReader]
""")

SetConnection = Callable[..., None]


@pytest.fixture(scope="session")
def airflow_database() -> None:
    """An empty metadata database, for tests that run whole DAGs."""
    from airflow.utils.db import initdb  # noqa: PLC0415 - after the environment above

    initdb()


@pytest.fixture
def set_connection(monkeypatch: pytest.MonkeyPatch) -> SetConnection:
    """Define the default connection as a deployment does: with its environment variable."""

    def define(*, extra: dict[str, Any] | None = None, **fields: Any) -> None:
        value = {"conn_type": "chatexport", **fields, "extra": extra or {}}
        monkeypatch.setenv("AIRFLOW_CONN_CHATEXPORT_DEFAULT", json.dumps(value))

    return define


@pytest.fixture
def connection(sandbox: Sandbox, set_connection: SetConnection) -> Sandbox:
    """A fresh sandbox that is the default connection."""
    set_connection(
        login=sandbox.api_key,
        password=sandbox.api_secret,
        host=sandbox.url,
        extra={"first_wait_s": 0.001, "longest_wait_s": 0.01},
    )
    return sandbox


@pytest.fixture
def fault(sandbox: Sandbox) -> Callable[..., None]:
    """Make the next requests to the sandbox fail: ``fault("status:503", "/api/v2/tasks", times=2)``."""
    return sandbox.control.fault

"""What Airflow reads from the provider: valid by its own schemas, and cheap to import."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from pkgutil import resolve_name

import jsonschema
import pytest

from airflow_provider_chatexport.errors import CallError
from airflow_provider_chatexport.hooks.config import configured_s
from airflow_provider_chatexport.provider_info import get_provider_info

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize("schema", ["provider_info.schema.json", "provider.yaml.schema.json"])
def test_the_provider_info_is_what_airflow_accepts(schema) -> None:
    """Airflow uses one schema at run time. Only the other has connection fields; it needs two keys more."""
    info = get_provider_info()
    if schema == "provider.yaml.schema.json":
        info |= {"state": "ready", "source-date-epoch": 1}
    jsonschema.validate(info, json.loads((files("airflow") / schema).read_text()))


def test_every_module_that_is_named_exists() -> None:
    """Airflow reports a missing module only when it is used."""
    info = get_provider_info()
    for kind in ("hooks", "operators", "sensors", "triggers"):
        for group in info[kind]:
            for module in group["python-modules"]:
                assert importlib.import_module(module)
    (connection,) = info["connection-types"]
    module, _, name = connection["hook-class-name"].rpartition(".")
    assert getattr(importlib.import_module(module), name).conn_type == connection["connection-type"]


def test_every_link_and_default_that_is_named_exists() -> None:
    """Airflow drops a link that does not import, without an error; an option must have the default that it states."""
    info = get_provider_info()
    for path in info["extra-links"]:
        assert resolve_name(path)().name
    (section,) = info["config"]
    options = info["config"][section]["options"]
    assert {name: float(option["default"]) for name, option in options.items()} == {
        name: configured_s(name) for name in options
    }


def test_the_configuration_has_the_defaults_of_tasks(monkeypatch) -> None:
    """They are read when a task runs, so no DAG has to change. A wrong value is one sentence."""
    monkeypatch.setenv("AIRFLOW__CHATEXPORT__GRACE_PERIOD_S", "7.5")
    assert 7.5 == configured_s("grace_period_s")
    monkeypatch.setenv("AIRFLOW__CHATEXPORT__GRACE_PERIOD_S", "a minute")
    with pytest.raises(CallError, match=r"\[chatexport\] grace_period_s .* give a number of seconds"):
        configured_s("grace_period_s")


def test_parsing_a_dag_loads_nothing_heavy() -> None:
    """Airflow parses a DAG file every half minute, and in every task: only the load itself needs duckdb and pyarrow.

    PyJWT brings cryptography. A function or group as a task, as of ``gaps``, brings the operators of Python.
    """
    script = """
import runpy, sys
import airflow_provider_chatexport.sensors.export, airflow_provider_chatexport.triggers.export
heavy = {"duckdb", "pyarrow", "pandas", "starlette", "uvicorn", "jwt"}
for name in ("daily", "quick"):
    runpy.run_path(f"dags/chatexport_{name}.py")
found = (heavy | {"airflow.providers.standard.operators.python"}) & sys.modules.keys()
runpy.run_path("dags/chatexport_gaps.py")
print(sorted(found | heavy & sys.modules.keys()))
"""
    ran = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "[]", ran.stdout


def test_airflow_finds_the_connection_type() -> None:
    """It uses the installed entry point, as the connection form and ``airflow providers list`` do."""
    from airflow.providers_manager import ProvidersManager  # noqa: PLC0415 - reads the configuration of conftest

    manager = ProvidersManager()
    assert "airflow-provider-chatexport" in manager.providers
    hook = manager.hooks["chatexport"]
    assert hook is not None
    assert (hook.hook_class_name.rpartition(".")[2], hook.connection_id_attribute_name) == (
        "ChatExportHook",
        "chatexport_conn_id",
    )

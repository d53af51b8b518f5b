"""The page about Airflow is complete and right."""

from __future__ import annotations

import inspect
import re
import shlex
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pages import commands

from airflow_provider_chatexport.hooks.chatexport import ChatExportHook
from airflow_provider_chatexport.operators.channels import ListChannelsOperator
from airflow_provider_chatexport.operators.export import ExportChannelsOperator, ExportUsersOperator
from airflow_provider_chatexport.operators.gaps import ListGapsOperator
from airflow_provider_chatexport.operators.load import LoadExportOperator
from airflow_provider_chatexport.operators.publish import PublishLakeOperator
from airflow_provider_chatexport.operators.windowed import SplitWindowOperator
from airflow_provider_chatexport.provider_info import CONFIG_OPTIONS
from airflow_provider_chatexport.sensors.export import ExportTaskSensor
from airflow_provider_chatexport.task_groups import chat_export_to_lake

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "airflow.md").read_text()


def arguments(callable_: Any) -> set[str]:
    """Return the arguments of a callable and of its base classes in this package."""
    classes = [each for each in getattr(callable_, "__mro__", [callable_]) if each.__module__.startswith("airflow_pro")]
    signatures = [inspect.signature(each.__init__ if inspect.isclass(each) else each) for each in classes]
    return {name for each in signatures for name in each.parameters} - {"self", "kwargs"}


@pytest.mark.parametrize(
    "callable_",
    [
        ExportChannelsOperator,
        ExportTaskSensor,
        ExportUsersOperator,
        ListChannelsOperator,
        ListGapsOperator,
        LoadExportOperator,
        PublishLakeOperator,
        SplitWindowOperator,
        chat_export_to_lake,
    ],
    ids=lambda each: each.__name__,
)
def test_every_argument_is_on_the_page(callable_) -> None:
    """Users do not find an argument that is only in the code."""
    assert callable_.__name__ in PAGE
    assert set() == {name for name in arguments(callable_) if f"`{name}`" not in PAGE}


def test_every_example_is_on_the_page() -> None:
    """The page names no example that does not exist."""
    assert {path.name for path in (ROOT / "dags").glob("*.py")} == set(re.findall(r"`(chatexport_\w+\.py)`", PAGE))


def test_every_default_of_the_deployment_is_on_the_page() -> None:
    """The page has the value of each."""
    defaults = dict(re.findall(r"^(\w+_s) = (\S+)", PAGE, re.MULTILINE))
    assert {name: option["default"] for name, option in CONFIG_OPTIONS.items()} == defaults


def test_the_functions_on_the_page_are_those_of_the_example() -> None:
    """``test_example_dags`` runs that DAG."""
    example = (ROOT / "dags" / "chatexport_taskflow.py").read_text()
    blocks = [
        block for block in re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S) if "choose_channels()" in block
    ]
    assert [True, True] == [block in example for block in blocks]


def test_the_container_on_the_page_has_the_airflow_that_is_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connection is one that the hook reads; its pip installs what this project is called."""
    (dockerfile,) = re.findall(r"^```dockerfile\n(.*?)^```", PAGE, re.M | re.S)
    (version,) = re.findall(r"^FROM apache/airflow:(\S+)$", dockerfile, re.M)
    assert re.search(rf"^apache-airflow=={re.escape(version)} ", (ROOT / "constraints.txt").read_text(), re.M)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (name, extra) = re.findall(r'"(airflow-provider-[\w-]+)\[(\w+)\]"', dockerfile)[0]
    assert name == project["name"]
    assert extra in project["optional-dependencies"]
    (variable, value) = re.findall(r"^docker run --env '(\w+)=(.*?)'", PAGE, re.M)[0]
    monkeypatch.setenv(variable, value)
    settings = ChatExportHook().settings()
    assert ("API_KEY", "API_SECRET") == (settings.api_key, settings.api_secret)


def test_the_template_for_assets_spans_several_events() -> None:
    """Airflow collects the events that come during a run for the next one: the window must contain all of them."""
    (text,) = re.findall(r"`\"(\{\{ triggering_asset_events.*?\}\})\"`", PAGE)
    template = text.replace("\\|", "|")
    windows = [{"since": "2025-01-02T00:00:00.000000Z"}, {"since": "2025-01-01T00:00:00.000000Z"}]
    events = {"lake": [SimpleNamespace(extra={"window": window}) for window in windows]}
    operator = ExportChannelsOperator(task_id="export", since=template)
    operator.render_template_fields({"triggering_asset_events": events})
    assert operator.since == "2025-01-01T00:00:00.000000Z"


def test_the_command_of_the_readme_adds_the_connection(airflow_database: None) -> None:
    """It is what people type first."""
    from airflow.cli.cli_parser import get_parser  # noqa: PLC0415 - slow to import
    from airflow.models.connection import Connection  # noqa: PLC0415
    from airflow.utils.session import create_session  # noqa: PLC0415

    (command,) = [shlex.split(each.text) for each in commands("README.md") if each.program == "airflow"]
    arguments = get_parser().parse_args(command[1:])
    arguments.func(arguments)
    with create_session() as session:
        connection = session.query(Connection).one()
        session.delete(connection)
    assert ("chatexport_default", ChatExportHook.conn_type) == (connection.conn_id, connection.conn_type)
    assert ("API_KEY", "API_SECRET") == (connection.login, connection.password)

"""The documents: what they promise holds, for users who installed the wheel and have no checkout."""

from __future__ import annotations

import gzip
import json
import os
import re
import shlex
import subprocess
import textwrap
from pathlib import Path

import duckdb
import pytest
from airflow_stack import free_port
from export_objects import channel, line, message
from make_docs import cli_page, tables_page, with_backfill_table
from make_docs import commands as cli_commands
from pages import PAGES, ROOT, Command, blocks, commands
from wheels import Installed

from airflow_provider_chatexport.cli import cli

# Page and start of a command -> the test that runs it. The commands of `chatexport` that are not here run in this file.
OF_DBT = "tests/e2e/test_dbt.py::test_the_commands_of_the_pages_run"
OF_SANDBOX = "tests/sandbox/test_sandbox_page.py::test_the_sandboxes_of_the_pages_start"
OF_REST_CATALOG = "tests/lake/publish/test_iceberg.py::test_a_rest_catalog_has_the_tables"
RUN_BY = {
    ("README.md", "make demo"): "tests/e2e/test_demo.py::test_the_demo_runs_and_may_be_repeated",
    ("README.md", "airflow connections add"): "tests/airflow/test_airflow_page.py::test_the_command_of_the_readme_adds",
    ("dbt/README.md", "python3 -m venv"): OF_DBT,
    ("dbt/README.md", ".venv/bin/"): OF_DBT,
    ("docs/airflow.md", "docker run"): "tests/airflow/test_airflow_page.py::test_the_container_on_the_page_has",
    ("docs/cli.md", "chatexport sandbox"): OF_SANDBOX,
    ("docs/dbt.md", "cd ./chat-dbt"): OF_DBT,
    ("docs/dbt.md", "python3 -m venv"): OF_DBT,
    ("docs/dbt.md", ".venv/bin/"): OF_DBT,
    ("docs/object-storage.md", "chatexport load"): "tests/test_python_page.py::test_five_lines_read_a_lake_on_s3",
    ("docs/publishing.md", "chatexport publish --iceberg --catalog"): OF_REST_CATALOG,
    ("docs/sandbox.md", "chatexport sandbox"): OF_SANDBOX,
    ("docs/sandbox.md", "curl"): "tests/sandbox/test_sandbox_page.py::test_the_curl_commands_work",
}
# The start of a command -> why no test runs it.
NOT_RUN = {
    "make test": "it is this suite",
    "pip install": "the tests have pinned packages, and read from no index",
    "docker build": "it needs a container engine; test_image.py runs the steps of the Dockerfile",
    "docker run --rm": "it needs a container engine; test_image.py starts the command of the image",
    "CHATEXPORT_LAKE=": "JupyterLab is not among the pinned packages; test_notebooks.py executes the notebooks",
    "cd docker": "it leads to the next lines, which need a container engine",
    "printf": "the secrets are for a container engine",
    "docker compose": "it needs a container engine; test_deployment_files.py checks what the file refers to",
    "kubectl": "it needs a cluster; test_deployment_files.py checks what the file refers to",
    "helm": "it needs a cluster; test_deployment_files.py checks what the file refers to",
    "duckdb ": "DuckDB's shell does not come as a Python package; test_locks.py opens catalogs as it does",
}
# Page and language of other code -> the test that runs or reads it.
CODE = {
    ("README.md", "python"): "tests/test_docs.py::test_the_dags_of_the_pages_are_dags",
    ("README.md", "sql"): "tests/test_docs.py::test_the_commands_of_the_pages_do_what_they_say",
    ("dbt/README.md", "yaml"): "tests/dbt/test_dbt_project.py::test_another_project_can_install_it_as_a_package",
    ("docs/airflow.md", "dockerfile"): "tests/airflow/test_airflow_page.py::test_the_container_on_the_page_has",
    ("docs/airflow.md", "ini"): "tests/airflow/test_airflow_page.py::test_every_default_of_the_deployment",
    ("docs/airflow.md", "python"): "tests/test_docs.py::test_the_dags_of_the_pages_are_dags",
    ("docs/dbt.md", "python"): "tests/e2e/test_dbt.py::test_the_cosmos_dag_of_the_page_builds_the_marts",
    ("docs/notebooks/operations.md", "python"): "tests/test_notebooks.py::test_a_notebook_runs_over_a_lake",
    ("docs/notebooks/tour.md", "python"): "tests/test_notebooks.py::test_a_notebook_runs_over_a_lake",
    ("docs/object-storage.md", "json"): "tests/lake/storage/test_permissions.py::test_the_documented_policy_suffices",
    ("docs/object-storage.md", "sql"): "tests/test_python_page.py::test_five_lines_read_a_lake_on_s3",
    ("docs/operating.md", "python"): "tests/test_docs.py::test_the_dags_of_the_pages_are_dags",
    ("docs/python.md", "python"): "tests/test_python_page.py::test_frames_of_every_kind",
    ("docs/sandbox.md", "python"): "tests/sandbox/test_sandbox_page.py::test_the_python_works",
    ("docs/sandbox.md", "yaml"): "tests/sandbox/test_sandbox_page.py::test_the_workflow_of_the_page_runs",
}

# Names that the sandbox does not have, and a sandbox that is quick.
STAND_INS = {
    "s3://chat/lake": "./lake",
    "team:x": "team:mediawiki",
    "--port 8900": "--port 8900 --task-seconds 0 --no-rate-limit",
}


def test_the_table_reference_is_the_registry() -> None:
    """The page would lack a column that was added without `python scripts/make_docs.py`."""
    assert (ROOT / "docs" / "tables.md").read_text() == tables_page()


def test_the_page_of_the_command_line_is_the_commands() -> None:
    """The page would lack an option that was added without `python scripts/make_docs.py`."""
    assert (ROOT / "docs" / "cli.md").read_text() == cli_page()


def test_the_table_of_backfills_is_what_plan_calculates() -> None:
    """A model that changes would leave the page behind; `python scripts/make_docs.py` writes it."""
    page = (ROOT / "docs" / "scaling.md").read_text()
    assert with_backfill_table(page) == page


def test_every_command_of_the_pages_is_run() -> None:
    """A test runs it, or a list has the reason why no test does. Neither list has an entry that no page needs."""
    targets = set(re.findall(r"^([a-z0-9-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    here, elsewhere, not_run = _sorted_out()
    assert set() == {each.program for each in here} - {"chatexport", "export"}
    assert (set(RUN_BY), set(NOT_RUN)) == (elsewhere, not_run)
    assert {each.text.split()[1] for each in commands() if each.program == "make"} <= targets
    code = {(each.page, each.language) for each in blocks()}
    # JavaScript needs Node, which is not among the pinned packages; other languages are data.
    assert set(CODE) == {each for each in code if each[1] not in {"sh", "", "text", "js"}} - {
        ("docs/service.md", "json")
    }
    for test in {*RUN_BY.values(), *CODE.values()}:
        path, _, name = test.partition("::")
        assert f"def {name}" in (ROOT / path).read_text(), test


def _sorted_out() -> tuple[list[Command], set[tuple[str, str]], set[str]]:
    """Return the commands that no list has, and the entries of both lists that are in use."""
    here, elsewhere, not_run = [], set(), set()
    for command in commands():
        by = {(page, start) for page, start in RUN_BY if page == command.page and command.text.startswith(start)}
        unrun = {start for start in NOT_RUN if command.text.startswith(start)}
        assert len(by) + len(unrun) < 2, command
        elsewhere |= by
        not_run |= unrun
        if not by and not unrun:
            here.append(Command(command.page, re.sub(r"^17 \* \* \* \* +", "", command.text)))
    return here, elsewhere, not_run


def test_commands_within_sentences_exist() -> None:
    """`chatexport sync --dry-run` in a sentence would outlive its option."""
    known = dict(cli_commands(cli))
    for page in PAGES:
        for text in re.findall(r"`(chatexport [^`]+)`", (ROOT / page).read_text()):
            words = [word for word in re.split(r"[\s,|]+", text) if re.match(r"-{0,2}[a-z][a-z-]*$", word)]
            name = " ".join(words[: 3 if words[1:2] == ["dbt"] else 2])
            if name in {"chatexport", "chatexport -v", "chatexport --version"}:
                continue
            assert name in known, (page, text)
            options = {each for param in known[name].params for each in (*param.opts, *param.secondary_opts)}
            assert {word for word in words if word.startswith("--")} - {"--help"} <= options, (page, text)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a folder to type commands in: it has export files."""
    messages = [message(), message("of-ann", user={"id": "ann-17"})]
    content = b"\n".join([line("channel", channel()), *(line("message", each) for each in messages)])
    (tmp_path / "export.ndjson.gz").write_bytes(gzip.compress(content))
    return tmp_path


def test_the_commands_of_the_pages_do_what_they_say(home: Path, installed: Installed) -> None:
    """A reader types them line by line into one shell, from the first one of the README on."""
    here, _, _ = _sorted_out()
    # The same command on another page does the same.
    texts = list(dict.fromkeys(re.sub(r"\s+#.*", "", each.text) for each in here))
    assert len(texts) > 20
    script = "\n".join(f"echo {shlex.quote('> ' + text)} >&2\n{text}" for text in texts)
    for name, stand_in in {**STAND_INS, "8900": str(free_port())}.items():
        script = script.replace(name, stand_in)
    ran = subprocess.run(
        ["bash", "-c", f"set -e; trap 'kill $!' EXIT\n{script}"],
        cwd=home,
        env={"PATH": f"{installed.scripts}{os.pathsep}/usr/bin:/bin", "HOME": str(home)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == ran.returncode, ran.stderr
    assert [] == [printed for printed in ran.stderr.splitlines() if not printed.startswith("> ")]
    (in_python,) = [block.text for block in blocks("README.md", language="python") if "Lake(" in block.text]
    ran = subprocess.run([installed.python, "-c", in_python], cwd=home, check=True, capture_output=True, text=True)
    assert "livestream:ubuntu" in ran.stdout
    (query,) = blocks("README.md", language="sql")
    with duckdb.connect(str(home / "lake" / "catalog.duckdb"), read_only=True) as lake:
        assert lake.sql(query.text).to_arrow_table().num_rows > 0


# Reads blocks of Python as JSON, runs each in a DAG of its own, and prints the ids of the tasks.
DAGS_OF = """
import json, sys
from datetime import datetime, timedelta
from typing import Any
from airflow.sdk import DAG, task, task_group
from airflow_provider_chatexport.core.discovery import ChannelQuery
from airflow_provider_chatexport.hooks.chatexport import ChatExportHook
from airflow_provider_chatexport.operators.export import ExportChannelsOperator
from airflow_provider_chatexport.operators.gaps import ListGapsOperator
from airflow_provider_chatexport.operators.load import LoadExportOperator
from airflow_provider_chatexport.operators.windowed import SplitWindowOperator
from airflow_provider_chatexport.sensors.export import ExportTaskSensor
from airflow_provider_chatexport.task_groups import chat_export_to_lake

LAKE = "./lake"
tasks = []
names = dict(globals())
for code in json.load(sys.stdin):
    with DAG("page", schedule=None, start_date=datetime(2025, 1, 1)) as page:
        exec(code, names)
    tasks.append(sorted(names.pop("dag", page).task_dict))
print(json.dumps(tasks))
"""


def test_the_dags_of_the_pages_are_dags(tmp_path: Path, installed: Installed) -> None:
    """People copy them into their own; the DAG of the README is short."""
    codes = [block.text for block in blocks("README.md", "docs/airflow.md", "docs/operating.md", language="python")]
    codes = [textwrap.dedent(code) for code in codes if 'with Lake("./lake")' not in code]
    assert codes[0].count("\n") <= 20
    environment = {"AIRFLOW_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    ran = subprocess.run(
        [installed.python, "-c", DAGS_OF],
        cwd=tmp_path,
        env=environment,
        input=json.dumps([codes[0].replace("\n):\n", "\n) as dag:\n"), *codes[1:]]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == ran.returncode, ran.stderr
    group = ["chat_export_to_lake.export", "chat_export_to_lake.load"]
    gaps = ["gaps", "missing.export", "missing.load"]
    assert [
        group,
        group,
        ["export", "weeks"],
        gaps,
        ["load", "submit", "wait"],
        [],
        ["choose_channels", "export", "load", "report"],
        [],
        group,
    ] == json.loads(ran.stdout.splitlines()[-1])

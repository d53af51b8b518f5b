"""``chatexport dbt init``: a dbt project over a lake, ready to build."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import click

import airflow_provider_chatexport
from airflow_provider_chatexport.cli.options import json_option, lake_option
from airflow_provider_chatexport.errors import CallError
from airflow_provider_chatexport.lake.catalog import catalog_file
from airflow_provider_chatexport.lake.storage.address import open_store
from airflow_provider_chatexport.lake.storage.local_store import LocalStore
from airflow_provider_chatexport.lake.storage.store import LakeStore

# What dbt makes in a project, which nobody wants in a copy of it or in a repository.
_MADE_BY_DBT = ("target", "logs", "dbt_packages", "*.duckdb", ".user.yml", "*.wal")


@click.group(name="dbt", epilog="Example: chatexport dbt init ./chat-dbt --lake ./lake")
def dbt() -> None:
    """A dbt project over the lake."""


@dbt.command(epilog="Example: chatexport dbt init ./chat-dbt --lake ./lake")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@lake_option
@json_option
def init(*, folder: Path, lake: str, as_json: bool) -> None:
    """Writes a dbt project with sources, staging models, marts and a profile for the lake."""
    store = open_store(lake)
    catalog_file.require_lake(store)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CallError(f"{folder} is there and not empty; name a new folder")
    try:
        shutil.copytree(_package(), folder, ignore=shutil.ignore_patterns(*_MADE_BY_DBT), dirs_exist_ok=True)
        (folder / "profiles.yml").write_text(_profile(store))
        (folder / ".gitignore").write_text("".join(f"{name}\n" for name in _MADE_BY_DBT))
        if not isinstance(store, LocalStore):
            project = folder / "dbt_project.yml"
            project.write_text(
                project.read_text().replace(
                    'chatexport_lake_files: ""',
                    f"chatexport_lake_files: {_quoted(store.uri)}",
                )
            )
    except OSError as error:
        raise CallError(f"cannot write {folder}: {error.strerror}; name a folder that can be written") from None
    if as_json:
        click.echo(json.dumps({"project": str(folder), "lake": store.uri}))
        return
    click.echo(
        f"made a dbt project in {folder}; dbt wants an environment of its own:\n"
        f"  cd {folder}\n"
        "  python -m venv .venv && .venv/bin/pip install -r requirements.txt\n"
        "  .venv/bin/dbt build"
    )


def _package() -> Path:
    """The dbt package: in an installation beside the modules, in a checkout at the top."""
    modules = Path(airflow_provider_chatexport.__file__).parent
    installed = modules / "dbt"
    return installed if installed.is_dir() else modules.parent / "dbt"


def _quoted(text: str) -> str:
    """JSON, which YAML reads as it is, but for characters in two escapes."""
    return json.dumps(text, ensure_ascii=False)


def _profile(store: LakeStore) -> str:
    if isinstance(store, LocalStore):
        reads = [
            "      attach:",
            f"        - {{path: {_quoted(store.url(catalog_file.NAME))}, alias: lake, read_only: true}}",
        ]
    else:
        # DuckDB attaches a database on an object store through an extension alone, which has to be downloaded; files
        # it reads through fsspec as well.
        reads = [
            "      filesystems:",
            f"        - {{fs: {_quoted(store.uri.partition('://')[0])}}}",
        ]
    return "\n".join(
        [
            "chatexport:",
            "  target: dev",
            "  outputs:",
            "    dev:",
            "      type: duckdb",
            "      path: chat.duckdb",
            "      threads: 4",
            "      settings: {TimeZone: UTC}",
            *reads,
            "",
        ]
    )

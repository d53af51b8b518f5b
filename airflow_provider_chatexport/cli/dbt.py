"""``chatexport dbt init``: create a dbt project over a lake, ready to build."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import click

import airflow_provider_chatexport
from airflow_provider_chatexport.cli.command import Group
from airflow_provider_chatexport.cli.options import json_option, lake_option
from airflow_provider_chatexport.errors import CallError
from airflow_provider_chatexport.lake import Lake

# What dbt writes into a project. It belongs neither in a copy of the project nor in a repository.
_WRITTEN_BY_DBT = ("target", "logs", "dbt_packages", "*.duckdb", ".user.yml", "*.wal")


@click.group(name="dbt", cls=Group, epilog="Example: chatexport dbt init ./chat-dbt --lake ./lake")
def dbt() -> None:
    """Create a dbt project over the lake."""


@dbt.command(short_help="Create a dbt project.", epilog="Example: chatexport dbt init ./chat-dbt --lake ./lake")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@lake_option
@json_option
def init(*, folder: Path, lake: str, as_json: bool) -> None:
    """Create a dbt project with sources, staging models, marts and a profile for the lake."""
    opened = Lake(lake)
    opened.require()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CallError(f"{folder} exists and is not empty; name a new folder")
    try:
        shutil.copytree(_package(), folder, ignore=shutil.ignore_patterns(*_WRITTEN_BY_DBT), dirs_exist_ok=True)
        (folder / "profiles.yml").write_text(_profile(opened, folder.resolve()))
        (folder / ".gitignore").write_text("".join(f"{name}\n" for name in _WRITTEN_BY_DBT))
    except OSError as error:
        raise CallError(f"cannot write {folder}: {error.strerror}; name a folder that can be written") from None
    if as_json:
        click.echo(json.dumps({"project": str(folder), "lake": opened.uri}))
        return
    click.echo(
        f"created a dbt project in {folder}; its README.md describes it. dbt needs an environment of its own:\n"
        f"  cd {folder}\n"
        "  python3 -m venv .venv && .venv/bin/pip install -r requirements.txt\n"
        "  .venv/bin/dbt build"
    )


def _package() -> Path:
    """Return the folder of the dbt package: in an installation next to the modules, in a checkout at the top."""
    modules = Path(airflow_provider_chatexport.__file__).parent
    installed = modules / "dbt"
    return installed if installed.is_dir() else modules.parent / "dbt"


def _quoted(text: str) -> str:
    """Return text as a YAML string: JSON is one, as long as no character is written as two escapes."""
    return json.dumps(text, ensure_ascii=False)


def _profile(lake: Lake, folder: Path) -> str:
    """Return the profiles.yml of the project.

    Its paths are absolute: Cosmos and other runners start dbt in folders of their own.
    """
    catalog, filesystems = lake.catalog, []
    if not lake.is_local:
        # Through fsspec, because DuckDB's own way to object stores is an extension that has to be downloaded. DuckDB
        # asks for it, too, if the path of a database starts with s3: or the like. So the lake is a folder of fsspec.
        scheme = lake.uri.partition("://")[0]
        catalog = f"dir://{catalog.rpartition('/')[2]}"
        filesystems = [
            "      filesystems:",
            f"        - {{fs: {scheme}}}",
            f"        - {{fs: dir, path: {_quoted(lake.uri)}, target_protocol: {scheme}}}",
        ]
    attach = ["      attach:", f"        - {{path: {_quoted(catalog)}, alias: lake, read_only: true}}"]
    return "\n".join(
        [
            "chatexport:",
            "  target: dev",
            "  outputs:",
            "    dev:",
            "      type: duckdb",
            f"      path: {_quoted(str(folder / 'chat.duckdb'))}",
            "      threads: 4",
            "      settings: {TimeZone: UTC}",
            *filesystems,
            *attach,
            "",
        ]
    )

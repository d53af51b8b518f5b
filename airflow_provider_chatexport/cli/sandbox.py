"""``chatexport sandbox``: run a copy of the service on localhost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from airflow_provider_chatexport.cli.command import command
from airflow_provider_chatexport.cli.options import json_option
from airflow_provider_chatexport.core.entities import References, Shape
from airflow_provider_chatexport.sandbox.chat.world import Bounds
from airflow_provider_chatexport.sandbox.server import serve
from airflow_provider_chatexport.sandbox.settings import SandboxSettings


@command(
    short_help="Run a copy of the service on localhost.",
    epilog="Example: chatexport sandbox --port 8900 --task-seconds 2",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8900, show_default=True, help="Port to listen on; 0 picks a free one.")
@click.option("--data", type=click.Path(path_type=Path), help="Serve this chat, and not the shipped corpus.")
@click.option("--messages", type=int, help="Generate this many messages, and serve those.")
@click.option(
    "--shape",
    type=click.Choice([shape.value for shape in Shape]),
    default="item",
    show_default=True,
    help="Shape of a line in an export.",
)
@click.option(
    "--references",
    type=click.Choice([references.value for references in References]),
    help="How an export names users and channels. By default by id with the shape item, else as objects.",
)
@click.option(
    "--bounds",
    type=click.Choice(["half-open", "inclusive", "exclusive"]),
    default="half-open",
    show_default=True,
    help="Which ends of a window belong to it.",
)
@click.option("--no-attachment-links", is_flag=True, help="Leave the original addresses of attachments in exports.")
@click.option("--gzip", is_flag=True, help="Compress export files with gzip.")
@click.option("--task-seconds", type=float, default=1.0, show_default=True, help="Seconds that an export takes.")
@click.option("--no-rate-limit", is_flag=True, help="Accept any number of requests a minute.")
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="FAULT",
    help='Make requests go wrong from the start: "DO PATH [times=N] [after=N] [method=GET]". Repeatable.',
)
@json_option
def sandbox(**arguments: Any) -> None:
    """Run a copy of the service on localhost, with real chat in it: for demos, and to test your own DAGs."""
    settings = SandboxSettings(
        host=arguments["host"],
        port=arguments["port"],
        data=arguments["data"],
        messages=arguments["messages"],
        shape=Shape(arguments["shape"]),
        references=References(arguments["references"]) if arguments["references"] else None,
        bounds=Bounds(arguments["bounds"]),
        attachment_links=not arguments["no_attachment_links"],
        gzip=arguments["gzip"],
        task_s=arguments["task_seconds"],
        rate_limit=not arguments["no_rate_limit"],
        faults=arguments["faults"],
    )
    as_json = arguments["as_json"]
    serve(settings, lambda url: click.echo(json.dumps({"url": url}) if as_json else f"listening on {url}"))

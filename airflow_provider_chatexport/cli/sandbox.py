"""``chatexport sandbox``: the service on localhost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from airflow_provider_chatexport.cli.options import json_option
from airflow_provider_chatexport.core.entities import Shape
from airflow_provider_chatexport.sandbox.chat.world import Bounds
from airflow_provider_chatexport.sandbox.server import serve
from airflow_provider_chatexport.sandbox.settings import SandboxSettings


@click.command(
    short_help="The service on localhost, with real chat in it.",
    epilog="Example: chatexport sandbox --port 8900 --task-seconds 2",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8900, show_default=True, help="Port; 0 picks a free one.")
@click.option("--data", type=click.Path(path_type=Path), help="Chat to serve instead of the corpus that ships.")
@click.option("--messages", type=int, help="Make this many messages instead.")
@click.option(
    "--shape",
    type=click.Choice([shape.value for shape in Shape]),
    default="typed",
    show_default=True,
    help="How a line of an export looks.",
)
@click.option(
    "--bounds",
    type=click.Choice(["half-open", "inclusive", "exclusive"]),
    default="half-open",
    show_default=True,
    help="Whether a message on the edge of a window is in it.",
)
@click.option("--gzip", is_flag=True, help="Export files are gzip.")
@click.option("--task-seconds", type=float, default=1.0, show_default=True, help="How long an export takes.")
@click.option("--no-rate-limit", is_flag=True, help="Refuse nothing for coming too fast.")
@json_option
def sandbox(**given: Any) -> None:
    """The service on localhost, with real chat in it: for demos, and to test your own DAGs."""
    settings = SandboxSettings(
        host=given["host"],
        port=given["port"],
        data=given["data"],
        messages=given["messages"],
        shape=Shape(given["shape"]),
        bounds=Bounds(given["bounds"]),
        gzip=given["gzip"],
        task_s=given["task_seconds"],
        rate_limit=not given["no_rate_limit"],
    )
    as_json = given["as_json"]
    serve(settings, lambda url: click.echo(json.dumps({"url": url}) if as_json else f"listening on {url}"))

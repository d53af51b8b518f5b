"""``chatexport redact``: a sample of an export file that gives nothing away."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import BinaryIO

import click

from airflow_provider_chatexport.cli.command import command
from airflow_provider_chatexport.cli.options import json_option
from airflow_provider_chatexport.cli.output_file import whole_file
from airflow_provider_chatexport.cli.terminal import TerminalProgress
from airflow_provider_chatexport.errors import CallError
from airflow_provider_chatexport.lake.sample.rewriter import Sample, write_sample


@command(
    short_help="Replace every value of an export file, to send it to others.",
    epilog="Example: chatexport redact export.ndjson.gz --output sample.ndjson",
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write to this file; by default to stdout.")
@json_option
def redact(*, file: Path, output: Path | None, as_json: bool) -> None:
    """Replace every value of an export file, so that you can send it to others.

    Keys of the service, their order, types, lines, spaces and escapes stay. Your own keys become custom_key_1,
    custom_key_2 and so on. Texts become lorem ipsum, and times move. Equal ids stay equal, so references still match.
    """
    if output is None:
        if as_json:
            raise CallError("--json prints its object to stdout, where the sample goes; name a file with --output")
        _write(file, sys.stdout.buffer, with_progress=not sys.stdout.isatty())
        return
    if output.exists() and file.exists() and output.samefile(file):
        raise CallError(f"--output names the export itself, {file}; name another file")
    with whole_file(output) as part, part.open("wb") as target:
        sample = _write(file, target, with_progress=True)
    if as_json:
        report = {"file": str(output), "bytes_in": sample.bytes_in, "bytes_out": sample.bytes_out}
        click.echo(json.dumps(report | {"values": sample.n_values, "custom_keys": sample.n_custom_keys}))
        return
    click.echo(
        f"written to {output}; values replaced: {sample.n_values}, different keys of your own replaced: "
        f"{sample.n_custom_keys}. Look at the file before you send it"
    )


def _write(file: Path, target: BinaryIO, *, with_progress: bool) -> Sample:
    if not with_progress:  # a bar and a sample on the same terminal would mix
        return write_sample(file, target)
    whole_bytes = file.stat().st_size if file.is_file() else None
    with TerminalProgress() as progress:
        return write_sample(file, target, progress=lambda n_bytes: progress.stage("redact", n_bytes, whole_bytes))

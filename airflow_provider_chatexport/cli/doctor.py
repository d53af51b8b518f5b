"""``chatexport doctor``: what a bug report needs, and what a newcomer has not set up yet. It prints no secret."""

from __future__ import annotations

import enum
import importlib.metadata
import json
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

import click

from airflow_provider_chatexport import __version__
from airflow_provider_chatexport.cli.command import command
from airflow_provider_chatexport.cli.options import (
    json_option,
    optional_lake_option,
    service_options,
    settings_from,
)
from airflow_provider_chatexport.cli.terminal import print_table
from airflow_provider_chatexport.cli.words import count
from airflow_provider_chatexport.core.discovery import ChannelPage
from airflow_provider_chatexport.core.progress import Unit, format_count
from airflow_provider_chatexport.errors import ChatExportError, LakeError, ServiceError, without_credentials

_PACKAGES: Final = ("apache-airflow", "apache-airflow-task-sdk", "duckdb", "pyarrow", "fsspec", "httpx", "click")
_EXTRAS: Final = {"s3": ("s3fs", "lakes on s3://"), "plot": ("matplotlib", "pictures of coverage")}
# Tokens and open windows depend on the time. The clock of the service is known to the second.
_LARGEST_SKEW_S: Final = 30.0
_LONGEST_ANSWER_S: Final = 10.0


class Status(enum.StrEnum):
    """The result of a check."""

    OK = "ok"
    PROBLEM = "problem"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of the report: the name of a check, its result, and the facts behind it."""

    name: str
    status: Status
    detail: str


@command(
    name="doctor",
    short_help="Check the installation, the connection and a lake, for a bug report.",
    epilog="Example: chatexport doctor --lake ./lake",
)
@optional_lake_option
@service_options
@json_option
def doctor(**arguments: Any) -> None:
    """Check the installation, the connection and a lake, and print what a bug report needs. No key is printed.

    Exits with 1 if there is a problem. It skips what you do not name: the lake, or the connection.
    """
    versions = _versions()
    checks = [*_extras(), *_service(arguments), *_lake(arguments["lake"]), _temporary_folder()]
    is_well = all(check.status is not Status.PROBLEM for check in checks)
    if arguments["as_json"]:
        click.echo(json.dumps({"ok": is_well, "versions": versions, "checks": [asdict(check) for check in checks]}))
    else:
        print_table(["version", ""], [[name, version] for name, version in versions.items()])
        click.echo()
        print_table(["check", "", ""], [[check.name, check.status, check.detail] for check in checks])
    if not is_well:
        sys.exit(1)


def _versions() -> dict[str, str | None]:
    """Return versions by name; None for a package that is not installed."""
    return {
        "chatexport": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        **{name: _installed(name) for name in _PACKAGES},
    }


def _installed(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _extras() -> Iterator[Check]:
    for extra, (package, purpose) in _EXTRAS.items():
        if version := _installed(package):
            yield Check(name=f"extra [{extra}]", status=Status.OK, detail=f"{package} {version}, for {purpose}")
        else:
            detail = f"{purpose} need it: pip install 'airflow-provider-chatexport[{extra}]'"
            yield Check(name=f"extra [{extra}]", status=Status.SKIPPED, detail=detail)


def _service(arguments: dict[str, Any]) -> Iterator[Check]:
    """Yield whether the service answers and accepts the key, and whether the clocks agree."""
    if not (arguments["api_key"] or arguments["api_secret"]):
        detail = "no key is given: STREAM_API_KEY and STREAM_API_SECRET, or --api-key and --api-secret"
        yield Check(name="service", status=Status.SKIPPED, detail=detail)
        return
    ahead_s: list[float] = []

    def ask() -> str:
        from airflow_provider_chatexport.api.client import ChatExportClient  # noqa: PLC0415 - half a second

        settings = settings_from(arguments)
        with ChatExportClient(settings.within(_LONGEST_ANSWER_S).without_retries()) as client:
            began = time.monotonic()
            has_answered = True
            try:
                client.query_channels(ChannelPage(limit=1))
            except ServiceError as error:
                has_answered = error.http_status is not None
                raise
            finally:
                # A wrong clock may be why the service refuses the token.
                if has_answered:
                    ahead_s.append(client.now().timestamp() - time.time())
            took_s = time.monotonic() - began
        return f"{settings.base_url} accepts the key, and answered in {took_s:.1f} s"

    yield _checked("service", ask)
    if ahead_s:
        yield _clock(ahead_s[0])


def _clock(service_ahead_s: float) -> Check:
    n_seconds = abs(service_ahead_s)
    if n_seconds <= _LARGEST_SKEW_S:
        return Check(name="clock", status=Status.OK, detail="this machine's agrees with the service's")
    where = "behind" if service_ahead_s > 0 else "ahead of"
    detail = f"this machine's is {n_seconds:,.0f} s {where} the service's, which may refuse tokens; set it with NTP"
    return Check(name="clock", status=Status.PROBLEM, detail=detail)


def _lake(uri: str | None) -> Iterator[Check]:
    """Yield whether the lake can be read and written, and whether its catalog shows all of it."""
    if uri is None:
        yield Check(name="lake", status=Status.SKIPPED, detail="none is given: --lake, or CHATEXPORT_LAKE")
        return
    from airflow_provider_chatexport.lake import Lake  # noqa: PLC0415 - half a second

    def read() -> str:
        lake = Lake(uri)
        lake.require()
        return f"{lake.uri} can be read: {count(lake.n_loads(), 'load')}"

    def write() -> str:
        try:
            Lake(uri).check_writable()
        except LakeError as error:
            raise LakeError(f"{error.message}; only loads and maintenance write it") from None
        return "loads can write it"

    def look() -> str:
        if problem := Lake(uri).catalog_problem():
            raise ChatExportError(problem)
        return "shows all loads, and no process has locked it"

    can_be_read = _checked("lake", read)
    yield can_be_read
    if can_be_read.status is Status.OK:
        yield _checked("lake: write", write)
        yield _checked("lake: catalog", look)


def _temporary_folder() -> Check:
    folder = tempfile.gettempdir()
    free = format_count(shutil.disk_usage(folder).free, Unit.BYTES)
    return Check(name="temporary folder", status=Status.OK, detail=f"{folder}, {free} free")


def _checked(name: str, check: Callable[[], str]) -> Check:
    try:
        return Check(name=name, status=Status.OK, detail=without_credentials(check()))
    except ChatExportError as error:
        return Check(name=name, status=Status.PROBLEM, detail=error.message)
    except Exception as error:  # noqa: BLE001 - whatever it is, the other checks are of use
        detail = f"an error inside chatexport ({type(error).__name__}); CHATEXPORT_DEBUG=1 shows it in other commands"
        return Check(name=name, status=Status.PROBLEM, detail=detail)

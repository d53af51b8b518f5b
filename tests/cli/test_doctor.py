"""``chatexport doctor``: what a bug report needs, and never a secret."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from command_line import Run
from lakes import shell_on

from airflow_provider_chatexport import __version__
from airflow_provider_chatexport.sandbox import Sandbox

VARIABLES = ("STREAM_API_KEY", "STREAM_API_SECRET", "STREAM_BASE_URL", "CHATEXPORT_LAKE")


@pytest.fixture(autouse=True)
def nothing_is_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the variables of the person who runs the tests."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def checked(run: Run, *arguments: object, code: int = 0) -> dict[str, Any]:
    """Return the checks by name, each as its status and what it says."""
    ran = run("doctor", *arguments, "--json")
    assert (code, code == 0) == (ran.code, ran.json["ok"]), ran.out
    return {each["name"]: (each["status"], each["detail"]) for each in ran.json["checks"]}


def test_an_installation_with_nothing_set_up_is_well(run: Run) -> None:
    """A newcomer sees the versions, and what to give to have more checked."""
    ran = run("doctor")
    assert (0, "") == (ran.code, ran.err)
    for part in (__version__, "duckdb", "STREAM_API_KEY", "CHATEXPORT_LAKE"):
        assert part in ran.out
    assert {"skipped"} == {checked(run)[name][0] for name in ("service", "lake")}


def test_a_service_and_a_lake_that_work_are_ok(run: Run, service: Sandbox, small_lake: Path) -> None:
    """Each line says what works, so that a report shows what the reason is not."""
    found = checked(run, "--lake", small_lake)
    assert {"ok"} == {found[name][0] for name in ("service", "clock", "lake", "lake: write", "lake: catalog")}
    assert f"{service.url} accepts the key" in found["service"][1]
    assert f"{small_lake} can be read: 1 load" == found["lake"][1]


def test_no_secret_is_printed(run: Run, service: Sandbox, small_lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """People paste it into a public issue, also when the check of the key has failed."""
    monkeypatch.setenv("CHATEXPORT_PSEUDONYM_KEY", "pseudonym-secret-1234567890")
    arguments = ("--lake", "ftp://ann:lake-password@127.0.0.1:1/lake")
    for key in (service.api_key, "another-key"):
        monkeypatch.setenv("STREAM_API_KEY", key)
        ran = run("doctor", *arguments)
        for secret in (key, service.api_secret, "lake-password", "pseudonym-secret"):
            assert secret not in ran.out + ran.err


def test_what_is_wrong_is_a_problem_with_a_cure(
    run: Run, service: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exit code is for scripts. One problem hides no other."""
    service.control.advance_clock(timedelta(hours=1))
    found = checked(run, "--lake", tmp_path / "typo", code=1)
    assert ["problem", "problem"] == [found[name][0] for name in ("clock", "lake")]
    assert re.search(r"(3,599|3,600) s behind", found["clock"][1])
    assert "there is no lake at" in found["lake"][1]
    assert not (tmp_path / "typo").exists()
    monkeypatch.setenv("STREAM_API_SECRET", "not-the-secret-but-as-long-as-a-secret-has-to-be")
    refused = checked(run, code=1)
    assert ["problem", "problem"] == [refused[name][0] for name in ("service", "clock")]
    monkeypatch.setenv("STREAM_BASE_URL", "http://127.0.0.1:1")
    unreachable = checked(run, code=1)
    assert "cannot be reached" in unreachable["service"][1]
    assert "clock" not in unreachable
    monkeypatch.delenv("STREAM_API_SECRET")
    assert "the API secret is missing" in checked(run, code=1)["service"][1]


def test_a_catalog_that_readers_cannot_open_is_a_problem(run: Run, small_lake: Path) -> None:
    """A shell without -readonly locks dbt and BI tools out; the process is named. Then the catalog is gone."""
    catalog = small_lake / "catalog.duckdb"
    with shell_on(catalog) as shell:
        status, detail = checked(run, "--lake", small_lake, code=1)["lake: catalog"]
    assert "problem" == status
    for part in (f"(PID {shell.pid})", "is locked", "-readonly"):
        assert part in detail
    aside = catalog.rename(small_lake / "aside")
    assert "has no catalog; run chatexport catalog" in checked(run, "--lake", small_lake, code=1)["lake: catalog"][1]
    aside.rename(catalog)

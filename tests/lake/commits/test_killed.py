"""SIGKILL at every distinct step that changes a lake: readers see it before or after, and the next run finishes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest
from export_objects import channel, line, message, write_lines
from forks import Forks
from lakes import LakeProbe, at, load_file, write_export

from airflow_provider_chatexport.lake.catalog.refresh import refresh
from airflow_provider_chatexport.lake.load.job import load_files
from airflow_provider_chatexport.lake.maintenance.compact import compact
from airflow_provider_chatexport.lake.maintenance.forget import forget_user
from airflow_provider_chatexport.lake.maintenance.vacuum import vacuum
from airflow_provider_chatexport.lake.maintenance.verify import verify
from airflow_provider_chatexport.lake.storage.address import open_store
from airflow_provider_chatexport.lake.storage.store import LakeStore
from airflow_provider_chatexport.sandbox import Sandbox

# There are dozens of steps, and a process for each: that takes minutes on a busy machine.
pytestmark = pytest.mark.timeout(1800)

KILLED = Path(__file__).with_name("killed.py")
BEFORE = {"a": "a1", "b": "b1", "c": "c1"}
AFTER = {"a": "a2", "b": "b2", "d": "d2"}
EXPORTED = "2026-01-02T03:00:00Z"


class Template:
    """A lake that can be put back, at the same place, as often as needed."""

    def __init__(self, folder: Path) -> None:
        self.lake = LakeProbe(str(folder / "lake"))
        self.newer = write_export(folder / "three", {"a": (8, "a2"), "b": (9, "b2"), "d": (11, "d2")})
        self.forks = Forks(KILLED)
        self._saved = folder / "saved"
        self._output = folder / "output"

    @property
    def store(self) -> LakeStore:
        """Open the lake: a store that was opened earlier remembers records of a lake that has been put back since."""
        return open_store(self.lake.uri)

    def save(self) -> None:
        shutil.copytree(self.lake.uri, self._saved, copy_function=os.link)

    def put_back(self) -> None:
        shutil.rmtree(self.lake.uri)
        shutil.copytree(self._saved, self.lake.uri, copy_function=os.link)

    def run(self, kill_at: int, *arguments: str) -> tuple[int, str]:
        """Run a command, and return its exit code and its output."""
        typed = (self.lake.uri, str(kill_at), *arguments, "--lake", self.lake.uri)
        return self.forks.run(self._output, *typed), self._output.read_text()

    def kill_at_every_step(self, *arguments: str, within: str = "") -> Iterator[int]:
        """Run a command once for each step, and kill it there. Yield the step's number after each kill.

        :param within: kill only at steps with this text in their description.
        """
        code, output = self.run(0, *arguments)
        assert code == 0, output
        _, steps = output.split("\nSTEPS\n")
        chosen = [int(number) for number, _, kind in map(_parts, steps.splitlines()) if within in kind]
        assert chosen
        for step in chosen:
            self.put_back()
            code, output = self.run(step, *arguments)
            # Whether a folder has to be created varies, and moves the numbers. Past the last one, nothing is killed.
            assert code in (-9, 0), output
            yield step

    def glob(self) -> dict[str, str]:
        pattern = f"{self.lake.uri}/messages/*/*.parquet"
        return {each: text for each, text in self.lake.rows(f"SELECT id, text FROM read_parquet('{pattern}')")}  # noqa: C416

    def assert_well(self) -> None:
        self.lake.assert_tidy_but_for_leftovers()
        findings = verify(self.store, now=datetime.now(UTC)).findings
        assert [] == [each for each in findings if each.is_fault and each.kind != "gap"]
        vacuum(self.store, keep=timedelta(0), now=datetime.now(UTC) + timedelta(days=2))
        self.lake.assert_tidy()
        assert [] == list((Path(self.lake.uri) / "_staging").glob("*"))


def _parts(step: str) -> tuple[str, str, str]:
    return step.partition(" ")


@pytest.fixture
def template(tmp_path: Path) -> Iterator[Template]:
    template = Template(tmp_path)
    first = write_export(tmp_path / "one", {"a": (8, "a1"), "b": (9, "b1")})
    load_file(template.lake, first, 8, 10, "2026-01-02T01:00:00Z")
    load_file(template.lake, write_export(tmp_path / "two", {"c": (10, "c1")}), 10, 12, "2026-01-02T02:00:00Z")
    yield template
    template.forks.close()


def test_a_load_killed_at_any_step(template: Template) -> None:
    """A load replaces another: readers see all that was there, or all that is new."""
    template.save()
    window = ("--since", at(8), "--until", at(12), "--exported-at", EXPORTED)
    seen = []
    for step in template.kill_at_every_step("load", str(template.newer), *window):
        shown, globbed = template.lake.texts(), template.glob()
        assert shown in (BEFORE, AFTER), step
        assert globbed in (BEFORE, AFTER), step
        seen += [shown, globbed]
        load_file(template.lake, template.newer, 8, 12, EXPORTED)
        assert (AFTER, AFTER) == (template.lake.texts(), template.glob()), step
        template.assert_well()
    assert BEFORE in seen
    assert AFTER in seen


def test_a_load_killed_while_it_merges_what_is_behind_it(template: Template) -> None:
    """The load is committed, and readers see it whole, whatever became of the files of earlier loads."""
    shown = dict(BEFORE)
    for hour in range(12, 18):
        path = write_export(template.newer.with_name(f"hour-{hour}"), {f"h{hour}": (hour, "1")})
        load_file(template.lake, path, hour, hour + 1, EXPORTED, auto_compact=False)
        shown[f"h{hour}"] = "1"
    template.save()
    later = write_export(template.newer.with_name("later"), {"z": (8, "z1")}, day=5)
    shown["z"] = "z1"
    window = ("--since", "2026-01-05", "--until", "2026-01-06", "--exported-at", "2026-01-06T00:00:00Z")
    for step in template.kill_at_every_step("load", str(later), *window, within="rewrite-"):
        assert (shown, shown) == (template.lake.texts(), template.glob()), step
        assert 0 == template.run(0, "load", str(later), *window)[0]
        assert (shown, shown) == (template.lake.texts(), template.glob()), step
        template.assert_well()


def test_a_download_killed_at_any_step(template: Template, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers see nothing of a half-downloaded file, and the whole window once it is exported again."""
    template.save()
    monkeypatch.setenv("STREAM_API_KEY", sandbox.api_key)
    monkeypatch.setenv("STREAM_API_SECRET", sandbox.api_secret)
    monkeypatch.setenv("STREAM_BASE_URL", sandbox.url)
    window = ("--since", "2025-01-01T09:00:00Z", "--until", "2025-01-01T10:00:00Z")
    arguments = ("export", "--channel", "livestream:ubuntu", *window)
    for step in template.kill_at_every_step(*arguments, within="/export-"):
        assert (BEFORE, BEFORE) == (template.lake.texts(), template.glob()), step
        assert 0 == template.run(0, *arguments)[0]
        assert len(BEFORE) + 161 == len(template.lake.texts())
        template.assert_well()


WORK: Final = """
import os, signal, sys
from pathlib import Path
from airflow_provider_chatexport.lake.load.job import load_files

path, lake, work_dir = sys.argv[1:]

def kill(stage, done, whole):
    if stage == "convert":
        os.kill(os.getpid(), signal.SIGKILL)

load_files([Path(path)], lake_uri=lake, work_dir=Path(work_dir), progress=kill)
"""


def test_the_next_load_deletes_what_a_killed_one_left_in_its_work_dir(
    template: Template, tmp_path: Path, monkeypatch
) -> None:
    """It is the raw export. The next load there deletes it, but nothing that may be in use or is not ours."""
    work = tmp_path / "work"
    not_ours = work / "chatexport-notes"
    not_ours.mkdir(parents=True)

    def left_by_killed_load() -> Path:
        before = set(work.iterdir())
        command = [sys.executable, "-c", WORK, str(template.newer), str(tmp_path / "other"), str(work)]
        assert -9 == subprocess.run(command, check=False).returncode
        (left,) = set(work.iterdir()) - before
        assert [each for each in left.rglob("*") if each.is_file()]
        return left

    def age(folder: Path) -> None:
        for each in (folder, *folder.rglob("*")):
            os.utime(each, (0, 0))

    old, growing, new = (left_by_killed_load() for _ in range(3))
    for each in (old, growing, not_ours):
        age(each)
    os.utime(next(each for each in growing.rglob("*") if each.is_file()))
    load_files([template.newer], lake_uri=template.lake.uri, work_dir=work)
    assert {not_ours, growing, new} == set(work.iterdir())

    # Loads into an object store work in the temporary folder, so vacuum deletes what they left there.
    monkeypatch.setattr(tempfile, "tempdir", str(work))
    age(growing)
    store = open_store("memory://lake")
    store.replace("catalog.duckdb", b"")
    assert 1 == vacuum(store, keep=timedelta(0), now=datetime.now(UTC)).n_leftovers
    assert {not_ours, new} == set(work.iterdir())


@pytest.mark.parametrize(
    ("arguments", "again"),
    [
        (("compact",), compact),
        (("vacuum", "--keep", "0s"), lambda store: vacuum(store, keep=timedelta(0), now=datetime.now(UTC))),
        (("catalog",), lambda store: refresh(store, full=True)),
    ],
    ids=["compact", "vacuum", "catalog"],
)
def test_maintenance_killed_at_any_step(
    template: Template, arguments: tuple[str, ...], again: Callable[[LakeStore], object]
) -> None:
    """Maintenance does not change what the views show, however far it got."""
    newer = write_export(Path(template.lake.uri).parent / "four", {"b": (9, "b2")})
    load_file(template.lake, newer, 9, 11, EXPORTED, accept_shrink=True)
    if arguments[0] == "vacuum":
        compact(template.store)
    template.save()
    shown = template.lake.texts()
    assert {"a": "a1", "b": "b2"} == shown
    for step in template.kill_at_every_step(*arguments):
        assert shown == template.lake.texts(), step
        again(template.store)
        assert shown == template.lake.texts(), step
        template.assert_well()


def test_a_removal_of_a_person_killed_at_any_step(template: Template) -> None:
    """Views show all of the person's messages or none, and the next run removes what is left."""
    theirs = [line("message", message("p", cid="a:1", user={"id": "person-1"}, created_at=at(11, 30)))]
    path = Path(template.lake.uri).parent / "theirs"
    load_file(template.lake, write_lines(path, [line("channel", channel("a:1")), *theirs]), 11, 12, EXPORTED)
    template.save()
    before, after = BEFORE | {"p": "text of p"}, BEFORE
    assert before == template.lake.texts()
    for step in template.kill_at_every_step("forget-user", "person-1"):
        assert template.lake.texts() in (before, after), step
        assert template.glob() in (before, after), step
        forget_user(template.store, "person-1", now=datetime.now(UTC))
        assert (after, after) == (template.lake.texts(), template.glob()), step
        template.assert_well()

"""What every format has to do: one suite over all of them. ``published.FORMATS`` has a case for each."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from export_objects import channel, line, member, message, reaction, user, write_lines
from forks import Forks
from lakes import LakeProbe, at, load_file, write_export
from published import FORMATS, Format, assert_same, texts

from airflow_provider_chatexport.core.options import LoadOptions
from airflow_provider_chatexport.errors import CallError, LakeError
from airflow_provider_chatexport.lake import Lake
from airflow_provider_chatexport.lake.commits import published
from airflow_provider_chatexport.lake.publish import driver, publisher
from airflow_provider_chatexport.lake.publish.formats import PublishedTable, TableFormat
from airflow_provider_chatexport.lake.publish.plan import Change
from airflow_provider_chatexport.lake.schema.tables import TABLES
from airflow_provider_chatexport.lake.schema.types import Table
from airflow_provider_chatexport.lake.storage.address import open_store

KILLED = Path(__file__).parents[1] / "commits" / "killed.py"
PROMOTE = {"messages": {"priority": "BIGINT"}}
LOAD_ANY = LoadOptions(max_rejected=None)


@pytest.fixture(params=FORMATS, ids=lambda form: form.sink.value)
def form(request: pytest.FixtureRequest) -> Format:
    return request.param


def load_days(lake: LakeProbe, path: Path, texts: dict[int, str], exported_at: str, **options: object) -> None:
    """Load days of January 2026, each with two messages, a reaction, an attachment, and what a channel has."""
    lines = [line("channel", channel("a:1")), line("member", member("ann") | {"cid": "a:1"})]
    for day, text in texts.items():
        for hour, author in ((9, "ann"), (15, "bob")):
            fields = message(
                f"m{day}-{hour}",
                cid="a:1",
                created_at=at(hour, day=day),
                text=text,
                user=user(author, name=author.title()),
                mentioned_users=[user("cyd")],
                priority=day,
                attachments=[{"type": "image", "image_url": "https://files/a.png"}],
            )
            lines.append(line("message", fields))
        lines.append(line("reaction", reaction(f"m{day}-9", "cyd", created_at=at(10, day=day)) | {"cid": "a:1"}))
    lines.append(b"{broken")
    with Lake(lake.uri) as opened:
        opened.load(
            write_lines(path, lines),
            since=at(0, day=min(texts)),
            until=at(0, day=max(texts) + 1),
            exported_at=exported_at,
            options=LOAD_ANY if not options else LoadOptions(max_rejected=None, **options),
        )


@pytest.fixture
def two_loads(lake: LakeProbe, tmp_path: Path) -> LakeProbe:
    """A lake with two loads, of which the second hides half a day of the first; and an export of a user."""
    load_days(lake, tmp_path / "one", {1: "v1", 2: "v1"}, "2026-02-01T00:00:00Z")
    noon = write_export(tmp_path / "noon", {"m2-15": (15, "v2"), "late": (16, "v2")}, day=2)
    with Lake(lake.uri) as opened:
        opened.load(noon, since=at(12, day=2), until=at(0, day=3), exported_at="2026-02-02T00:00:00Z")
        opened.load(
            write_lines(tmp_path / "of-user", [line("user", user("ann")), line("message", message("x", cid="a:1"))]),
            kind="users",
            exported_at="2026-02-02T00:00:00Z",
        )
    return lake


def test_published_tables_follow_the_lake(two_loads: LakeProbe, tmp_path: Path, form: Format) -> None:
    """First publication, overlapping reload, compaction, promoted column: each reader sees what the views show."""
    lake = Lake(two_loads.uri)
    first = lake.publish(form.sink)
    assert first.changed
    assert {"m1-9": "v1", "m1-15": "v1", "m2-9": "v1", "m2-15": "v2", "late": "v2"} == texts(two_loads, form)
    assert_same(two_loads, form)

    n_records, state = len(two_loads.records()), form.state(two_loads, "messages")
    again = lake.publish(form.sink)
    assert (False, 0, n_records, state) == (
        again.changed,
        again.rewritten,
        len(two_loads.records()),
        form.state(two_loads, "messages"),
    )

    load_days(two_loads, tmp_path / "reload", {2: "v3", 3: "v3"}, "2026-02-03T00:00:00Z", promote=PROMOTE)
    assert "v3" not in texts(two_loads, form).values(), "readers see the last publication until the next"
    lake.publish(form.sink)
    assert_same(two_loads, form, by_duckdb=False)
    (read, *_) = form.readers(two_loads, "messages").values()
    promoted = {row["id"]: row["priority"] for row in read().select(["id", "priority"]).to_pylist()}
    assert (3, 2) == (promoted["m3-9"], promoted["m2-15"])

    lake.compact()
    lake.publish(form.sink)
    lake.vacuum(keep=timedelta(0))
    assert_same(two_loads, form)
    two_loads.assert_glob_equals_view()
    assert lake.verify().ok


def test_a_removed_person_is_in_no_table_and_no_file(two_loads: LakeProbe, form: Format) -> None:
    """Tables are published before files are deleted, so no reader finds a file gone; the receipt says what is left."""
    lake = Lake(two_loads.uri)
    lake.publish(form.sink)
    before = {str(path) for path in Path(two_loads.uri).rglob("*.pq")}
    report = lake.forget_user("ann")
    assert [form.sink.value] == report.published
    assert "where other engines cached, cloned or copied these tables" in report.to_json()["other_engines"]
    assert_same(two_loads, form, by_duckdb=False)
    assert {"m1-15", "m2-15", "late"} >= texts(two_loads, form).keys()
    assert report.deleted > 0
    assert before - {str(path) for path in Path(two_loads.uri).rglob("*.pq")}


def test_files_that_a_published_table_names_outlive_the_vacuum(
    two_loads: LakeProbe, tmp_path: Path, form: Format
) -> None:
    """A load supersedes files at any time. Readers of published tables have them until the next publication."""
    lake = Lake(two_loads.uri)
    lake.publish(form.sink)
    shown = texts(two_loads, form)
    load_days(two_loads, tmp_path / "reload", {1: "v9", 2: "v9"}, "2026-02-09T00:00:00Z")
    lake.vacuum(keep=timedelta(0))
    assert shown == texts(two_loads, form)
    assert_is_remembered(two_loads, form)
    lake.publish(form.sink)
    assert {"v9"} == set(texts(two_loads, form).values())


def assert_is_remembered(lake: LakeProbe, form: Format) -> None:
    (publication,) = published.read(open_store(lake.uri))
    assert (form.sink.value, None) == (publication.format, publication.catalog)
    assert publication.as_of is not None
    assert publication.as_of <= datetime.now(UTC)


def test_three_publishers_at_once_make_one_publication(two_loads: LakeProbe, form: Format) -> None:
    """One of them commits, and the others find nothing to do: no row is there twice."""
    failures: list[BaseException] = []
    start = threading.Barrier(3)

    def publish() -> None:
        try:
            start.wait()
            Lake(two_loads.uri).publish(form.sink)
        except BaseException as error:  # noqa: BLE001 - the test shows it
            failures.append(error)

    threads = [threading.Thread(target=publish) for _ in range(3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert [] == failures
    assert_same(two_loads, form, by_duckdb=False)


class Dying:
    """A format whose process dies right after a commit to its first table."""

    def __init__(self, table_format: TableFormat) -> None:
        self.kind, self.where, self._open = table_format.kind, table_format.where, table_format.open
        self._committed: list[Change] = []

    def open(self, table: Table) -> PublishedTable:
        if self._committed:
            raise KeyboardInterrupt
        opened = self._open(table)
        return SimpleNamespace(state=opened.state, commit=lambda each: self._commit(opened, each))

    def _commit(self, opened: PublishedTable, change: Change) -> None:
        opened.commit(change)
        self._committed.append(change)


def test_a_publisher_that_dies_between_two_tables_is_finished_by_the_next(
    two_loads: LakeProbe, tmp_path: Path, form: Format
) -> None:
    """Messages are one publication ahead of their reactions. The next run changes what is left, and no more."""
    Lake(two_loads.uri).publish(form.sink)
    load_days(two_loads, tmp_path / "reload", {2: "v3", 3: "v3"}, "2026-02-03T00:00:00Z")
    store = open_store(two_loads.uri)
    with pytest.raises(KeyboardInterrupt):
        driver.publish(store, Dying(publisher.open_format(store, form.sink)))
    assert two_loads.texts() == texts(two_loads, form)
    report = Lake(two_loads.uri).publish(form.sink)
    changes = {each.table: (each.added, each.removed) for each in report.tables}
    assert ((0, 0), 0) == (changes["messages"], report.rewritten)
    assert changes["reactions"] > (0, 0)
    assert_same(two_loads, form, by_duckdb=False)


@pytest.mark.timeout(1800)
def test_a_publisher_killed_at_any_step(two_loads: LakeProbe, tmp_path: Path, form: Format) -> None:
    """Each table shows the last publication or this one, and the next run brings all of them together."""
    lake = Lake(two_loads.uri)
    lake.publish(form.sink)
    old = texts(two_loads, form)
    load_days(two_loads, tmp_path / "reload", {2: "v3", 3: "v3"}, "2026-02-03T00:00:00Z")
    new = two_loads.texts()
    seen = []
    for step in killed_at_every_step(two_loads, tmp_path, f"--{form.sink.value}"):
        shown = texts(two_loads, form)
        assert shown in (old, new), step
        seen.append(shown)
        assert new == two_loads.texts(), step
        Lake(two_loads.uri).publish(form.sink)
        assert new == texts(two_loads, form), step
        Lake(two_loads.uri).vacuum(keep=timedelta(0))
        assert new == texts(two_loads, form), step
    assert old in seen
    assert new in seen
    assert_same(two_loads, form)


def killed_at_every_step(lake: LakeProbe, folder: Path, *arguments: str) -> Iterator[str]:
    """Publish once for each step at which a publisher can be killed, and kill it there; yield after each kill."""
    forks, saved, output = Forks(KILLED), folder / "saved", folder / "output"
    shutil.copytree(lake.uri, saved)
    try:
        typed = (lake.uri, "{}", "publish", *arguments, "--lake", lake.uri)
        assert 0 == forks.run(output, *(each.format(0) for each in typed)), output.read_text()
        # A table is published as every other is: the steps of the first one stand for all.
        others = [f"/{table.name}/" for table in TABLES[1:]]
        steps = output.read_text().split("\nSTEPS\n")[1].splitlines()
        steps = [step for step in steps if not any(each in step for each in others)]
        assert steps
        for step in steps:
            number = step.partition(" ")[0]
            shutil.rmtree(lake.uri)
            shutil.copytree(saved, lake.uri)
            assert forks.run(output, *(each.format(number) for each in typed)) in (-9, 0), output.read_text()
            yield step
    finally:
        forks.close()


def test_a_lake_with_lost_files_is_not_published(two_loads: LakeProbe, form: Format) -> None:
    """Publishing would take the rows out of the tables, and nothing would say that they are missing."""
    Lake(two_loads.uri).publish(form.sink)
    victim = next(each for each in two_loads.snapshot().file_states if each.is_live and each.file.table == "messages")
    for path in Path(two_loads.uri).rglob(f"{Path(victim.file.path).stem}.*"):
        path.unlink()
    load_file(
        two_loads, write_export(Path(two_loads.uri).parent / "more", {"z": (8, "z")}), 8, 9, "2026-02-09T00:00:00Z"
    )
    with pytest.raises(LakeError, match="are lost, and publishing would hide that; run chatexport repair"):
        Lake(two_loads.uri).publish(form.sink)


def test_what_is_not_a_format_is_one_sentence(lake: LakeProbe) -> None:
    with pytest.raises(CallError, match="a lake is published as delta or iceberg, and the format is 'hudi'"):
        Lake(lake.uri).publish("hudi")

"""What every format has to do: one suite over all of them. ``published.FORMATS`` has a case for each."""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from types import SimpleNamespace

import pytest
from export_objects import channel, line, member, message, reaction, user, write_lines
from forks import Forks
from lakes import LakeProbe, at, load_file, write_export
from published import Delta, Format, Iceberg, assert_same, configure, publish, texts
from s3_proxy import Behaviour, Reply, Request, Send, in_front_of
from s3_server import S3Server

from airflow_provider_chatexport.core.options import LoadOptions
from airflow_provider_chatexport.errors import CallError, LakeError
from airflow_provider_chatexport.lake import Lake
from airflow_provider_chatexport.lake.catalog.refresh import refresh
from airflow_provider_chatexport.lake.commits import published
from airflow_provider_chatexport.lake.publish import driver, publisher
from airflow_provider_chatexport.lake.publish.formats import PublishedTable, TableFormat
from airflow_provider_chatexport.lake.publish.plan import Change
from airflow_provider_chatexport.lake.schema.tables import TABLES
from airflow_provider_chatexport.lake.schema.types import Table
from airflow_provider_chatexport.lake.storage.address import open_store

KILLED = Path(__file__).parents[1] / "commits" / "killed.py"
# What differs between two names of one kind: ids of uploads, snapshots and lists, and numbers.
IDS = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f_]{16,}|\d+")
PROMOTE = {"messages": {"priority": "BIGINT"}}
LOAD_ANY = LoadOptions(max_rejected=None)


@pytest.fixture(params=[Delta(), Iceberg()], ids=lambda form: form.sink.value)
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


def make_two_loads(lake: LakeProbe, folder: Path) -> LakeProbe:
    """Make a lake with two loads, of which the second hides half a day of the first; and an export of a user."""
    load_days(lake, folder / "one", {1: "v1", 2: "v1"}, "2026-02-01T00:00:00Z")
    noon = write_export(folder / "noon", {"m2-15": (15, "v2"), "late": (16, "v2")}, day=2)
    with Lake(lake.uri) as opened:
        opened.load(noon, since=at(12, day=2), until=at(0, day=3), exported_at="2026-02-02T00:00:00Z")
        opened.load(
            write_lines(folder / "of-user", [line("user", user("ann")), line("message", message("x", cid="a:1"))]),
            kind="users",
            exported_at="2026-02-02T00:00:00Z",
        )
    return lake


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of that lake, for copies."""
    folder = tmp_path_factory.mktemp("made")
    return Path(make_two_loads(LakeProbe(str(folder / "lake")), folder).uri)


@pytest.fixture
def two_loads(made: Path, lake: LakeProbe) -> LakeProbe:
    """A copy of that lake, with a catalog of its own."""
    shutil.copytree(made, lake.uri)
    refresh(open_store(lake.uri), full=True)
    return lake


def reload(lake: LakeProbe, folder: Path, version: str = "v3", number: int = 3, **options: object) -> None:
    """Load the second day once more, and a third one."""
    load_days(lake, folder / version, {2: version, 3: version}, f"2026-02-{number:02}T00:00:00Z", **options)


@pytest.mark.parametrize(
    ("name", "place"), [("delta", "disk"), ("iceberg", "disk"), ("delta", "s3"), ("iceberg", "s3")]
)
def test_published_tables_follow_the_lake(
    name: str, place: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Whatever happens to a lake, each reader sees what the views show, as of the last publication.

    One lake goes through all of it, as a lake in production does. In the object store, Iceberg has a REST catalog.
    """
    if place == "disk":
        lake = request.getfixturevalue("two_loads")
        form = Delta() if name == "delta" else Iceberg()
    else:
        lake = make_two_loads(request.getfixturevalue("bucket"), tmp_path)
        form = Delta() if name == "delta" else Iceberg(request.getfixturevalue("rest_catalog"))
    check_first_publication(lake, form)
    check_nothing_to_do(lake, form)
    check_overlapping_reload(lake, form, tmp_path)
    check_compaction(lake, form)
    check_removal(lake, form)


def check_first_publication(lake: LakeProbe, form: Format) -> None:
    """Files with hidden rows were rewritten, and every table is there."""
    assert publish(lake, form).changed
    assert {"m1-9": "v1", "m1-15": "v1", "m2-9": "v1", "m2-15": "v2", "late": "v2"} == texts(lake, form)
    assert_same(lake, form)
    assert_is_remembered(lake, form)


def check_nothing_to_do(lake: LakeProbe, form: Format) -> None:
    """A second publication writes nothing, neither to the lake nor to a table."""
    before = (len(lake.records()), form.state(lake, "messages"))
    report = publish(lake, form)
    assert (False, 0) == (report.changed, report.rewritten)
    assert before == (len(lake.records()), form.state(lake, "messages"))


def check_overlapping_reload(lake: LakeProbe, form: Format, folder: Path) -> None:
    """Readers have their files until the next publication, also after a vacuum. Then three publishers make one."""
    shown = texts(lake, form)
    reload(lake, folder, promote=PROMOTE)
    # Tables of users' exports are settled together, although one of them gets no rows.
    of_user = write_lines(folder / "of-another-user", [line("user", user("bob"))])
    Lake(lake.uri).load(of_user, kind="users", exported_at="2026-02-03T00:00:00Z")
    Lake(lake.uri).vacuum(keep=timedelta(0))
    assert shown == texts(lake, form)
    publish_three_times_at_once(lake, form)
    assert_same(lake, form)
    (read, *_) = form.readers(lake, "messages").values()
    promoted = {row["id"]: row["priority"] for row in read().select(["id", "priority"]).to_pylist()}
    assert (3, 2) == (promoted["m3-9"], promoted["m2-15"])


def publish_three_times_at_once(lake: LakeProbe, form: Format) -> None:
    """Let one of three commit, and the others find nothing to do: no row is there twice."""
    failures: list[BaseException] = []
    start = threading.Barrier(3)

    def publish_one() -> None:
        try:
            start.wait()
            publish(lake, form)
        except BaseException as error:  # noqa: BLE001 - the test shows it
            failures.append(error)

    threads = [threading.Thread(target=publish_one) for _ in range(3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert [] == failures


def check_compaction(lake: LakeProbe, form: Format) -> None:
    """Tables name the files of the compaction, and the vacuum deletes those before it."""
    opened = Lake(lake.uri)
    opened.compact()
    publish(lake, form)
    opened.vacuum(keep=timedelta(0))
    assert_same(lake, form, by_duckdb=not lake.is_remote)
    lake.assert_glob_equals_view()
    assert opened.verify().ok


def check_removal(lake: LakeProbe, form: Format) -> None:
    """Tables are published before files are deleted, so no reader finds a file gone; the receipt says what is left."""
    before = data_files(lake)
    report = Lake(lake.uri).forget_user("ann")
    assert [form.sink.value] == report.published
    assert "where other engines cached, cloned or copied these tables" in report.to_json()["other_engines"]
    assert_same(lake, form)
    assert {"m1-15", "m2-15", "m3-15"} == texts(lake, form).keys()
    assert report.deleted > 0
    assert before - data_files(lake)


def data_files(lake: LakeProbe) -> set[str]:
    return {path for path, _ in open_store(lake.uri).walk("_files", ".pq")}


def assert_is_remembered(lake: LakeProbe, form: Format) -> None:
    (publication,) = published.read(open_store(lake.uri))
    assert (form.sink.value, form.catalog) == (publication.format, publication.catalog)
    assert publication.as_of is not None
    assert publication.as_of <= datetime.now(UTC)


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
    publish(two_loads, form)
    reload(two_loads, tmp_path)
    store = open_store(two_loads.uri)
    with pytest.raises(KeyboardInterrupt):
        driver.publish(store, Dying(publisher.open_format(store, form.sink)))
    assert two_loads.texts() == texts(two_loads, form)
    report = publish(two_loads, form)
    changes = {each.table: (each.added, each.removed) for each in report.tables}
    assert ((0, 0), 0) == (changes["messages"], report.rewritten)
    assert changes["reactions"] > (0, 0)
    assert_same(two_loads, form)


@pytest.mark.timeout(1800)
def test_a_publisher_killed_at_any_step(two_loads: LakeProbe, tmp_path: Path, form: Format) -> None:
    """Each table shows the last publication or this one, and the next run brings all of them together.

    Of Delta, only the steps before and after deltalake's own are seen here: it writes from Rust. On a disk its commit
    is one link to a file that is whole. In an object store it is one request, at which the next test stops it.
    """
    publish(two_loads, form)
    old = texts(two_loads, form)
    reload(two_loads, tmp_path)
    new = two_loads.texts()
    seen = []
    for step in killed_at_every_step(two_loads, tmp_path, f"--{form.sink.value}"):
        seen.append(shown := texts(two_loads, form))
        assert shown in (old, new), step
        publish(two_loads, form)
        assert new == texts(two_loads, form) == two_loads.texts(), step
    assert old in seen
    assert new in seen
    Lake(two_loads.uri).vacuum(keep=timedelta(0))
    assert_same(two_loads, form)


@pytest.mark.parametrize("name", ["delta", "iceberg"])
def test_a_publisher_over_s3_that_dies_at_any_request(
    name: str, bucket: LakeProbe, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the steps of deltalake are seen as well: each of its writes is a request.

    To the store, a process that dies is one that sends nothing more. Its last request was carried out.
    """
    form = Delta() if name == "delta" else Iceberg(configure(monkeypatch, "own", uri=f"sqlite:///{tmp_path}/catalog"))
    seen = []
    with in_front_of(s3.port) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        make_two_loads(bucket, tmp_path)
        publish(bucket, form)
        old = texts(bucket, form)
        reload(bucket, tmp_path)
        new, saved = bucket.texts(), Saved(bucket, tmp_path / "catalog")
        proxy.requests.clear()
        publish(bucket, form)
        writes = [each.target for each in proxy.requests if is_write(each)]
        for last in worth_dying_after([IDS.sub("#", target) for target in writes]):
            saved.put_back()
            proxy.behaviour = dying_after(last)
            with pytest.raises(LakeError):
                publish(bucket, form)
            proxy.behaviour = lambda request, send: send(request)
            seen.append(shown := texts(bucket, form))
            assert shown in (old, new), writes[last - 1]
            publish(bucket, form)
            assert new == texts(bucket, form) == bucket.texts(), writes[last - 1]
        assert old in seen
        assert new in seen
        assert_same(bucket, form)


def is_write(request: Request) -> bool:
    return request.method not in {"GET", "HEAD"}


def worth_dying_after(kinds: list[str]) -> list[int]:
    """Return the numbers of the first write of each kind that makes a difference to published tables."""
    firsts = {kind: number for number, kind in reversed(list(enumerate(kinds, 1)))}
    # An upload in parts makes no difference before its last request.
    chosen = [number for kind, number in firsts.items() if is_of_publishing(kind) and not is_part(kind)]
    return sorted(number for number in chosen if number < len(kinds))


def is_part(kind: str) -> bool:
    return "uploads" in kind or "partNumber" in kind


def dying_after(last: int) -> Behaviour:
    """Carry out so many writes, and refuse whatever comes then: libraries would repeat what gets no answer."""
    n_writes = 0

    def behave(request: Request, send: Send) -> Reply:
        nonlocal n_writes
        if n_writes >= last:
            return Reply(HTTPStatus.FORBIDDEN, {"Content-Type": "application/xml"}, b"<Error><Code>Dead</Code></Error>")
        n_writes += is_write(request)
        return send(request)

    return behave


class Saved:
    """A lake in a bucket, and a catalog on a disk, that can be put back."""

    def __init__(self, lake: LakeProbe, catalog: Path) -> None:
        self._lake, self._catalog = lake, catalog
        self._objects = {path: open_store(lake.uri).read(path) for path in self._paths()}
        self._rows = catalog.read_bytes() if catalog.exists() else None

    def _paths(self) -> list[str]:
        return [path for path, _ in open_store(self._lake.uri).walk("", "")]

    def put_back(self) -> None:
        store = open_store(self._lake.uri)
        store.delete(path for path in self._paths() if path not in self._objects)
        for path, content in self._objects.items():
            # Data files and records never change.
            if not path.endswith((".pq", ".json")) or path.startswith("_published") or not store.exists(path):
                store.replace(path, content)
        if self._rows is not None:
            self._catalog.write_bytes(self._rows)


def killed_at_every_step(lake: LakeProbe, folder: Path, *arguments: str) -> Iterator[str]:
    """Publish once for each step at which a publisher can be killed, and kill it there; yield after each kill."""
    forks, saved, output = Forks(KILLED), folder / "saved", folder / "output"
    shutil.copytree(lake.uri, saved, copy_function=copied_unless_it_is_data)
    try:
        typed = (lake.uri, "{}", "publish", *arguments, "--lake", lake.uri)
        assert 0 == forks.run(output, *(each.format(0) for each in typed)), output.read_text()
        steps = [each for each in output.read_text().split("\nSTEPS\n")[1].splitlines() if is_of_publishing(each)]
        assert steps
        for step in steps:
            number = step.partition(" ")[0]
            shutil.rmtree(lake.uri)
            shutil.copytree(saved, lake.uri, copy_function=copied_unless_it_is_data)
            assert forks.run(output, *(each.format(number) for each in typed)) in (-9, 0), output.read_text()
            yield step
    finally:
        forks.close()


def copied_unless_it_is_data(source: str, target: str) -> None:
    # SQLite and catalogs write into their files; data files never change.
    (os.link if source.endswith((".pq", ".parquet")) else shutil.copy2)(source, target)


def is_of_publishing(step: str) -> bool:
    """Return whether a step or a request makes a difference to published tables.

    What a rewrite does is the same as in a compaction, whose steps ``test_killed`` tries: here, its record is enough. A
    table is published as every other is, so the first one stands for all.
    """
    if any(f"/{table.name}/" in step for table in TABLES[1:]):
        return False
    if ".avro" in step:  # a list of files that nothing names before the last step of a commit
        return False
    return any(part in step for part in ("_loads/rewrite", "_iceberg", "_delta_log", "_published"))


def test_a_lake_with_lost_files_is_not_published(two_loads: LakeProbe, form: Format) -> None:
    """Publishing would take the rows out of the tables, and nothing would say that they are missing."""
    publish(two_loads, form)
    victim = next(each for each in two_loads.snapshot().file_states if each.is_live and each.file.table == "messages")
    for path in Path(two_loads.uri).rglob(f"{Path(victim.file.path).stem}.*"):
        path.unlink()
    load_file(
        two_loads, write_export(Path(two_loads.uri).parent / "more", {"z": (8, "z")}), 8, 9, "2026-02-09T00:00:00Z"
    )
    with pytest.raises(LakeError, match="are lost, and publishing would hide that; run chatexport repair"):
        publish(two_loads, form)


def test_what_is_not_a_format_is_one_sentence(lake: LakeProbe) -> None:
    with pytest.raises(CallError, match="a lake is published as delta or iceberg, and the format is 'hudi'"):
        Lake(lake.uri).publish("hudi")

"""What is lost or damaged is named, everything else goes on, and a new load brings it back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from export_objects import channel, line, member, message, reaction, user, write_lines
from lakes import LakeProbe
from s3_server import new_lake

from airflow_provider_chatexport.core.entities import Shape
from airflow_provider_chatexport.core.options import LoadOptions
from airflow_provider_chatexport.lake import Lake
from airflow_provider_chatexport.lake.catalog.catalog_file import NAME
from airflow_provider_chatexport.lake.catalog.empty_files import empty_file
from airflow_provider_chatexport.lake.commits import log as commit_log
from airflow_provider_chatexport.lake.commits.log import CHECKPOINT
from airflow_provider_chatexport.lake.maintenance.auto_compact import compact_behind
from airflow_provider_chatexport.lake.schema.tables import TABLE_BY_NAME
from airflow_provider_chatexport.lake.storage.address import open_store
from airflow_provider_chatexport.lake.storage.store import LakeStore

ONE_BY_ONE = LoadOptions(auto_compact=False)
GARBAGE = b"what a disk made of it"


class Days:
    """Loads of one day each into one lake; each day has a message, its reaction, a member and a user."""

    def __init__(self, folder: Path, uri: str) -> None:
        self._folder = folder
        self.lake = LakeProbe(uri)
        self.store: LakeStore = open_store(uri)

    def load(self, day: int, *, text: str = "first", exported: int = 20, **options: object) -> str:
        """Load a day, and return the id of the load."""
        at = f"2026-01-0{day}T10:00:00Z"
        lines = [
            line("channel", channel()),
            line("member", member("u1"), Shape.KEYED),
            line("user", user(f"v{day}", name=text)),
            line("message", message(f"m{day}", text=text, created_at=at, latest_reactions=[reaction(created_at=at)])),
        ]
        report = Lake(self.lake.uri).load(
            write_lines(self._folder / f"{day}-{text}", lines),
            since=f"2026-01-0{day}",
            until=f"2026-01-0{day + 1}",
            exported_at=f"2026-01-{exported}T00:00:00Z",
            **options,
        )
        return report.record.load_id

    def data(self, table: str, load_id: str) -> str:
        """Return where the bytes of a load's file lie."""
        (record,) = [each for each in self.lake.snapshot().records if each.load_id == load_id]
        return self.store.data_path(next(file.path for file in record.files if file.table == table))

    def spoil(self, *paths: str, by: bytes | None) -> None:
        """Delete objects under all of their names, or write something else over them."""
        for path in paths:
            self.store.delete([path, self.store.path_in_table(path)])
            if by is not None:
                self.store.replace(path, by)

    def texts(self) -> dict[str, str]:
        return self.lake.texts()

    def faults(self) -> list[str]:
        return sorted(each.kind for each in Lake(self.lake.uri).verify().findings if each.is_fault)


@pytest.fixture
def days(tmp_path: Path) -> Days:
    return Days(tmp_path, str(tmp_path / "lake"))


class _When(logging.Handler):
    """Does something when a message is logged that begins with these words."""

    def __init__(self, words: str, do: Callable[[], None]) -> None:
        super().__init__()
        self._words, self._do = words, do

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith(self._words):
            self._do()


@pytest.fixture
def when(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[str, Callable[[], None]], None]]:
    """Yield a function that has something done when a message is logged that begins with these words."""
    logger = logging.getLogger("airflow_provider_chatexport")
    handlers: list[_When] = []
    caplog.set_level(logging.INFO, logger.name)

    def add(words: str, do: Callable[[], None]) -> None:
        handlers.append(_When(words, do))
        logger.addHandler(handlers[-1])

    yield add
    for handler in handlers:
        logger.removeHandler(handler)


def with_a_changed_byte(content: bytes, column: str) -> bytes:
    """Return the content of a Parquet file with another byte among the values of a column."""
    row_group = pq.read_metadata(pa.BufferReader(content)).row_group(0)
    (chunk,) = (each for each in map(row_group.column, range(row_group.num_columns)) if each.path_in_schema == column)
    changed = bytearray(content)
    changed[chunk.data_page_offset + chunk.total_compressed_size // 2] ^= 0xFF
    return bytes(changed)


def test_maintenance_goes_on_and_does_not_hide_a_loss(days: Days, caplog: pytest.LogCaptureFixture) -> None:
    """Compaction and the removal of a person rewrite what is left. Only a repair says that something is gone."""
    first, second = days.load(1, options=ONE_BY_ONE), days.load(2, options=ONE_BY_ONE)
    days.load(3, options=ONE_BY_ONE)
    days.load(4, options=ONE_BY_ONE)
    damaged = days.data("messages", first)
    days.spoil(damaged, by=with_a_changed_byte(days.store.read(damaged), "text"))  # a query may not notice it
    gone = days.data("messages", second)
    days.spoil(gone, by=None)
    with Lake(days.lake.uri) as lake:
        assert lake.compact().files_before > 1
        receipt = lake.forget_user("v4")
        missing = days.store.path_in_table(gone)
        assert {missing} <= {*receipt.unsearched} <= {missing, days.store.path_in_table(damaged)}
        assert ["altered", "missing"] == sorted({*days.faults()} - {"forgotten"})
        lake.vacuum(keep=timedelta(0))
        report = lake.repair(full=True)
        assert {first, second} == {each.state.record.load_id for each in report.lost}
        assert [("messaging:general",)] == [window.cids for window in report.windows]
        assert {"m3": "first", "m4": "first"} == days.texts()
        assert days.faults().count("gap") == 1
        gap = lake.gaps(until="2026-01-05")["messaging:general"]
        assert [(1, 3)] == [(span.since.day, span.until.day) for span in gap]
        lake.vacuum(keep=timedelta(0))
        assert not days.store.exists(damaged)
    days.load(1)
    days.load(2)
    assert ["m1", "m2", "m3", "m4"] == list(days.texts())
    assert [] == days.faults()


def test_a_load_merges_what_is_left(days: Days, caplog: pytest.LogCaptureFixture) -> None:
    """A lost file must not keep the small files of all other loads as they are."""
    lost, *_, last = [days.load(day, options=ONE_BY_ONE) for day in (1, 2, 3, 4)]
    days.spoil(days.data("users", lost), by=GARBAGE)
    (load,) = [record for record in days.lake.snapshot().records if record.load_id == last]
    merged = compact_behind(days.store, load, least_records=2)
    assert merged is not None
    assert (2, False) == (len(merged.replaces), lost in merged.replaces)
    assert 1 == caplog.text.count("going on without 1 lost file")
    assert {lost} == {each.state.record.load_id for each in Lake(days.lake.uri).repair().lost}
    assert ["m1", "m2", "m3", "m4"] == list(days.texts())
    assert [] == days.faults()


@pytest.mark.parametrize("by", [None, GARBAGE], ids=["gone", "damaged"])
@pytest.mark.parametrize(
    ("place", "moment"),
    [("disk", "before"), ("disk", "convert"), ("disk", "write"), ("disk", "commit"), ("bucket", "convert")],
)
def test_a_load_goes_on_whatever_is_lost_at_any_moment(
    place: str,
    moment: str,
    by: bytes | None,
    tmp_path: Path,
    when: Callable[[str, Callable[[], None]], None],
    caplog: pytest.LogCaptureFixture,
    request: pytest.FixtureRequest,
) -> None:
    """One lost object must not stop the loads of every other window, and must not be forgotten either."""
    if place == "bucket":
        request.getfixturevalue("s3")
    days = Days(tmp_path, str(tmp_path / "lake") if place == "disk" else new_lake())
    first, second = days.load(1), days.load(2)
    days.load(3)
    spoiled = [days.data("messages", first), days.data("messages", second), days.data("users", first)]
    rebuilt = [NAME, CHECKPOINT, empty_file(days.store, TABLE_BY_NAME["reads"])]
    done: list[str] = []

    def spoil(*_: object) -> None:
        if not done:
            days.spoil(*spoiled, *rebuilt, by=by)
            done.append(moment)

    if moment == "before":
        spoil()
    if moment == "commit":
        when("load committed", spoil)
    # A lookback: it loads the second day again, whose file is among those that are lost.
    days.load(2, text="again", exported=21, progress=lambda stage, *_: stage == moment and spoil())
    assert [moment] == done
    named = [each for each in caplog.records if each.getMessage().startswith("going on without")]
    assert len(named) <= (2 if moment != "before" else 1)
    with Lake(days.lake.uri) as lake:
        report = lake.repair()
    assert {first} <= {each.state.record.load_id for each in report.lost}
    assert {"m2": "again", "m3": "first"} == days.texts()
    assert [["v2"], ["v3"]] == days.lake.rows("SELECT id FROM users WHERE id LIKE 'v%' ORDER BY id")
    assert ["gap"] == days.faults()
    assert first != days.load(1)
    assert {"m1": "first", "m2": "again", "m3": "first"} == days.texts()
    assert [["v1"], ["v2"], ["v3"]] == days.lake.rows("SELECT id FROM users WHERE id LIKE 'v%' ORDER BY id")
    assert [] == days.faults()
    assert days.load(1) == days.load(1)


def test_a_vacuum_shows_a_load_that_died_before_it_could(days: Days) -> None:
    """It writes the checkpoint, and a refresh brings only the folders of records outside of it up to date."""
    days.load(1)
    for path in days.lake.files():
        if not path.startswith("_loads/"):
            (Path(days.lake.uri) / path).unlink()
    Lake(days.lake.uri).vacuum()
    days.lake.assert_tidy()
    assert [] == days.faults()


def test_the_damaged_record_of_a_rewrite_in_an_object_store_is_put_aside(tmp_path: Path) -> None:
    """The files that it replaces are deleted only when the checkpoint has it, so the lake is as it was before it."""
    days = Days(tmp_path, f"memory://{tmp_path.name}/lake")
    days.load(1, options=ONE_BY_ONE)
    days.load(2, options=ONE_BY_ONE)
    with Lake(days.lake.uri) as lake:
        path = f"_loads/{lake.compact().record_id}.json"
        days.store.delete([CHECKPOINT])
        days.store.replace(path, GARBAGE)
        assert ["m1", "m2"] == list(days.texts())
        assert ((path, False),) == lake.repair().records
    assert ["m1", "m2"] == list(days.texts())
    assert [] == days.faults()


def test_the_record_of_a_rewrite_that_is_gone_is_put_back(days: Days, caplog: pytest.LogCaptureFixture) -> None:
    """What it replaced is deleted, so its files are all that there is. A vacuum must not take them for remains."""
    days.load(1, options=ONE_BY_ONE)
    days.load(2, options=ONE_BY_ONE)
    with Lake(days.lake.uri) as lake:
        path = f"_loads/{lake.compact().record_id}.json"
        lake.vacuum(keep=timedelta(0))
    for look in (lambda lake: lake.vacuum(keep=timedelta(0)), lambda lake: lake.rebuild_catalog()):
        days.store.delete([path])
        with Lake(days.lake.uri) as lake:
            look(lake)
        assert days.store.exists(path)
        assert ["m1", "m2"] == list(days.texts())
    assert 2 == caplog.text.count("was put back from the checkpoint")
    assert [] == days.faults()


def test_a_record_that_a_person_moved_out_is_not_remembered(tmp_path: Path) -> None:
    """The next load of its exports has the same name, and other files."""
    days = Days(tmp_path, f"memory://{tmp_path.name}/lake")
    first, *_ = [days.load(day, options=ONE_BY_ONE) for day in (1, 2, 3, 4)]
    days.store.delete([f"_loads/{first}.json"])
    assert first == days.load(1, options=ONE_BY_ONE)
    store = open_store(days.lake.uri)
    assert commit_log.all_records(store, afresh=True) == commit_log.all_records(store)


def test_exports_of_users_that_were_merged_and_lost_are_named_and_load_again(tmp_path: Path) -> None:
    """Regression: they cover no time, so a repair did not find them behind the rewrite."""
    lake = LakeProbe(str(tmp_path / "lake"))
    query = "SELECT export_user_id, id FROM user_export_messages ORDER BY id"

    def load(day: int) -> None:
        lines = [line("user", user(f"u{day}")), line("message", message(f"m{day}", cid="x:y"))]
        path = write_lines(tmp_path / f"of u{day}", lines)
        Lake(lake.uri).load(path, exported_at=f"2026-01-0{day}T00:00:00Z", options=ONE_BY_ONE)

    load(1)
    load(2)
    Lake(lake.uri).compact()
    shown = lake.rows(query)
    store = open_store(lake.uri)
    (merged,) = [each for each in lake.snapshot().file_states if each.is_live and "user_export_m" in each.file.path]
    store.delete([merged.file.path, store.data_path(merged.file.path)])
    assert ["of u1", "of u2"] == sorted(Lake(lake.uri).repair().exports)
    load(1)
    load(2)
    assert shown == lake.rows(query)

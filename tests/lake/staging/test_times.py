"""Times: one rule for every time column of every table, in every shape and by every route."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow.dataset as ds
import pytest
from export_objects import (
    EXPORTED_AT,
    Fields,
    assert_counts,
    channel,
    convert,
    convert_lines,
    encoded,
    line,
    member,
    message,
    reaction,
    read,
    user,
    write_lines,
)

from airflow_provider_chatexport.core.entities import ExportKind, Shape
from airflow_provider_chatexport.core.options import LoadOptions
from airflow_provider_chatexport.core.times import EARLIEST, LATEST
from airflow_provider_chatexport.errors import InputError, TooManyRejectsError
from airflow_provider_chatexport.lake import Lake
from airflow_provider_chatexport.lake.load.job import load_files
from airflow_provider_chatexport.lake.schema.tables import (
    ENTITY_TABLES,
    TABLE_BY_ENTITY,
    TABLES,
    USER_EXPORT_TABLE_BY_ENTITY,
)
from airflow_provider_chatexport.lake.schema.types import Kind, Table

CID = "a:1"
MOMENT = datetime(2026, 1, 1, 10, tzinfo=UTC)
TIMES: dict[Any, datetime] = {
    "2026-01-01T10:00:00Z": MOMENT,
    "2026-01-01T15:30:00.000000999+05:30": MOMENT,
    1767261600000000000: MOMENT,
    "1767261600000000000": MOMENT,
    "1900-01-01T00:00:00Z": EARLIEST,
    "2261-12-31T23:59:59.999999999Z": LATEST - timedelta(microseconds=1),
}
# There is no time: the key might as well be absent.
UNSET: list[Any] = [
    *(None, "", 0, "0", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000000000Z", "0001-01-01T01:00:00+01:00"),
    *("0000-12-31T19:03:58-04:56", -62135596800000000000, -6795364578871345152),
]
# What is wrong, in the words of a reject.
NO_TIMES: dict[Any, str] = {
    "yesterday": "it is not RFC3339 text",
    "2026-01-01T10:00:00": "it is not RFC3339 text",
    "2026-02-30T10:00:00Z": "it is not a time of the calendar",
    1767261600: "it is a number, most likely of seconds, and not RFC3339 text",
    1767261600.5: "it is a number, most likely of seconds, and not RFC3339 text",
    "1767261600000": "it is a number, most likely of milliseconds, and not RFC3339 text",
    1767261600000000: "it is a number, most likely of microseconds, and not RFC3339 text",
    10**19: "it is a number, and as nanoseconds not between 1973 and 2261",
    "1899-12-31T23:59:59.999Z": "it is not between 1900 and 2261",
    "2262-01-01T00:00:00Z": "it is not between 1900 and 2261",
    "0001-01-01T00:01:00Z": "it is not between 1900 and 2261",
    "9999-12-31T23:59:59Z": "it is not between 1900 and 2261",
    True: "it is true or false",
}


def object_of(name: str, at: int) -> Fields:
    """An object of an entity, with a key of its own."""
    match name:
        case "message":
            return message(f"m{at}", cid=CID, user=None, user_id="u")
        case "reaction":
            return reaction("m0", f"u{at}", f"kind-{at}", user=None, cid=CID)
        case "channel":
            return channel(f"x:{at}", created_by=None)
        case "member":
            return member(f"u{at}", cid=CID, user=None)
        case "read":
            return read(f"v{at}", cid=CID)
        case _:
            return user(f"w{at}")


def time_fields(table: Table) -> list[str]:
    """The keys of a table's times, without the one that decides the day of a row."""
    fields = [column.field for column in (*table, *table.staged) if column.kind is Kind.TIME and column.field]
    return [field for field in fields if field != "created_at" or table.day_column is None]


def objects(tables: list[Table], values: list[Any]) -> Iterator[tuple[str, Fields]]:
    """Every entity with every value in all of its times."""
    for table in tables:
        assert table.entity is not None
        for at, value in enumerate(values):
            times = dict.fromkeys(time_fields(table), value)
            yield table.entity.value, object_of(table.entity.value, at) | times | {"number": at}


def in_a_channel(of: list[tuple[str, Fields]]) -> bytes:
    """The same in a v1 array, as far as it has lists for them."""
    lists = {f"{name}s": [fields for each, fields in of if each == name] for name in ("message", "member", "reaction")}
    lists["reads"] = [fields for each, fields in of if each == "read"]
    return encoded([{"channel": channel(CID, created_by=None), **lists}])


ROUTES = {
    "in place": (Shape.ITEM, ExportKind.CHANNELS),
    "line by line": (Shape.KEYED, ExportKind.CHANNELS),
    "v1": (None, ExportKind.CHANNELS),
    "users": (Shape.ITEM, ExportKind.USERS),
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("with_odd_values", [False, True], ids=["times", "odd values"])
def test_every_time_of_every_table_obeys_one_rule(route: str, with_odd_values: bool, tmp_path: Path) -> None:
    """A time is UTC, an unset one is null, and anything else is null, stays in custom and is counted.

    A file without odd values is read as a STRUCT, and one with them as JSON.
    """
    shape, kind = ROUTES[route]
    values = [*TIMES, *UNSET, *(NO_TIMES if with_odd_values else ())]
    by_entity = TABLE_BY_ENTITY if kind is ExportKind.CHANNELS else USER_EXPORT_TABLE_BY_ENTITY
    tables = list(by_entity.values())
    if shape is None:
        tables = [table for table in tables if table.name in ("messages", "members", "reactions", "reads")]
        path = tmp_path / "export"
        path.write_bytes(in_a_channel(list(objects(tables, values))))
        converted = convert(path, folder=tmp_path, kind=kind)
    else:
        lines = [line(name, fields, shape) for name, fields in objects(tables, values)]
        converted = convert_lines(tmp_path, *lines, kind=kind, user_ids=("u",))
    assert_counts(converted, rejected=0)
    expected_failures: Counter[str] = Counter()
    for table in tables:
        fields = time_fields(table)
        columns = [field for field in fields if any(column.name == field for column in table)]
        found = {}
        for row in converted.rows[table.name]:
            custom = json.loads(row["custom"])
            if (number := custom.pop("number", None)) is not None:
                found[number] = ({each: row[each] for each in columns}, custom)
        odd = {at: value for at, value in enumerate(values) if value in NO_TIMES}
        expected = {
            at: (dict.fromkeys(columns, TIMES.get(value)), dict.fromkeys(fields, value) if at in odd else {})
            for at, value in enumerate(values)
        }
        assert expected == found, table.name
        expected_failures.update({f"{table.name}.{field}": len(odd) for field in fields if odd})
    assert dict(expected_failures) == converted.counts.cast_failures
    if route != "users":  # what members have read
        known = {row["user_id"]: row["last_read"] for row in converted.rows["reads"] if row["user_id"].startswith("u")}
        assert {f"u{at}": TIMES[value] for at, value in enumerate(values) if value in TIMES} == known


@pytest.mark.parametrize("route", ["in place", "line by line", "v1"])
@pytest.mark.parametrize("name", ["message", "reaction"])
def test_an_object_whose_own_time_is_none_is_a_reject_that_says_why(name: str, route: str, tmp_path: Path) -> None:
    """The time decides the day and the window. Seconds that are read as nanoseconds would be in 1970, and be lost."""
    reasons: dict[Any, str] = {**NO_TIMES, **dict.fromkeys([value for value in UNSET if value], "it is an unset time")}
    found = [(name, object_of(name, at) | {"created_at": value}) for at, value in enumerate(reasons)]
    good = (name, object_of(name, 99))
    shape, _ = ROUTES[route]
    if shape is None:
        path = tmp_path / "export"
        path.write_bytes(in_a_channel([*found, good]))
    else:
        path = write_lines(tmp_path / "export", [line(*each, shape) for each in (*found, good)])
    converted = convert(path, folder=tmp_path)
    assert_counts(converted, rejected=len(reasons), out_of_window=0, **{f"{name}s": 1})
    assert [f"{name} without a created_at that is a time: {reason}" for reason in reasons.values()] == [
        row["reason"] for row in sorted(converted.rows["rejects"], key=lambda row: reasons_key(row, found))
    ]


def reasons_key(row: Fields, found: list[tuple[str, Fields]]) -> int:
    """The position of the object that a reject holds."""
    return next(at for at, (_, fields) in enumerate(found) if encoded(fields) in row["raw"].encode())


def test_strict_refuses_an_export_whose_times_count_seconds(tmp_path: Path) -> None:
    """Regression: all of it was out of window, and the load was a success."""
    lines = [line("message", message(f"m{at}", created_at=1767261600 + at), Shape.ITEM) for at in range(3)]
    path = write_lines(tmp_path / "export", lines)
    with pytest.raises(TooManyRejectsError):
        load_files([path], lake_uri=str(tmp_path / "lake"), options=LoadOptions(max_rejected=0))


@pytest.mark.parametrize("exported_at", [EARLIEST - timedelta(microseconds=1), LATEST])
def test_an_export_was_made_at_a_time_that_readers_can_hold(exported_at: datetime, tmp_path: Path) -> None:
    """Every row has the time of its export."""
    path = write_lines(tmp_path / "export", [line("message", message())])
    with pytest.raises(
        InputError, match=r"as the time of its export, and a lake holds times of the years 1900 to 2261"
    ):
        convert(path, folder=tmp_path, exported_at=[exported_at])


# What readers see


def any_times(random_: random.Random) -> Iterator[Any]:
    """Times of all years, with many near the ends of the calendar, in all spellings; and numbers of all sizes."""
    while True:
        days = random_.choice([random_.uniform(0, 3_652_000), 693_595 + random_.uniform(-2, 2), 825_813])
        moment = datetime(1, 1, 2, tzinfo=UTC) + timedelta(days=days + random_.uniform(0, 2))
        clock = moment.replace(tzinfo=None).isoformat(
            timespec=random_.choice(["seconds", "milliseconds", "microseconds"])
        )
        yield clock + random_.choice(
            ["Z", "z", "+00:00", f"-{random_.randrange(24):02}:30", f"+{random_.randrange(24):02}:45"]
        )
        yield random_.choice([1, -1]) * 10 ** random_.randrange(22) * random_.randrange(1, 10)
        yield str(random_.randrange(2**64))


def test_every_reader_holds_every_time_of_a_lake(tmp_path: Path) -> None:
    """Whatever times an export has, DuckDB west of UTC, pyarrow and pandas with nanoseconds can read the lake."""
    chosen = any_times(random.Random(18))
    lines = []
    for table in ENTITY_TABLES:
        assert table.entity is not None
        for at in range(90):
            name = table.entity.value
            own = {field: next(chosen) for field in (*time_fields(table), "created_at")}
            link = f"https://x/?Expires={random.Random(at).randrange(10 ** random.Random(at).randrange(1, 12))}"
            old = "https://x/?X-Amz-Date=00010101T000000Z&X-Amz-Expires=60"
            extra = {"attachments": [{"image_url": link}, {"image_url": old}]} if name == "message" else {}
            lines.append(line(name, object_of(name, at) | own | extra))
    good = [line("message", message("m0", cid=CID)), line("reaction", reaction("m0", cid=CID))]
    lake_uri = str(tmp_path / "lake")
    any_number = LoadOptions(max_rejected=None)
    with Lake(lake_uri) as lake:
        for kind in ExportKind:
            path = write_lines(tmp_path / kind.value, [*lines, *good])
            lake.load(path, kind=kind.value, exported_at=EXPORTED_AT, options=any_number)
    with duckdb.connect(f"{lake_uri}/catalog.duckdb", read_only=True) as database:
        database.execute("SET TimeZone = 'America/Los_Angeles'")
        for table in TABLES:
            rows = database.execute(f"FROM {table.name}").fetchall()
            times = [value for row in rows for value in row if isinstance(value, datetime)]
            assert all(EARLIEST <= each < LATEST for each in times), table.name
            database.execute(f"FROM {table.name}").df()
            files = ds.dataset(sorted(Path(lake_uri, table.name).rglob("*.parquet")), format="parquet").to_table()
            names = [column.name for column in table if column.kind is Kind.TIME]
            assert all(
                value is None or EARLIEST <= value < LATEST for name in names for value in files[name].to_pylist()
            )
            for name in names:
                column = files.select([name]).to_pandas()[name]
                as_ns = column.astype("datetime64[ns, UTC]").dt.tz_convert("America/Los_Angeles")
                assert pd.Timestamp(EARLIEST) <= as_ns.min() or as_ns.isna().all(), (table.name, name)
            assert rows or table.name in ("other_entities",), table.name
        (n_old,) = database.execute("SELECT count(*) FROM messages WHERE created_at < '1930-01-01'").fetchone() or (0,)
        assert n_old > 0, "no moment near the start of the calendar was chosen"

"""The dbt project as users have it: built by dbt itself, over real lakes, and its numbers counted otherwise."""

from __future__ import annotations

import contextlib
import json
import logging
import subprocess
import sys
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

import fsspec
import make_dbt
import pytest
from lakes import LakeProbe, client_of, exports_of
from moto.server import ThreadedMotoServer

from airflow_provider_chatexport import pipeline
from airflow_provider_chatexport.cli import main
from airflow_provider_chatexport.core.options import LoadOptions
from airflow_provider_chatexport.core.times import parse_rfc3339
from airflow_provider_chatexport.lake import Lake
from airflow_provider_chatexport.lake.maintenance.forget import forget_user
from airflow_provider_chatexport.lake.storage.address import open_store
from airflow_provider_chatexport.sandbox import Sandbox

pytestmark = pytest.mark.slow

CHANNELS = ("livestream:ubuntu", "messaging:ubuntu-support")
SINCE, UNTIL = "2025-01-06", "2025-01-09"
MARTS = ("channel_activity_daily", "conversations", "people", "reactions_given", "retention_cohorts", "threads")


def load(sandbox: Sandbox, lake: str, since: str = SINCE, until: str = UNTIL) -> None:
    with client_of(sandbox) as client:
        receipts = exports_of(client, since, until, channels=CHANNELS, export_users=True)
        pipeline.load_exports(client, receipts, lake_uri=lake, options=LoadOptions(accept_shrink=True))


@pytest.fixture
def lake(sandbox: Sandbox, tmp_path: Path) -> LakeProbe:
    load(sandbox, str(tmp_path / "lake"))
    return LakeProbe(str(tmp_path / "lake"))


def written(sandbox: Sandbox) -> list[dict[str, Any]]:
    """What people wrote in the window, as the service has it."""
    begin, end = (datetime.fromisoformat(day).replace(tzinfo=UTC) for day in (SINCE, UNTIL))
    found = []
    for cid in CHANNELS:
        for message in sandbox.world.messages(cid):
            at = parse_rfc3339(message["created_at"])
            if begin <= at < end and message["type"] != "system":
                found.append({**message, "cid": cid, "at": at, "author": message["user"]["id"]})
    return found


def activity(sandbox: Sandbox) -> dict[tuple[str, str], tuple[int, int, int, int]]:
    """Day and channel -> messages, replies, deleted messages, people."""
    days: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for message in written(sandbox):
        days[str(message["at"].date()), message["cid"]].append(message)
    counted = {}
    for key, messages in days.items():
        there = [message for message in messages if not message.get("deleted_at")]
        replies = sum(bool(message.get("parent_id")) for message in there)
        counted[key] = (len(there), replies, len(messages) - len(there), len({each["author"] for each in there}))
    return counted


def built_activity(project: Any) -> dict[tuple[str, str], tuple[int, int, int, int]]:
    rows = project.rows(
        "SELECT event_date::VARCHAR, cid, messages, replies, deleted_messages, people FROM channel_activity_daily"
    )
    return {row[:2]: row[2:] for row in rows}


def test_the_project_builds_and_its_numbers_are_those_of_the_service(
    sandbox: Sandbox, lake: LakeProbe, init: Callable[..., Any]
) -> None:
    """Models, tests and unit tests pass as they are, and marts say what can be counted without them."""
    project = init(lake.uri)
    statuses = project.build()
    assert {"success", "pass", "no-op"} == set(statuses.values())
    assert 3 == sum(name.startswith("unit_test.") for name in statuses)
    assert activity(sandbox) == built_activity(project)
    messages = [message for message in written(sandbox) if not message.get("deleted_at")]
    by_author = Counter(message["author"] for message in messages)
    assert by_author == dict(project.rows("SELECT user_id, messages FROM people WHERE messages > 0"))
    assert threads(messages) == dict(project.rows("SELECT thread_id, (replies, seconds_to_first_answer) FROM threads"))
    assert conversations(messages) == dict(project.rows("SELECT conversation_id, messages FROM conversations"))
    ((given, received),) = project.rows("SELECT sum(reactions_given), sum(reactions_received) FROM people")
    assert given == lake.value("SELECT count(*) FROM reactions") > 0
    assert 0 < received <= given
    assert len(by_author) == project.rows("SELECT sum(people) FROM retention_cohorts WHERE week_number = 0")[0][0]


def threads(messages: list[dict[str, Any]]) -> dict[str, tuple[int, int | None]]:
    """Thread -> replies, whole seconds until somebody else replied."""
    known = {message["id"]: message for message in messages}
    found = {}
    replies = sorted((each for each in messages if each.get("parent_id")), key=lambda each: each["parent_id"])
    for parent_id, group in groupby(replies, key=lambda each: each["parent_id"]):
        of_thread, parent = list(group), known.get(parent_id)
        answers = [each["at"] for each in of_thread if parent and each["author"] != parent["author"]]
        found[parent_id] = (len(of_thread), whole_seconds(parent["at"], min(answers)) if parent and answers else None)
    return found


def whole_seconds(begin: datetime, end: datetime) -> int:
    """As DuckDB's date_diff counts: how often the second changed."""
    return int((end.replace(microsecond=0) - begin.replace(microsecond=0)).total_seconds())


def conversations(messages: list[dict[str, Any]]) -> dict[str, int]:
    """First message -> how many messages, half an hour of silence between two."""
    found: dict[str, int] = {}
    ordered = sorted(messages, key=lambda each: (each["cid"], each["at"], each["id"]))
    for _, group in groupby(ordered, key=lambda each: each["cid"]):
        last, current = None, ""
        for message in group:
            if last is None or message["at"] - last > timedelta(minutes=30):
                current = message["id"]
            found[current] = found.get(current, 0) + 1
            last = message["at"]
    return found


def test_late_changes_come_in_and_days_at_rest_are_not_built_again(
    sandbox: Sandbox, lake: LakeProbe, init: Callable[..., Any]
) -> None:
    """After a lookback with edits and deletes, a whole channel's day gone, and the removal of a person."""
    project = init(lake.uri)
    project.build()
    # A mark that only survives where nothing is built again.
    project.change("UPDATE channel_activity_daily SET attachments = -1")
    load(sandbox, lake.uri)  # the same once more, which is a new export: every row bears it
    marked = "SELECT DISTINCT event_date::VARCHAR FROM channel_activity_daily WHERE attachments = -1"
    project.build("--select", "+channel_activity_daily")
    assert [] == project.rows(marked)
    project.change("UPDATE channel_activity_daily SET attachments = -1")

    last_day = [message for message in written(sandbox) if message["at"].date().day == 8]
    soft, *hard = [message["id"] for message in last_day if message["cid"] == CHANNELS[1]]
    sandbox.control.delete_message(soft)
    for message_id in hard:
        sandbox.control.delete_message(message_id, hard=True)
    sandbox.control.add_message(CHANNELS[0], text="late", user_id="late", created_at="2025-01-08T12:00:00Z")
    sandbox.control.advance_clock(timedelta(minutes=1))
    load(sandbox, lake.uri, "2025-01-08", UNTIL)
    project.build()
    assert activity(sandbox) == built_activity(project)
    assert [("2025-01-06",), ("2025-01-07",)] == sorted(project.rows(marked))

    ((person,),) = project.rows("SELECT user_id FROM people ORDER BY messages DESC LIMIT 1")
    forget_user(open_store(lake.uri), person, now=datetime.now(UTC))
    project.build()
    expected = sum(message["author"] != person and not message.get("deleted_at") for message in written(sandbox))
    assert [(expected,)] == project.rows("SELECT sum(messages) FROM channel_activity_daily")
    assert [(0,)] == project.rows(f"SELECT count(*) FROM people WHERE user_id = '{person}'")


def test_days_that_are_gone_leave_the_marts(sandbox: Sandbox, lake: LakeProbe, init: Callable[..., Any]) -> None:
    """A truncated channel: no row of the day is left to say that it is empty."""
    project = init(lake.uri)
    project.build()
    for message in [each for each in written(sandbox) if each["at"].date().day == 8]:
        sandbox.control.delete_message(message["id"], hard=True)
    sandbox.control.advance_clock(timedelta(minutes=1))
    load(sandbox, lake.uri, "2025-01-08", UNTIL)
    project.build()
    assert activity(sandbox) == built_activity(project)
    assert {"2025-01-06", "2025-01-07"} == {day for day, _ in built_activity(project)}


def test_an_empty_lake_builds(tmp_path: Path, init: Callable[..., Any]) -> None:
    """The project is set up before the first load: nothing fails, and nothing is there."""
    Lake(tmp_path / "lake").rebuild_catalog()
    project = init(str(tmp_path / "lake"))
    project.build()
    assert [(0,)] * len(MARTS) == [project.rows(f"SELECT count(*) FROM {mart}")[0] for mart in MARTS]
    assert 0 == project.dbt("source", "freshness").returncode


def test_docs_and_freshness(lake: LakeProbe, init: Callable[..., Any]) -> None:
    """Every column of every model and source has a type and a description where analysts look for it."""
    project = init(lake.uri)
    project.build()
    assert 0 == project.dbt("docs", "generate").returncode
    catalog, manifest = project.target("catalog.json"), project.target("manifest.json")
    assert catalog["errors"] is None
    nodes = {**catalog["nodes"], **catalog["sources"]}
    assert len(MARTS) + len(make_dbt.STAGED) == len(catalog["nodes"])
    for name, node in nodes.items():
        told = (manifest["nodes"].get(name) or manifest["sources"].get(name))["columns"]
        assert {column.lower() for column in node["columns"]} == told.keys(), name
        assert all(column["description"] for column in told.values()), name
    assert all(column["comment"] for column in catalog["nodes"]["model.chatexport.people"]["columns"].values())
    assert 0 == project.dbt("source", "freshness").returncode
    assert {"pass"} == {each["status"] for each in project.target("sources.json")["results"]}


def test_sources_can_be_files(sandbox: Sandbox, lake: LakeProbe, init: Callable[..., Any]) -> None:
    """Where the catalog cannot be attached, a glob over the files gives the same."""
    project = init(lake.uri)
    project.build("--vars", f"{{chatexport_lake_files: {lake.uri}}}")
    assert activity(sandbox) == built_activity(project)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """An S3 server with a bucket ``dbt``; the variables that lead there."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with contextlib.ExitStack() as closing:
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        closing.callback(server.stop)
        host, port = server.get_host_and_port()
        variables = {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        fs = fsspec.filesystem("s3")
        closing.callback(fs.clear_instance_cache)
        fs.mkdir("dbt")
        yield variables


def test_a_lake_on_an_object_store_builds(sandbox: Sandbox, bucket: dict[str, str], init: Callable[..., Any]) -> None:
    """The profile reads it without an extension that would have to be downloaded."""
    load(sandbox, "s3://dbt/lake")
    project = init("s3://dbt/lake", **bucket)
    project.build()
    assert activity(sandbox) == built_activity(project)


def test_what_is_generated_is_the_registry() -> None:
    """A column added without `python scripts/make_dbt.py` would break the staging models' contracts."""
    generated = make_dbt.files()
    assert generated == {path: (make_dbt.DBT / path).read_text() for path in generated}
    staged = {f"models/staging/{path.name}" for path in (make_dbt.DBT / "models/staging").iterdir()}
    assert staged == {path for path in generated if path.startswith("models/staging/")}


def test_custom_keys_of_any_spelling_can_be_read(lake: LakeProbe, init: Callable[..., Any]) -> None:
    """The macro quotes what SQL and JSON paths would take for their own."""
    project = init(lake.uri)
    made = json.dumps({"it's \"a.key": 12, "word": "x", "share": 3.7, "yes": True, "one": 1}).replace("'", "''")
    key = json.dumps("it's \"a.key")
    (project.folder / "models" / "custom.sql").write_text(
        f"select {{{{ chatexport.custom_value({key}, 'bigint', 'made') }}}} as n, "
        "{{ chatexport.custom_value('word', 'bigint', 'made') }} as word, "
        "{{ chatexport.custom_value('share', 'bigint', 'made') }} as share, "
        "{{ chatexport.custom_value('yes', 'boolean', 'made') }} as yes, "
        "{{ chatexport.custom_value('one', 'boolean', 'made') }} as one "
        f"from (select '{made}'::json as made)"
    )
    project.build("--select", "custom")
    assert [(12, None, None, True, None)] == project.rows("FROM custom")


@pytest.mark.parametrize("output", ["json", "text"])
def test_init_refuses_a_folder_in_use_and_a_missing_lake(
    output: str, lake: LakeProbe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each is one sentence, and nothing is written."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    flags = ["--json"] if output == "json" else []
    with pytest.raises(SystemExit, match="2"):
        main(["dbt", "init", str(tmp_path / "mine"), "--lake", lake.uri, *flags])
    with pytest.raises(SystemExit, match="1"):
        main(["dbt", "init", str(tmp_path / "new"), "--lake", str(tmp_path / "no-lake"), *flags])
    assert not (tmp_path / "new").exists()
    out, err = capsys.readouterr()
    assert "" == out
    assert ["exists and is not empty" in err, "there is no lake at" in err] == [True, True]


def test_the_wheel_brings_the_project(tmp_path: Path) -> None:
    """Installed from a package index there is no checkout to copy from."""
    root = make_dbt.DBT.parent
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=root, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    wanted = {f"airflow_provider_chatexport/dbt/{path}" for path in make_dbt.files()}
    assert wanted | {"airflow_provider_chatexport/dbt/requirements.txt"} <= held

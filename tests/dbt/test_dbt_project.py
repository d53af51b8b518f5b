"""The dbt project as users have it: built by dbt itself, over real lakes, and its numbers counted otherwise."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib.metadata import distributions
from itertools import groupby
from pathlib import Path
from typing import Any

import make_dbt
import pytest
from dbt_project import DBT, Project
from lakes import LakeProbe, client_of, exports_of
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from s3_server import S3Server, new_lake

from airflow_provider_chatexport import pipeline
from airflow_provider_chatexport.cli import main
from airflow_provider_chatexport.core.options import LoadOptions
from airflow_provider_chatexport.core.times import parse_rfc3339
from airflow_provider_chatexport.lake import Lake
from airflow_provider_chatexport.lake.maintenance.forget import forget_user
from airflow_provider_chatexport.lake.storage.address import open_store
from airflow_provider_chatexport.sandbox import Sandbox

CHANNELS = ("livestream:ubuntu", "messaging:ubuntu-support")
SINCE, UNTIL = "2025-01-06", "2025-01-09"
MARTS = ("channel_activity_daily", "conversations", "days", "people", "reactions_given", "retention_cohorts", "threads")
METRICS = {
    *("messages", "replies", "reply_share", "reactions", "active_people", "active_channels", "new_people", "threads"),
    *("conversations", "messages_in_conversations", "messages_per_conversation", "median_seconds_to_answer"),
}


def load(sandbox: Sandbox, lake: str, since: str = SINCE, until: str = UNTIL) -> None:
    with client_of(sandbox) as client:
        receipts = exports_of(client, since, until, channels=CHANNELS, export_users=True)
        pipeline.load_exports(client, receipts, lake_uri=lake, options=LoadOptions(accept_shrink=True))


def written(sandbox: Sandbox) -> list[dict[str, Any]]:
    """What people wrote in the window, as the service has it."""
    start, end = (datetime.fromisoformat(day).replace(tzinfo=UTC) for day in (SINCE, UNTIL))
    found = []
    for cid in CHANNELS:
        for message in sandbox.world.messages(cid):
            at = parse_rfc3339(message["created_at"])
            if start <= at < end and message["type"] != "system":
                found.append({**message, "cid": cid, "at": at, "author": message["user"]["id"]})
    return found


def activity(messages: list[dict[str, Any]]) -> dict[tuple[str, str], tuple[int, int, int, int]]:
    """Day and channel -> messages, replies, deleted messages, people."""
    days: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for message in messages:
        days[str(message["at"].date()), message["cid"]].append(message)
    counted = {}
    for key, of_day in days.items():
        there = [message for message in of_day if not message.get("deleted_at")]
        replies = sum(bool(message.get("parent_id")) for message in there)
        counted[key] = (len(there), replies, len(of_day) - len(there), len({each["author"] for each in there}))
    return counted


def built_activity(project: Project) -> dict[tuple[str, str], tuple[int, int, int, int]]:
    rows = project.rows(
        "SELECT event_date::VARCHAR, cid, messages, replies, deleted_messages, people FROM channel_activity_daily"
    )
    return {row[:2]: row[2:] for row in rows}


@pytest.mark.timeout(900)
def test_a_project_follows_its_lake(sandbox: Sandbox, tmp_path: Path, init: Callable[..., Project]) -> None:
    """One project, from an empty lake over loads and late changes to a day and a person that are gone.

    Each step builds once and checks all that is true then: a process of dbt costs seconds.
    """
    uri = str(tmp_path / "lake")
    Lake(uri).rebuild_catalog()
    project = init(uri)
    add_a_model_of_custom_keys(project)
    assert {"success", "pass", "no-op"} == set(project.build().values())
    assert [(0,)] * len(MARTS) == [project.rows(f"SELECT count(*) FROM {mart}")[0] for mart in MARTS]
    assert [(12, None, None, True, None)] == project.rows("FROM custom")
    assert 0 == project.dbt("source", "freshness").returncode

    load(sandbox, uri)
    statuses = project.build()
    assert {"success", "pass", "no-op"} == set(statuses.values())
    assert 3 == sum(name.startswith("unit_test.") for name in statuses)
    check_marts(sandbox, LakeProbe(uri), project)
    check_descriptions(project)
    assert 0 == project.dbt("source", "freshness").returncode
    assert {"pass"} == {each["status"] for each in project.target("sources.json")["results"]}

    # The same once more, which is a new export: every row bears it, so every day is built again.
    mark = "UPDATE channel_activity_daily SET attachments = -1"  # a mark stays only where nothing is built
    marked = "SELECT DISTINCT event_date::VARCHAR FROM channel_activity_daily WHERE attachments = -1"
    project.change(mark)
    load(sandbox, uri)
    project.build("--select", "+channel_activity_daily", "--exclude-resource-type", "test")
    assert [] == project.rows(marked)

    # Late changes: edits, soft and hard deletes, a channel's day gone, and a new message. The other days rest.
    project.change(mark)
    soft, *hard = [each["id"] for each in of_last_day(sandbox) if each["cid"] == CHANNELS[1]]
    sandbox.control.delete_message(soft)
    for message_id in hard:
        sandbox.control.delete_message(message_id, hard=True)
    sandbox.control.add_message(CHANNELS[0], text="late", user_id="late", created_at="2025-01-08T12:00:00Z")
    sandbox.control.advance_clock(timedelta(minutes=1))
    load(sandbox, uri, "2025-01-08", UNTIL)
    project.build()
    assert activity(written(sandbox)) == built_activity(project)
    assert [("2025-01-06",), ("2025-01-07",)] == sorted(project.rows(marked))

    # A truncated day: no row is left to say that it is empty. A removed person: their rows are gone from every day.
    for message in of_last_day(sandbox):
        sandbox.control.delete_message(message["id"], hard=True)
    sandbox.control.advance_clock(timedelta(minutes=1))
    load(sandbox, uri, "2025-01-08", UNTIL)
    ((person,),) = project.rows("SELECT user_id FROM people ORDER BY messages DESC LIMIT 1")
    forget_user(open_store(uri), person, now=datetime.now(UTC))
    project.build()
    assert activity([each for each in written(sandbox) if each["author"] != person]) == built_activity(project)
    assert {"2025-01-06", "2025-01-07"} == {day for day, _ in built_activity(project)}
    assert [(0,)] == project.rows(f"SELECT count(*) FROM people WHERE user_id = '{person}'")


def of_last_day(sandbox: Sandbox) -> list[dict[str, Any]]:
    return [message for message in written(sandbox) if message["at"].date().day == 8]


def check_marts(sandbox: Sandbox, lake: LakeProbe, project: Project) -> None:
    """Check each number of the marts against a count without the models."""
    assert activity(written(sandbox)) == built_activity(project)
    messages = [message for message in written(sandbox) if not message.get("deleted_at")]
    by_author = Counter(message["author"] for message in messages)
    assert by_author == dict(project.rows("SELECT user_id, messages FROM people WHERE messages > 0"))
    assert threads(messages) == dict(project.rows("SELECT thread_id, (replies, seconds_to_first_answer) FROM threads"))
    assert conversations(messages) == dict(project.rows("SELECT conversation_id, messages FROM conversations"))
    ((given, received),) = project.rows("SELECT sum(reactions_given), sum(reactions_received) FROM people")
    assert given == lake.value("SELECT count(*) FROM reactions") > 0
    assert 0 < received <= given
    assert len(by_author) == project.rows("SELECT sum(people) FROM retention_cohorts WHERE week_number = 0")[0][0]
    assert [("2025-01-06",), ("2025-01-07",), ("2025-01-08",)] == project.rows("SELECT event_date::VARCHAR FROM days")


def threads(messages: list[dict[str, Any]]) -> dict[str, tuple[int, int | None]]:
    """Return, by thread, the replies and the whole seconds until another person replied."""
    known = {message["id"]: message for message in messages}
    found = {}
    replies = sorted((each for each in messages if each.get("parent_id")), key=lambda each: each["parent_id"])
    for parent_id, group in groupby(replies, key=lambda each: each["parent_id"]):
        of_thread, parent = list(group), known.get(parent_id)
        answers = [each["at"] for each in of_thread if parent and each["author"] != parent["author"]]
        found[parent_id] = (len(of_thread), whole_seconds(parent["at"], min(answers)) if parent and answers else None)
    return found


def whole_seconds(start: datetime, end: datetime) -> int:
    """As DuckDB's date_diff counts: how often the second changed."""
    return int((end.replace(microsecond=0) - start.replace(microsecond=0)).total_seconds())


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


def check_descriptions(project: Project) -> None:
    """Check that every column of every model and source has a type and a description where analysts look for it."""
    assert 0 == project.dbt("docs", "generate").returncode
    catalog, manifest = project.target("catalog.json"), project.target("manifest.json")
    assert catalog["errors"] is None
    del catalog["nodes"]["model.chatexport.custom"]  # the test's own
    assert len(MARTS) + len(make_dbt.STAGED) == len(catalog["nodes"])
    for name, node in {**catalog["nodes"], **catalog["sources"]}.items():
        described = (manifest["nodes"].get(name) or manifest["sources"].get(name))["columns"]
        assert {column.lower() for column in node["columns"]} == described.keys(), name
        assert all(column["description"] for column in described.values()), name
    assert all(column["comment"] for column in catalog["nodes"]["model.chatexport.people"]["columns"].values())
    assert "lake" in manifest["docs"]["doc.chatexport.__overview__"]["block_contents"]
    assert METRICS == {metric["name"] for metric in manifest["metrics"].values()}
    assert all(metric["description"] for metric in manifest["metrics"].values())


def add_a_model_of_custom_keys(project: Project) -> None:
    """Add a model that reads keys which the macro has to quote for SQL and for JSON paths."""
    custom = json.dumps({"it's \"a.key": 12, "word": "x", "share": 3.7, "yes": True, "one": 1}).replace("'", "''")
    key = json.dumps("it's \"a.key")
    (project.folder / "models" / "custom.sql").write_text(
        f"select {{{{ chatexport.custom_value({key}, 'bigint', 'custom') }}}} as n, "
        "{{ chatexport.custom_value('word', 'bigint', 'custom') }} as word, "
        "{{ chatexport.custom_value('share', 'bigint', 'custom') }} as share, "
        "{{ chatexport.custom_value('yes', 'boolean', 'custom') }} as yes, "
        "{{ chatexport.custom_value('one', 'boolean', 'custom') }} as one "
        f"from (select '{custom}'::json as custom)"
    )


def test_another_project_can_install_it_as_a_package_and_read_files(sandbox: Sandbox, tmp_path: Path) -> None:
    """Another project installs it from a git repository or a folder. Its sources are a glob, without any catalog."""
    load(sandbox, str(tmp_path / "lake"))
    repository, folder = tmp_path / "repository", tmp_path / "mine"
    shutil.copytree(make_dbt.DBT, repository / "dbt", ignore=shutil.ignore_patterns("target", "logs", "*.duckdb"))
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.com"]
    for command in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-q", "-m", "one"]):
        subprocess.run([*git, *command], cwd=repository, check=True)
    (folder / "models").mkdir(parents=True)
    (folder / "dbt_project.yml").write_text(
        json.dumps(
            {
                "name": "mine",
                "profile": "mine",
                "flags": {"send_anonymous_usage_stats": False},
            }
        )
    )
    catalog = {"path": str(tmp_path / "lake" / "catalog.duckdb"), "alias": "lake", "read_only": True}
    output = {"type": "duckdb", "path": str(folder / "chat.duckdb"), "settings": {"TimeZone": "UTC"}}
    output |= {"attach": [catalog]}
    (folder / "profiles.yml").write_text(json.dumps({"mine": {"target": "dev", "outputs": {"dev": output}}}))
    key = "{{ chatexport.custom_value('key', 'bigint', 'custom') }}"
    (folder / "models" / "answers.sql").write_text(
        f"select count(*) as n_people, (select {key} from (select '{{\"key\": 7}}'::json as custom)) as key "
        "from {{ ref('chatexport', 'people') }} where messages > 0"
    )
    project = Project(folder, {"PATH": "/usr/bin:/bin", "GIT_ALLOW_PROTOCOL": "file"})
    from_git = {"git": f"file://{repository}", "subdirectory": "dbt", "revision": "main"}
    for package in (from_git, {"local": str(repository / "dbt")}):
        (folder / "packages.yml").write_text(json.dumps({"packages": [package]}))
        deps = project.dbt("deps")
        assert 0 == deps.returncode, deps.stdout
        assert (folder / "dbt_packages" / "chatexport" / "models" / "overview.md").exists()
    # All models and tests are built by other tests.
    no_tests = ("--exclude-resource-type", "test", "--exclude-resource-type", "unit_test")
    project.build("--select", "+answers", "+channel_activity_daily", *no_tests)
    assert activity(written(sandbox)) == built_activity(project)
    authors = {message["author"] for message in written(sandbox) if not message.get("deleted_at")}
    assert [(len(authors), 7)] == project.rows("FROM answers")


def test_a_lake_on_an_object_store_builds(sandbox: Sandbox, s3: S3Server, init: Callable[..., Project]) -> None:
    """The profile reads it without an extension that would have to be downloaded."""
    uri = new_lake()
    load(sandbox, uri)
    project = init(uri, **s3.variables)
    project.build("--exclude-resource-type", "unit_test")
    assert activity(written(sandbox)) == built_activity(project)


def test_pip_of_any_age_installs_the_pins() -> None:
    """Regression: older versions of pip refuse ``x[extra]``, which a dependency asks for, if the pin is of ``x``."""
    pins: dict[str, set[str]] = {}
    for row in (make_dbt.DBT / "requirements.txt").read_text().splitlines():
        if row and not row.startswith((" ", "#")):
            pin = Requirement(row.rstrip(" \\"))
            pins[canonicalize_name(pin.name)] = pin.extras
    (packages,) = (DBT.parents[1] / "lib").glob("python*/site-packages")
    wanted = [Requirement(text) for each in distributions(path=[str(packages)]) for text in each.requires or ()]
    missing = {
        str(each)
        for each in wanted
        if (each.marker is None or each.marker.evaluate({"extra": ""}))
        and each.extras - pins.get(canonicalize_name(each.name), each.extras)
    }
    assert any(pins.values())
    assert not missing


def test_what_is_generated_is_the_registry() -> None:
    """A column added without `python scripts/make_dbt.py` would break the staging models' contracts."""
    generated = make_dbt.files()
    assert generated == {path: (make_dbt.DBT / path).read_text() for path in generated}
    staged = {f"models/staging/{path.name}" for path in (make_dbt.DBT / "models/staging").iterdir()}
    assert staged == {path for path in generated if path.startswith("models/staging/")}


@pytest.mark.parametrize("output", ["json", "text"])
def test_init_refuses_a_folder_in_use_and_a_missing_lake(
    output: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each is one sentence, and nothing is written."""
    Lake(tmp_path / "lake").rebuild_catalog()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    flags = ["--json"] if output == "json" else []
    with pytest.raises(SystemExit, match="2"):
        main(["dbt", "init", str(tmp_path / "mine"), "--lake", str(tmp_path / "lake"), *flags])
    with pytest.raises(SystemExit, match="1"):
        main(["dbt", "init", str(tmp_path / "new"), "--lake", str(tmp_path / "no-lake"), *flags])
    assert not (tmp_path / "new").exists()
    out, err = capsys.readouterr()
    assert "" == out
    assert ["exists and is not empty" in err, "there is no lake at" in err] == [True, True]


def test_the_project_names_no_page_that_it_lacks() -> None:
    """Users have the project alone, in a folder of their own."""
    files = [path for path in make_dbt.DBT.rglob("*") if path.suffix in {".md", ".sql", ".yml"}]
    packaged = [path for path in files if not {"target", "logs"} & set(path.parts)]
    assert not [str(path) for path in packaged if "docs/" in path.read_text()]

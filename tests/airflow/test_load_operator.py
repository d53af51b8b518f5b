"""The load operator: what it takes, what it returns, its errors."""

from __future__ import annotations

import json
import re
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
    AirflowTaskTimeout,
)
from airflow.sdk import DAG, Asset, AssetAlias
from airflow.sdk.execution_time.context import OutletEventAccessors
from airflow.sdk.execution_time.timeout import timeout
from support import exported, loading

from airflow_provider_chatexport.core.receipt import receipts_from
from airflow_provider_chatexport.errors import CallError
from airflow_provider_chatexport.lake import Lake
from airflow_provider_chatexport.operators.export import ExportUsersOperator
from airflow_provider_chatexport.operators.load import LoadExportOperator


def test_a_load_returns_its_counts_and_nothing_large(connection, tmp_path) -> None:
    """The result goes to XCom: counts, id and window, a few hundred bytes, no message."""
    summary = loading(exported(), tmp_path / "lake").execute({})
    assert summary["rows"]["messages"] == 161
    assert summary["window"] == {"since": "2025-01-01T09:00:00.000000Z", "until": "2025-01-01T10:00:00.000000Z"}
    assert summary["n_files"] > 0
    assert "files" not in summary
    assert len(json.dumps(summary)) < 3000


def test_exports_of_mapped_tasks_become_one_load(connection, tmp_path) -> None:
    """Mapped export tasks return a list of lists: together they are one load, visible at once."""
    summary = loading([exported(), exported("messaging:ubuntu-support")], tmp_path / "lake").execute({})
    assert summary["rows"]["channels"] == 2


def test_an_export_in_the_list_twice_is_downloaded_once(connection, tmp_path) -> None:
    """Two branches of a DAG may pass the same export: the load is the same as with one."""
    exports = exported()
    connection.control.clear_requests()
    twice = loading([exports, exports], tmp_path / "lake").execute({})
    assert 1 == len(connection.control.requests("/download"))
    assert twice["load_id"] == loading(exports, tmp_path / "lake").execute({})["load_id"]


def test_loading_again_changes_nothing(connection, tmp_path) -> None:
    """A cleared task runs again with the same receipts: it is the same load, once."""
    exports = exported()
    first, second = (loading(exports, tmp_path / "lake").execute({}) for _ in range(2))
    assert first["load_id"] == second["load_id"]
    assert second["already_loaded"]


def test_loading_again_applies_the_limit_of_rejects(connection, tmp_path) -> None:
    """``strict`` must not succeed because an earlier load of the same exports was not strict."""
    lake, exports = tmp_path / "lake", exported()
    summary = loading(exports, lake, max_line_bytes=1000).execute({})
    assert 0 < summary["rejected"] < summary["lines"]
    with pytest.raises(AirflowFailException, match=r"and 0 are allowed; load .* is in the lake all the same"):
        loading(exports, lake, max_line_bytes=1000, strict=True).execute({})
    assert loading(exports, lake, max_line_bytes=1000, max_rejected=summary["rejected"]).execute({})["already_loaded"]


def test_loading_again_names_the_options_that_differ(connection, tmp_path, caplog) -> None:
    """A warning names the options that have no effect, and no warning comes if the options are the same."""
    lake, exports = tmp_path / "lake", exported()
    loading(exports, lake, keep_superseded=True, promote={"users": {"karma": "BIGINT"}}).execute({})
    loading(exports, lake, keep_superseded=True, promote={"users": {"karma": "bigint"}}).execute({})
    assert "other values" not in caplog.text
    loading(exports, lake, drop_text=True, max_line_bytes=100, promote={"users": {"karma": "BIGINT"}}).execute({})
    assert "drop_text, keep_superseded, max_line_bytes; keeping it" in caplog.text


def test_the_log_has_a_line_for_each_stage(connection, tmp_path, caplog) -> None:
    """A load may take an hour: the log says what it does, how much of it is done, and how fast."""
    caplog.set_level("INFO", logger="airflow_provider_chatexport")
    loading(exported(), tmp_path / "lake").execute({})
    lines = [record.getMessage() for record in caplog.records if " is done: " in record.getMessage()]
    assert ["download", "read", "convert", "write"] == [line.partition(" ")[0] for line in lines]
    assert re.fullmatch(r"download is done: (\d[\d.]+ kB) of \1,( [\d.]+ .B/s,)? [\d.]+ s", lines[0])


def test_the_event_of_an_outlet_has_the_summary(connection, tmp_path) -> None:
    """A DAG that waits for the asset can read window, rows and load id in the event."""
    lake = Asset("chat-lake", uri="file:///chat/lake")
    events = OutletEventAccessors()
    summary = loading(exported(), tmp_path / "lake", outlets=[lake]).execute({"outlet_events": events})
    assert events[lake].extra == summary


def test_an_alias_becomes_the_asset_of_the_lake(connection, tmp_path) -> None:
    """The lake's address may be a template, which an asset in a DAG file cannot have."""
    alias, events = AssetAlias("chat-lake"), OutletEventAccessors()
    summary = loading(exported(), tmp_path / "lake", outlets=[alias]).execute({"outlet_events": events})
    (event,) = events[alias].asset_alias_events
    assert (event.dest_asset_key.uri, event.extra) == ((tmp_path / "lake").as_uri(), summary)


def test_the_event_of_a_partitioned_run_names_its_partition(connection, tmp_path) -> None:
    """A DAG that waits for partitions of the lake starts for the one that was loaded."""
    lake = Asset("chat-lake", uri="file:///chat/lake")
    events = OutletEventAccessors()
    if not hasattr(events[lake], "add_partitions"):
        pytest.skip("this Airflow has no partitions of assets; they came with 3.3")
    context = {"outlet_events": events, "partition_key": "2025-01-01T00:00:00"}
    loading(exported(), tmp_path / "lake", outlets=[lake]).execute(context)
    assert {"2025-01-01T00:00:00"} == events[lake].partition_keys


def test_an_empty_window_is_a_success_or_a_skip(connection, tmp_path) -> None:
    """That a window is empty is information, and committed either way; later tasks may be skipped."""
    lake = tmp_path / "lake"
    exports = exported(since="2024-06-01T00:00:00Z", until="2024-06-02T00:00:00Z")
    assert 0 == loading(exports, lake).execute({})["rows"]["messages"]
    with pytest.raises(AirflowSkipException, match="the exports contain no message"):
        loading(exports, tmp_path / "other", on_empty="skip").execute({})
    for each in (lake, tmp_path / "other"):
        assert [[1]] == Lake(each).fetch("SELECT count(*) FROM coverage").rows
    assert loading(exported(), lake, on_empty="skip").execute({})["rows"]["messages"]
    with pytest.raises(CallError, match="on_empty is 'fail'"):
        loading(exports, lake, on_empty="fail")


def test_a_load_with_rejects_logs_a_warning(connection, tmp_path, caplog) -> None:
    """The task succeeds and rows are missing: the log says where they are, without the text of a message."""

    def warnings() -> list[str]:
        ours = (record for record in caplog.records if record.name.startswith("airflow_provider_chatexport"))
        return [record.getMessage() for record in ours if record.levelname == "WARNING"]

    exports = exported()
    loading(exports, tmp_path / "without").execute({})
    assert [] == warnings()
    summary = loading(exports, tmp_path / "lake", max_line_bytes=1000).execute({})
    counted = f"{summary['rejected']} lines or entities of load {summary['load_id']} could not become rows"
    assert [f"{counted}; the table rejects says where they are and why"] == warnings()


def test_a_load_of_rejects_is_not_empty(connection, tmp_path) -> None:
    """A rejected line may be a message, so the tasks that follow must run."""
    allowed = {"max_line_bytes": 100, "max_rejected": None}
    summary = loading(exported(), tmp_path / "lake", on_empty="skip", **allowed).execute({})
    assert (summary["rejected"], summary["rows"].get("messages", 0)) == (summary["lines"], 0)


def test_a_file_that_is_gone_is_one_sentence_and_not_retried(connection, tmp_path) -> None:
    """After 60 days a retry cannot help: the window has to be exported again."""
    exports = exported()
    connection.control.advance_clock(timedelta(days=61))
    with pytest.raises(AirflowFailException, match=r"keeps export files for 60 days; .* clear the export task"):
        loading(exports, tmp_path / "lake").execute({})


def test_a_file_that_is_gone_can_be_exported_again(connection, tmp_path) -> None:
    """A load may be late: it gets the window as the service has it now."""
    exports = exported()
    connection.control.advance_clock(timedelta(days=61))
    summary = loading(exports, tmp_path / "lake", on_missing_file="export").execute({})
    assert summary["rows"]["messages"] == 161
    with pytest.raises(CallError, match="on_missing_file is 'skip'"):
        loading(exports, tmp_path / "lake", on_missing_file="skip")


def test_a_download_survives_a_break_and_an_expired_link(connection, fault, tmp_path) -> None:
    """A load may start a day after its export: the client renews the link and resumes the download."""
    fault("truncate:1000", "/download")
    fault("expire", "/download")
    assert loading(exported(), tmp_path / "lake").execute({})["rows"]["messages"] == 161


def test_a_corrupt_file_is_never_half_loaded(connection, fault, tmp_path) -> None:
    """The service has no digests: the load finds the damage when it reads the file, and ``strict`` refuses the load."""
    exports = exported()
    fault("corrupt", "/download", times=100)
    with pytest.raises(AirflowFailException, match="nothing was loaded"):
        loading(exports, tmp_path / "lake", strict=True).execute({})
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_retry_downloads_a_damaged_gzip_file_again(start_sandbox, set_connection, tmp_path) -> None:
    """The error names the export, not the file: its folder is gone."""
    gzip_sandbox = start_sandbox(gzip=True)
    set_connection(login=gzip_sandbox.api_key, password=gzip_sandbox.api_secret, host=gzip_sandbox.url)
    exports = exported()
    gzip_sandbox.control.fault("corrupt", "/download")
    with pytest.raises(AirflowException, match=rf"^export {exports[0]['task_id']} breaks off or is damaged") as caught:
        loading(exports, tmp_path / "lake").execute({})
    assert not isinstance(caught.value, AirflowFailException)
    assert 161 == loading(exports, tmp_path / "lake").execute({})["rows"]["messages"]


def test_errors_that_a_retry_cannot_fix_are_final(connection, set_connection, tmp_path) -> None:
    """A channel that became empty is empty in the next try, and a link has the same host."""
    loading(exported(), tmp_path / "lake").execute({})
    for message in connection.world.messages("livestream:ubuntu"):
        if "2025-01-01T09" <= message["created_at"] < "2025-01-01T10":
            connection.control.delete_message(message["id"], hard=True)
    exports = exported()
    with pytest.raises(AirflowFailException, match="no message of livestream:ubuntu where the lake shows"):
        loading(exports, tmp_path / "lake").execute({})
    elsewhere = {"link_host": "elsewhere.example"}
    set_connection(login=connection.api_key, password=connection.api_secret, host=connection.url, extra=elsewhere)
    with pytest.raises(AirflowFailException, match=r"the connection allows elsewhere\.example only"):
        loading(exports, tmp_path / "other").execute({})


def test_a_load_that_takes_too_long_is_one_sentence(connection, tmp_path) -> None:
    """It does not matter what Airflow's alarm interrupts: within a query, DuckDB raises an error of its own."""
    exports = exported(since="2025-01-01T00:00:00Z", until="2025-02-01T00:00:00Z")
    loading(exports, tmp_path / "first").execute({})  # imports what all loads need
    started_s = time.monotonic()
    loading(exports, tmp_path / "whole").execute({})
    whole_s = time.monotonic() - started_s
    errors = []
    # Small shares too, in case the machine was much busier when the whole load was measured.
    for share in (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4):
        seconds = whole_s * share
        load = loading(exports, tmp_path / str(share), execution_timeout=timedelta(seconds=seconds))
        try:
            with timeout(seconds):
                load.execute({})
        except AirflowTaskTimeout as error:
            errors.append(str(error))
    assert len(errors) >= 2
    assert all(each.startswith("the load did not finish within its execution_timeout of 0:00:") for each in errors)


def test_a_path_is_rendered_as_text(tmp_path) -> None:
    """Airflow 3.1 calls ``resolve`` of a path, which fails for a folder that does not exist yet."""
    operator = loading([], tmp_path / "lake", work_dir=tmp_path / "{{ folder }}")
    operator.render_template_fields({"folder": "work"})
    assert (f"{tmp_path}/lake", f"{tmp_path}/work") == (operator.lake, operator.work_dir)


@pytest.mark.parametrize("template", ["{{ output }}", "{{ output | tojson }}", ["{{ output[0] }}", "{{ output[1:] }}"]])
def test_exports_may_be_a_template(connection, tmp_path, template) -> None:
    """It renders the output of the export task as text, unless the DAG renders native objects."""
    output = exported() + exported("messaging:ubuntu-support")
    operator = loading(template, tmp_path / "lake")
    operator.render_template_fields({"output": output})
    assert receipts_from(output) == receipts_from(operator.exports)


@pytest.mark.parametrize("exports", ["None", "", "[", "'text'", None, [], [[], []], "text", [{"v": 1}], 7])
def test_exports_without_a_receipt_are_refused(exports) -> None:
    """The output of another task is an easy mistake."""
    with pytest.raises(CallError, match=r"receipt|no export"):
        receipts_from(exports)


@pytest.mark.parametrize(
    ("sentence", "exports"),
    [
        ("there is no export: a template in exports rendered a value that is not there", "None"),
        (
            "is text that cannot be read .* set render_template_as_native_obj=True on the DAG",
            "LazyXComSequence(2 items)",
        ),
        ("is text that cannot be read .* such as task.output", "[{'v': 1, 'at': datetime(2026, 1, 1)}]"),
    ],
)
def test_what_a_template_made_of_the_exports_is_named_as_the_cause(sentence, exports) -> None:
    """The template looks right in the DAG file: only what it rendered is wrong."""
    with pytest.raises(CallError, match=sentence):
        receipts_from(exports)


def test_limits_and_promoted_fields_are_options_of_the_task(connection, tmp_path) -> None:
    """The operator can do what the command line can: a typed column, a limit of rejects, a limit of line lengths."""
    promote = {"users": {"karma": "BIGINT", "birthland": "DOUBLE"}}
    summary = loading(exported(), tmp_path / "lake", promote=promote).execute({})
    assert summary["cast_failures"].keys() == {"users.birthland"}
    exports = exported()
    with pytest.raises(AirflowFailException, match=r"could not become rows, and 50 % are allowed; nothing was loaded"):
        loading(exports, tmp_path / "other", max_line_bytes=100).execute({})
    with pytest.raises(AirflowFailException, match=r"could not become rows, and 90 % are allowed; nothing was loaded"):
        loading(exports, tmp_path / "lake", max_line_bytes=100, max_rejected=0.9).execute({})
    with pytest.raises(CallError, match="types are VARCHAR"):
        loading(exports, tmp_path / "lake", promote={"users": {"karma": "INT8"}})


@pytest.mark.parametrize("wrong", [{"max_rejected": -1}, {"on_empty": "bogus"}])
def test_a_wrong_argument_of_a_mapped_task_is_not_retried(wrong) -> None:
    """Airflow creates the operator of a mapped task when it runs, and the argument is the same in every try."""
    with DAG(dag_id="mapped", schedule=None, start_date=datetime(2025, 1, 1, tzinfo=UTC)):
        mapped = LoadExportOperator.partial(task_id="load", lake="/lake", **wrong).expand(exports=[[{"v": 1}]])
    with pytest.raises(AirflowFailException, match=f"^{next(iter(wrong))} is "):
        mapped.unmap({"exports": [{"v": 1}]})


def test_pseudonyms_are_made_with_the_key_of_the_connection(
    connection, set_connection, tmp_path, caplog, monkeypatch
) -> None:
    """The connection has the secret. Without it the load fails; with it no id, name or text gets into the lake."""
    lake, exports = tmp_path / "lake", exported()
    # Only the command line reads this variable: workers have other environments.
    monkeypatch.setenv("CHATEXPORT_PSEUDONYM_KEY", "only-on-the-command-line")
    with pytest.raises(AirflowFailException, match="set pseudonym_key in the extra of the connection"):
        loading(exports, lake, hash_users=True).execute({})
    assert not lake.exists()
    set_connection(
        login=connection.api_key,
        password=connection.api_secret,
        host=connection.url,
        extra={"pseudonym_key": "only-in-the-connection"},
    )
    operator = loading(exports, lake, hash_users=True, drop_text=True)
    summary = operator.execute({})
    assert summary["rows"]["messages"] == 161
    ids = {message["user"]["id"] for message in connection.world.messages("livestream:ubuntu")}
    shown = {row[0]: row[1:] for row in Lake(lake).fetch("SELECT id, name FROM users").rows}
    assert not ids & shown.keys()
    assert {(None,)} == {tuple(row) for row in shown.values()}
    assert [[None]] == Lake(lake).fetch("SELECT DISTINCT text FROM messages").rows
    assert "only-in-the-connection" not in caplog.text + json.dumps(summary) + repr(vars(operator))


def test_an_export_of_users_is_loaded_alone_or_with_channels(connection, tmp_path) -> None:
    """Both export operators return receipts: the load operator takes either, and a mixture."""
    user_id = next(user_id for user_id in connection.world.user_ids() if any(connection.world.messages_of(user_id)))
    export = ExportUsersOperator(task_id="users", user_ids=[user_id], poll_interval=0.02, deferrable=False)
    receipts = export.execute({})
    summary = loading(receipts, tmp_path / "lake").execute({})
    assert summary["rows"]["user_export_users"] == 1
    assert summary["rows"]["user_export_messages"] == len(list(connection.world.messages_of(user_id)))
    both = loading([receipts, exported()], tmp_path / "lake").execute({})
    assert (both["rows"]["messages"], both["rows"]["user_export_users"]) == (161, 1)


@pytest.mark.parametrize("lake", [None, "", " ", "None", 5])
def test_no_lake_is_refused(connection, tmp_path, monkeypatch, lake) -> None:
    """A template over a missing variable renders as nothing: the worker's own folder must not become a lake."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AirflowFailException, match=r"^lake is (empty|not text but of type int); give a folder"):
        loading(exported(), lake).execute({})
    with pytest.raises(AirflowFailException, match=r"^work_dir is empty; give a folder, or leave it out"):
        loading(exported(), tmp_path / "lake", work_dir="None").execute({})
    assert not list(tmp_path.iterdir())


def test_a_lake_in_the_home_folder(connection, tmp_path, monkeypatch) -> None:
    """``~`` works in the lake's address, whatever the worker's folder is, and lineage has the full path."""
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(elsewhere)
    operator = loading(exported(), "~/lake", work_dir="~/work")
    operator.execute({})
    assert (home / "lake" / "catalog.duckdb").is_file()
    assert (home / "work").is_dir()
    assert not list(elsewhere.iterdir())
    lineage: Any = operator.get_openlineage_facets_on_complete(None)
    assert f"{home}/lake/messages" in {each.name for each in lineage.outputs}


def test_a_lake_that_cannot_be_written_is_one_sentence(connection, tmp_path) -> None:
    """There is a file where the lake's folder has to be: the error says what, where, and what to do."""
    in_the_way = tmp_path / "file"
    in_the_way.write_text("not a lake")
    with pytest.raises(AirflowException, match=r"cannot write the lake at") as caught:
        loading(exported(), in_the_way / "lake").execute({})
    assert not isinstance(caught.value, AirflowFailException), "a full disk raises it too, and a retry can help"
    assert in_the_way.read_text() == "not a lake"


def test_an_unusable_work_dir_is_named_in_the_error(connection, tmp_path) -> None:
    """An error about the lake would mislead."""
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    refused = rf"^the work folder {in_the_way}/work \(work_dir\) cannot be used: "
    with pytest.raises(AirflowException, match=refused) as caught:
        loading(exported(), tmp_path / "lake", work_dir=in_the_way / "work").execute({})
    assert not isinstance(caught.value, AirflowFailException)


def test_the_error_names_the_export_that_unpacks_to_too_much(start_sandbox, set_connection, tmp_path) -> None:
    """The path of the download is gone when a person reads the error."""
    gzip_sandbox = start_sandbox(gzip=True)
    set_connection(login=gzip_sandbox.api_key, password=gzip_sandbox.api_secret, host=gzip_sandbox.url)
    exports = exported()
    with pytest.raises(AirflowException, match=rf"^export {exports[0]['task_id']} unpacks to more than 1000 bytes"):
        loading(exports, tmp_path / "lake", max_unpacked_bytes=1000).execute({})

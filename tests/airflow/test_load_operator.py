"""The load operator by itself: what it takes, what it hands on, what it says when it cannot."""

from __future__ import annotations

import json
import re
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
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

from airflow_provider_chatexport.errors import CallError
from airflow_provider_chatexport.lake.catalog import query
from airflow_provider_chatexport.lake.storage.address import open_store
from airflow_provider_chatexport.operators.export import ExportChannelsOperator, ExportUsersOperator
from airflow_provider_chatexport.operators.load import LoadExportOperator, receipts_from


def exported(channel: str = "livestream:ubuntu", **window: str) -> Any:
    operator = ExportChannelsOperator(
        task_id="export",
        channels=[channel],
        **{"since": "2025-01-01T09:00:00Z", "until": "2025-01-01T10:00:00Z", **window},
        poll_interval=0.02,
        deferrable=False,
    )
    return operator.execute({})


def loading(exports: Any, lake: Any, **others: Any) -> LoadExportOperator:
    return LoadExportOperator(task_id="load", exports=exports, lake=lake, **others)


def test_a_load_hands_on_counts_and_nothing_large(connection, tmp_path) -> None:
    """What is returned goes to XCom: counts, id and window, a few hundred bytes, and no message."""
    told = loading(exported(), tmp_path / "lake").execute({})
    assert told["rows"]["messages"] == 161
    assert told["window"] == {"since": "2025-01-01T09:00:00.000000Z", "until": "2025-01-01T10:00:00.000000Z"}
    assert told["n_files"] > 0
    assert "files" not in told
    assert len(json.dumps(told)) < 3000


def test_exports_of_mapped_tasks_become_one_load(connection, tmp_path) -> None:
    """Mapped export tasks give a list of lists: together they are one load, visible at once."""
    told = loading([exported(), exported("messaging:ubuntu-support")], tmp_path / "lake").execute({})
    assert told["rows"]["channels"] == 2


def test_an_export_that_is_given_twice_is_fetched_once(connection, tmp_path) -> None:
    """Two branches of a DAG may hand it on: it is the same load as of one."""
    exports = exported()
    httpx.delete(f"{connection.url}/_sandbox/requests").raise_for_status()
    twice = loading([exports, exports], tmp_path / "lake").execute({})
    requests = httpx.get(f"{connection.url}/_sandbox/requests").raise_for_status().json()
    assert 1 == sum(each["path"].startswith("/download") for each in requests)
    assert twice["load_id"] == loading(exports, tmp_path / "lake").execute({})["load_id"]


def test_loading_again_changes_nothing(connection, tmp_path) -> None:
    """A cleared task runs again with the same receipts: the same load, once."""
    exports = exported()
    first, second = (loading(exports, tmp_path / "lake").execute({}) for _ in range(2))
    assert first["load_id"] == second["load_id"]
    assert second["already_loaded"]


def test_loading_again_heeds_the_limit_of_rejects(connection, tmp_path) -> None:
    """Whoever asks for strictness must not be told that all is well, because nobody asked before."""
    lake, exports = tmp_path / "lake", exported()
    told = loading(exports, lake, max_line_bytes=1000).execute({})
    assert 0 < told["rejected"] < told["lines"]
    with pytest.raises(AirflowFailException, match=r"and 0 are allowed; load .* is in the lake all the same"):
        loading(exports, lake, max_line_bytes=1000, strict=True).execute({})
    assert loading(exports, lake, max_line_bytes=1000, max_rejected=told["rejected"]).execute({})["already_loaded"]


def test_loading_again_says_which_options_come_too_late(connection, tmp_path, caplog) -> None:
    """What was asked for and is not done has to be told, and what was done already has not."""
    lake, exports = tmp_path / "lake", exported()
    loading(exports, lake, keep_superseded=True, promote={"users": {"karma": "BIGINT"}}).execute({})
    loading(exports, lake, keep_superseded=True, promote={"users": {"karma": "bigint"}}).execute({})
    assert "other values" not in caplog.text
    loading(exports, lake, drop_text=True, max_line_bytes=100, promote={"users": {"karma": "BIGINT"}}).execute({})
    assert "from other values of drop_text, keep_superseded, max_line_bytes, and stays as it is" in caplog.text


def test_the_log_tells_each_stage(connection, tmp_path, caplog) -> None:
    """An hour of a load must not be an hour of silence: what it is doing, how much of how much, how fast."""
    caplog.set_level("INFO", logger="airflow_provider_chatexport")
    loading(exported(), tmp_path / "lake").execute({})
    told = [record.getMessage() for record in caplog.records if " is done: " in record.getMessage()]
    assert ["download", "read", "convert", "write"] == [line.partition(" ")[0] for line in told]
    assert re.fullmatch(r"download is done: 531\.1 kB of 531\.1 kB, [\d.]+ .B/s, [\d.]+ s", told[0])


def test_outlets_tell_what_was_loaded(connection, tmp_path) -> None:
    """A DAG that waits for the asset can read window, rows and load id from the event."""
    lake = Asset("chat-lake", uri="file:///chat/lake")
    events = OutletEventAccessors()
    told = loading(exported(), tmp_path / "lake", outlets=[lake]).execute({"outlet_events": events})
    assert events[lake].extra == told


def test_an_alias_stands_for_the_lake(connection, tmp_path) -> None:
    """Its address may be a template, which no asset of the DAG file can have."""
    alias, events = AssetAlias("chat-lake"), OutletEventAccessors()
    told = loading(exported(), tmp_path / "lake", outlets=[alias]).execute({"outlet_events": events})
    (event,) = events[alias].asset_alias_events
    assert (event.dest_asset_key.uri, event.extra) == ((tmp_path / "lake").as_uri(), told)


def test_the_event_of_a_partitioned_run_names_its_partition(connection, tmp_path) -> None:
    """A DAG that waits for a partition of the lake is started for the one that was loaded."""
    lake = Asset("chat-lake", uri="file:///chat/lake")
    events = OutletEventAccessors()
    if not hasattr(events[lake], "add_partitions"):
        pytest.skip("this Airflow has no partitions of assets; they came with 3.3")
    context = {"outlet_events": events, "partition_key": "2025-01-01T00:00:00"}
    loading(exported(), tmp_path / "lake", outlets=[lake]).execute(context)
    assert {"2025-01-01T00:00:00"} == events[lake].partition_keys


def test_a_silent_window_is_a_success_or_skips_what_follows(connection, tmp_path) -> None:
    """Silence is knowledge, and committed either way; whoever builds on new messages may leave that out."""
    lake = tmp_path / "lake"
    exports = exported(since="2024-06-01T00:00:00Z", until="2024-06-02T00:00:00Z")
    assert 0 == loading(exports, lake).execute({})["rows"]["messages"]
    with pytest.raises(AirflowSkipException, match="the exports hold no message"):
        loading(exports, tmp_path / "other", on_empty="skip").execute({})
    for each in (lake, tmp_path / "other"):
        assert [[1]] == query.run(open_store(each), "SELECT count(*) FROM coverage")[1]
    assert loading(exported(), lake, on_empty="skip").execute({})["rows"]["messages"]
    with pytest.raises(CallError, match="on_empty is 'fail'"):
        loading(exports, lake, on_empty="fail")


def test_rejects_are_warned_of(connection, tmp_path, caplog) -> None:
    """A green task with rows that are missing has to show where they are, and nothing of what people wrote."""
    exports = exported()
    loading(exports, tmp_path / "well").execute({})
    assert "WARNING" not in {record.levelname for record in caplog.records if "pipeline" in record.name}
    told = loading(exports, tmp_path / "lake", max_line_bytes=1000).execute({})
    (warned,) = (record for record in caplog.records if "pipeline" in record.name and record.levelname == "WARNING")
    counted = f"{told['rejected']} lines or entities of load {told['load_id']} could not become rows"
    assert f"{counted}; the table rejects says where they are and why" == warned.getMessage()


def test_rejects_are_no_silence(connection, tmp_path) -> None:
    """Where no line could become a row nobody knows whether people wrote: what follows has to run, and look."""
    told = loading(exported(), tmp_path / "lake", max_line_bytes=100, on_empty="skip").execute({})
    assert (told["rejected"], told["rows"].get("messages", 0)) == (told["lines"], 0)


def test_a_file_that_is_gone_is_one_sentence_and_not_retried(connection, tmp_path) -> None:
    """60 days after its export a load cannot come right by itself: the export has to be made anew."""
    exports = exported()
    httpx.post(f"{connection.url}/_sandbox/clock", json={"advance_s": 61 * 86400}).raise_for_status()
    with pytest.raises(AirflowFailException, match=r"keeps export files for 60 days; .* clear the export task"):
        loading(exports, tmp_path / "lake").execute({})


def test_a_file_that_is_gone_can_be_exported_again(connection, tmp_path) -> None:
    """For loads that may come late: the window comes as the service has it now."""
    exports = exported()
    httpx.post(f"{connection.url}/_sandbox/clock", json={"advance_s": 61 * 86400}).raise_for_status()
    told = loading(exports, tmp_path / "lake", on_missing_file="export").execute({})
    assert told["rows"]["messages"] == 161
    with pytest.raises(CallError, match="on_missing_file is 'skip'"):
        loading(exports, tmp_path / "lake", on_missing_file="skip")


def test_an_expired_link_in_the_middle_is_no_matter(connection, fault, tmp_path) -> None:
    """A load may begin a day after its export: links are made anew, and a break is continued."""
    fault("truncate:1000", "/download")
    fault("expire", "/download")
    assert loading(exported(), tmp_path / "lake").execute({})["rows"]["messages"] == 161


def test_a_corrupt_file_is_never_half_loaded(connection, fault, tmp_path) -> None:
    """The service gives no digest: what changed on the way is found when it is read, and strict refuses it whole."""
    exports = exported()
    fault("corrupt", "/download", times=100)
    with pytest.raises(AirflowFailException, match="nothing was loaded"):
        loading(exports, tmp_path / "lake", strict=True).execute({})
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_packed_file_that_is_damaged_on_the_way_is_fetched_again(start_sandbox, set_connection, tmp_path) -> None:
    """A retry cures it. The sentence names the export: the folder that it was fetched to is gone."""
    packing = start_sandbox(gzip=True)
    set_connection(login=packing.api_key, password=packing.api_secret, host=packing.url)
    exports = exported()
    corrupt = {"do": "corrupt", "path": "/download", "times": 1, "method": "GET"}
    httpx.post(f"{packing.url}/_sandbox/faults", json=corrupt).raise_for_status()
    with pytest.raises(AirflowException, match=rf"^export {exports[0]['task_id']} breaks off or is damaged") as caught:
        loading(exports, tmp_path / "lake").execute({})
    assert not isinstance(caught.value, AirflowFailException)
    assert 161 == loading(exports, tmp_path / "lake").execute({})["rows"]["messages"]


def test_what_a_retry_cannot_cure_is_not_retried(connection, set_connection, tmp_path) -> None:
    """A channel that became empty is as empty next time, and a link leads to the same host."""
    loading(exported(), tmp_path / "lake").execute({})
    with httpx.Client(base_url=connection.url) as client:
        for message in connection.world.messages("livestream:ubuntu"):
            if "2025-01-01T09" <= message["created_at"] < "2025-01-01T10":
                gone = {"delete": {"id": message["id"], "hard": True}}
                client.post("/_sandbox/messages", json=gone).raise_for_status()
    exports = exported()
    with pytest.raises(AirflowFailException, match="no message of livestream:ubuntu where the lake shows"):
        loading(exports, tmp_path / "lake").execute({})
    elsewhere = {"link_host": "elsewhere.example"}
    set_connection(login=connection.api_key, password=connection.api_secret, host=connection.url, extra=elsewhere)
    with pytest.raises(AirflowFailException, match=r"the connection allows elsewhere\.example only"):
        loading(exports, tmp_path / "other").execute({})


def test_a_load_that_takes_too_long_is_one_sentence(connection, tmp_path) -> None:
    """Whatever it was doing when Airflow's alarm went off: within a query the database makes an error of its own."""
    exports = exported(since="2025-01-01T00:00:00Z", until="2025-02-01T00:00:00Z")
    loading(exports, tmp_path / "first").execute({})  # imports what all loads need
    began_s = time.monotonic()
    loading(exports, tmp_path / "whole").execute({})
    whole_s = time.monotonic() - began_s
    told = []
    for part in range(1, 10, 2):
        seconds = whole_s * part / 10
        load = loading(exports, tmp_path / str(part), execution_timeout=timedelta(seconds=seconds))
        try:
            with timeout(seconds):
                load.execute({})
        except AirflowTaskTimeout as error:
            told.append(str(error))
    assert len(told) >= 2
    assert all(each.startswith("the load was not done within its execution_timeout of 0:00:") for each in told)


def test_a_path_is_rendered_as_its_text(tmp_path) -> None:
    """Airflow 3.1 would have the path resolve itself, and what is not there yet cannot."""
    operator = loading([], tmp_path / "lake", work_dir=tmp_path / "{{ place }}")
    operator.render_template_fields({"place": "work"})
    assert (f"{tmp_path}/lake", f"{tmp_path}/work") == (operator.lake, operator.work_dir)


@pytest.mark.parametrize("template", ["{{ handed }}", "{{ handed | tojson }}", ["{{ handed[0] }}", "{{ handed[1:] }}"]])
def test_exports_may_be_a_template(connection, tmp_path, template) -> None:
    """It makes text of what the export task returned, unless the DAG renders native objects."""
    handed = exported() + exported("messaging:ubuntu-support")
    operator = loading(template, tmp_path / "lake")
    operator.render_template_fields({"handed": handed})
    assert receipts_from(handed) == receipts_from(operator.exports)


@pytest.mark.parametrize("nothing", ["None", "", "[", "'text'", None, [], [[], []], "text", [{"v": 1}], 7])
def test_what_is_no_receipt_is_refused(nothing) -> None:
    """The wrong task's XCom is an easy mistake."""
    with pytest.raises(Exception, match=r"receipt|no export to load"):
        receipts_from(nothing)


def test_limits_and_promoted_fields_are_options_of_the_task(connection, tmp_path) -> None:
    """All that the command line can do: a typed column, a limit of rejects, a limit of lines."""
    promote = {"users": {"karma": "BIGINT", "birthland": "DOUBLE"}}
    told = loading(exported(), tmp_path / "lake", promote=promote).execute({})
    assert told["cast_failures"].keys() == {"users.birthland"}
    exports = exported()
    with pytest.raises(AirflowFailException, match=r"could not become rows, and 90 % are allowed; nothing was loaded"):
        loading(exports, tmp_path / "lake", max_line_bytes=100, max_rejected=0.9).execute({})
    with pytest.raises(CallError, match="types are VARCHAR"):
        loading(exports, tmp_path / "lake", promote={"users": {"karma": "INT8"}})


@pytest.mark.parametrize("wrong", [{"max_rejected": -1}, {"on_empty": "bogus"}])
def test_a_wrong_argument_of_a_mapped_task_is_not_retried(wrong) -> None:
    """It is looked at when the task runs, as Airflow makes the operator there, and is the same in every try."""
    with DAG(dag_id="mapped", schedule=None, start_date=datetime(2025, 1, 1, tzinfo=UTC)):
        mapped = LoadExportOperator.partial(task_id="load", lake="/lake", **wrong).expand(exports=[[{"v": 1}]])
    with pytest.raises(AirflowFailException, match=f"^{next(iter(wrong))} is "):
        mapped.unmap({"exports": [{"v": 1}]})


def test_pseudonyms_are_made_with_the_key_of_the_connection(
    connection, set_connection, tmp_path, caplog, monkeypatch
) -> None:
    """The secret is in the connection alone; without it nothing lands, and neither do ids, names or texts with it."""
    lake, exports = tmp_path / "lake", exported()
    # The variable is the command line's: workers have environments of their own.
    monkeypatch.setenv("CHATEXPORT_PSEUDONYM_KEY", "only-on-the-command-line")
    with pytest.raises(AirflowFailException, match="operators take it from pseudonym_key in the extra of"):
        loading(exports, lake, hash_users=True).execute({})
    assert not lake.exists()
    set_connection(
        login=connection.api_key,
        password=connection.api_secret,
        host=connection.url,
        extra={"pseudonym_key": "only-in-the-connection"},
    )
    operator = loading(exports, lake, hash_users=True, drop_text=True)
    told = operator.execute({})
    assert told["rows"]["messages"] == 161
    ids = {message["user"]["id"] for message in connection.world.messages("livestream:ubuntu")}
    shown = {row[0]: row[1:] for row in query.run(open_store(lake), "SELECT id, name FROM users")[1]}
    assert not ids & shown.keys()
    assert {(None,)} == {tuple(row) for row in shown.values()}
    assert [[None]] == query.run(open_store(lake), "SELECT DISTINCT text FROM messages")[1]
    assert "only-in-the-connection" not in caplog.text + json.dumps(told) + repr(vars(operator))


def test_an_export_of_users_is_loaded_alone_or_with_channels(connection, tmp_path) -> None:
    """Both export operators hand on receipts: the load operator takes either, and both."""
    user_id = next(user_id for user_id in connection.world.user_ids() if any(connection.world.messages_of(user_id)))
    export = ExportUsersOperator(task_id="users", user_ids=[user_id], poll_interval=0.02, deferrable=False)
    receipts = export.execute({})
    told = loading(receipts, tmp_path / "lake").execute({})
    assert told["rows"]["user_export_users"] == 1
    assert told["rows"]["user_export_messages"] == len(list(connection.world.messages_of(user_id)))
    both = loading([receipts, exported()], tmp_path / "lake").execute({})
    assert (both["rows"]["messages"], both["rows"]["user_export_users"]) == (161, 1)


@pytest.mark.parametrize("lake", [None, "", " ", "None", 5])
def test_no_lake_is_refused(connection, tmp_path, monkeypatch, lake) -> None:
    """A template over an absent variable renders to nothing: the worker's own folder is no lake."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AirflowFailException, match=r"^lake is (empty|a int and no text); give a folder"):
        loading(exported(), lake).execute({})
    with pytest.raises(AirflowFailException, match=r"^work_dir is empty; give a folder, or leave it out"):
        loading(exported(), tmp_path / "lake", work_dir="None").execute({})
    assert not list(tmp_path.iterdir())


def test_a_lake_in_the_home_folder(connection, tmp_path, monkeypatch) -> None:
    """As people write it, wherever the worker's own folder is, and in what lineage is told."""
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
    """A file where the lake should be: what, where, what to do."""
    in_the_way = tmp_path / "lake"
    in_the_way.write_text("not a lake")
    with pytest.raises(AirflowException, match=r"lake") as caught:
        loading(exported(), in_the_way).execute({})
    assert not isinstance(caught.value, AirflowFailException), "a full disk would be told in the same way"
    assert in_the_way.read_text() == "not a lake"


def test_a_place_where_no_load_can_work_is_not_the_lakes_fault(connection, tmp_path) -> None:
    """Who reads the sentence would otherwise look after the lake."""
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    refused = rf"^the work folder {in_the_way}/work \(work_dir\) cannot be used: "
    with pytest.raises(AirflowException, match=refused) as caught:
        loading(exported(), tmp_path / "lake", work_dir=in_the_way / "work").execute({})
    assert not isinstance(caught.value, AirflowFailException)


def test_a_file_that_unpacks_to_too_much_is_told_by_its_export(start_sandbox, set_connection, tmp_path) -> None:
    """The path that it was fetched to is gone when somebody reads the sentence."""
    packing = start_sandbox(gzip=True)
    set_connection(login=packing.api_key, password=packing.api_secret, host=packing.url)
    exports = exported()
    with pytest.raises(AirflowException, match=rf"^export {exports[0]['task_id']} unpacks to more than 1000 bytes"):
        loading(exports, tmp_path / "lake", max_unpacked_bytes=1000).execute({})

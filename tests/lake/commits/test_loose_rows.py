"""One row per key: of rows that coverage alone does not decide about, the newest is shown, before and after compaction.

Such loose rows are messages that no claim of their own export contains, and reactions whose message is not in their
load.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from effort import examples
from export_objects import CID, channel, line, message, reaction, write_lines
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lakes import LakeProbe

from airflow_provider_chatexport.core.options import LoadOptions
from airflow_provider_chatexport.core.progress import silent
from airflow_provider_chatexport.errors import ShrinkError
from airflow_provider_chatexport.lake import Lake
from airflow_provider_chatexport.lake.commits.losses import Losses
from airflow_provider_chatexport.lake.publish.plan import unfit
from airflow_provider_chatexport.lake.publish.settle import settle
from airflow_provider_chatexport.lake.storage.address import open_store

TEXTS = "SELECT id, text FROM messages ORDER BY ALL"
REACTIONS = "SELECT message_id, score FROM reactions ORDER BY ALL"
OTHER = "messaging:other"


def at(day: int, hour: int = 0) -> str:
    return f"2026-01-{day:02}T{hour:02}:00:00Z"


def said(message_id: str, text: str, day: int, hour: int = 0, **others: Any) -> bytes:
    fields = {"created_at": at(day, hour), "updated_at": at(day, hour), **others}
    return line("message", message(message_id, text=text, **fields))


def load(
    lake: LakeProbe, lines: list[bytes], exported: str, window: tuple[str, str] | None = None, **options: Any
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        since, until = window or (None, None)
        path = write_lines(Path(folder) / "export", lines)
        chosen = LoadOptions(**{"accept_shrink": True, "max_vanished": None, **options})
        Lake(lake.uri).load(path, since=since, until=until, exported_at=exported, options=chosen)


def settled(lake: LakeProbe) -> None:
    """Rewrite what cannot be published, as a publication does first."""
    store = open_store(lake.uri)
    snapshot, _ = settle(store, losses=Losses(store), work_dir=None, progress=silent)
    assert [] == list(unfit(snapshot))
    lake.assert_glob_equals_view()


def compact(lake: LakeProbe) -> str | None:
    return Lake(lake.uri).compact().record_id


def shown(lake: LakeProbe, query: str = TEXTS) -> list[list[Any]]:
    """Return what the views show. Compaction does not change it, a glob shows the same, and it is not done twice."""
    rows = lake.rows(query)
    compact(lake)
    assert rows == lake.rows(query)
    lake.assert_glob_equals_view()
    assert compact(lake) is None
    return rows


def test_three_exports_of_a_message_dated_ahead_give_one_row(lake: LakeProbe) -> None:
    """Regression: no export claims what is newer than itself, so each export added a row."""
    for day in (2, 3, 4):
        load(lake, [said("ahead", f"of {day}", 20)], at(day), (at(1), at(30)))
        assert [["ahead", f"of {day}"]] == lake.rows(TEXTS)
    assert [["ahead", "of 4"]] == shown(lake)


def test_the_newest_row_of_a_key_is_shown_in_whatever_order_loads_arrive(lake: LakeProbe) -> None:
    """A compaction in between changes nothing: an older export may arrive after it."""
    load(lake, [said("ahead", "of 4", 20)], at(4), (at(1), at(30)))
    load(lake, [said("ahead", "of 2", 20)], at(2), (at(1), at(30)))
    assert [["ahead", "of 4"]] == shown(lake)
    load(lake, [said("ahead", "of 3", 20), said("other", "of 3", 20)], at(3), (at(1), at(30)))
    assert [["ahead", "of 4"], ["other", "of 3"]] == shown(lake)


def test_a_load_id_decides_between_two_exports_of_one_moment(lake: LakeProbe) -> None:
    for text in ("one", "two", "three"):
        load(lake, [said("ahead", text, 20)], at(2), (at(1), at(30)))
    (row,) = lake.rows("SELECT text, _load_id FROM messages")
    assert max(lake.rows("SELECT load_id FROM loads"))[0] == row[1]
    assert [["ahead", row[0]]] == shown(lake)


def test_a_key_twice_in_one_load_is_one_row(lake: LakeProbe) -> None:
    load(lake, [said("ahead", "of 2", 20), said("ahead", "of 2 again", 20)], at(2), (at(1), at(30)))
    load(lake, [said("ahead", "of 3", 20), said("ahead", "of 3", 20)], at(3), (at(1), at(30)))
    assert [["ahead", "of 3"]] == shown(lake)


def test_files_loaded_by_hand_before_their_messages_give_one_row_per_message(lake: LakeProbe) -> None:
    """A copy may have lost its time. Such a file covers nothing."""
    for exported in ("2025-12-01T00:00:00Z", "2025-12-02T00:00:00Z"):
        load(lake, [said("a", exported, 1), said("b", exported, 2)], exported)
    newest = "2025-12-02T00:00:00Z"
    assert [["a", newest], ["b", newest]] == shown(lake)


def test_an_export_that_covers_a_loose_message_decides_about_it(lake: LakeProbe) -> None:
    load(lake, [said("gone", "x", 5), said("kept", "x", 5)], at(4), (at(1), at(30)))
    load(lake, [said("kept", "y", 5)], at(6), (at(5), at(6)))
    assert [["kept", "y"]] == shown(lake)


def test_a_clipped_claim_keeps_what_a_policy_deleted_and_shows_the_newest_of_the_rest(lake: LakeProbe) -> None:
    """The newer export has rows before its horizon, and does not claim that others were never there."""
    load(lake, [said("kept", "old", 1), said("deleted", "old", 1), said("new", "old", 8)], at(9), (at(1), at(9)))
    newer = [said("kept", "edited", 1), said("new", "edited", 8)]
    load(lake, newer, at(10), (at(1), at(9)), retention="3d")
    assert [["deleted", "old"], ["kept", "edited"], ["new", "edited"]] == shown(lake)


def test_a_reaction_without_its_message_is_one_row_however_often_it_is_exported(lake: LakeProbe) -> None:
    """Regression: the export does not say where the message is, so each export put the reaction into its own place."""
    for day, cid in ((11, CID), (12, OTHER), (13, CID)):
        lone = line("reaction", reaction("m0", score=day, created_at=at(5, day - 11), updated_at=at(day)))
        load(lake, [line("channel", channel(cid)), lone], at(day))
    assert [["m0", 13]] == shown(lake, REACTIONS)


@pytest.mark.parametrize("message_comes_last", [True, False])
def test_a_reaction_that_is_exported_with_and_without_its_message_is_one_row(
    lake: LakeProbe, message_comes_last: bool
) -> None:
    """Its row lies on the day of the message, or on its own day."""
    first, second = (at(11), at(12)) if message_comes_last else (at(12), at(11))
    fields = {"cid": CID, "created_at": at(5), "updated_at": at(5)}
    alone = [line("channel", channel()), line("reaction", reaction("m0", score=1, **fields))]
    load(lake, alone, first, (at(5), at(6)))
    together = [said("m0", "x", 2), line("reaction", reaction("m0", score=2, **fields))]
    load(lake, together, second, (at(2), at(3)))
    assert [["m0", 2 if message_comes_last else 1]] == shown(lake, REACTIONS)


def test_compaction_leaves_one_row_of_a_message_that_moved(lake: LakeProbe) -> None:
    """Until then both are shown, unless one export covers both channels: ids are compared where that is needed."""
    day = (at(1), at(2))
    load(lake, [said("m", "before", 1)], at(3), day)
    load(lake, [said("m", "after", 1, cid=OTHER)], at(4), day)
    (doubled,) = [each for each in Lake(lake.uri).verify().findings if each.kind == "doubled"]
    assert "run chatexport compact" in doubled.what
    compact(lake)
    assert [["m", "after"]] == shown(lake)
    assert Lake(lake.uri).verify().ok


def test_loose_rows_have_a_file_of_their_own_after_compaction(lake: LakeProbe) -> None:
    """Later loads are compared with those few rows, and not with the whole day."""
    day = (at(1), at(30))
    load(lake, [said("covered", "x", 1, 1), said("ahead", "x", 1, 9)], at(1, 8), day)
    load(lake, [said("covered", "y", 1, 1), said("ahead", "y", 1, 9)], at(1, 8), (at(1), at(29)))
    compact(lake)
    live = [each for each in lake.snapshot().file_states if each.is_live and each.file.table == "messages"]
    assert [(1, 0), (1, 1)] == sorted((each.file.rows, each.file.n_uncovered) for each in live)
    assert not any(each.is_contested or each.is_masked for each in live)


def test_an_older_compaction_left_rows_of_one_key_that_are_no_longer_shown(lake: LakeProbe) -> None:
    """Its record does not say that its keys are unique."""
    for day in (2, 3):
        load(lake, [said("ahead", f"of {day}", 20), said(f"m{day}", "x", 1, day)], at(day), (at(1), at(30)))
    with Lake(lake.uri) as opened:
        opened.compact()
    (path,) = Path(lake.uri, "_loads").glob("rewrite-*.json")
    record = json.loads(path.read_bytes())
    loads = [json.loads(each.read_bytes()) for each in Path(lake.uri, "_loads").glob("*.json") if each != path]
    # What the code of that time wrote: the files of both loads, as they were.
    record["files"] = [file for each in loads for file in each["files"]]
    record["counts"] = {"rows": {}}
    del record["has_unique_keys"]
    path.write_text(json.dumps(record))
    Lake(lake.uri).rebuild_catalog()
    assert [["ahead", "of 3"]] == lake.rows("SELECT id, text FROM messages WHERE id = 'ahead'")


# The guard


def test_an_export_without_the_loose_messages_of_a_channel_is_refused(lake: LakeProbe) -> None:
    load(lake, [said(f"m{n}", "x", 5, n) for n in range(10)], "2025-12-01T00:00:00Z")
    with pytest.raises(ShrinkError, match="no message of messaging:general where the lake shows 10"):
        load(lake, [line("channel", channel())], at(7), (at(5), at(6)), accept_shrink=False)
    assert 10 == lake.value("SELECT count(*) FROM messages")


def test_one_loose_message_that_is_gone_does_not_stop_the_next_window(lake: LakeProbe) -> None:
    """Nothing says that the earlier export looked at the moments around it."""
    load(lake, [said("m", "x", 5, 10), said("gone", "x", 5, 13)], at(5, 12), (at(5, 10), at(5, 14)))
    load(lake, [said("n", "x", 5, 13)], at(5, 15), (at(5, 12), at(5, 14)), accept_shrink=False)
    assert ["m", "n"] == [row[0] for row in shown(lake)]
    assert [[1, 0]] == lake.rows("SELECT vanished, appeared FROM late_changes")


def test_an_edit_of_a_loose_message_is_a_late_change(lake: LakeProbe) -> None:
    for day, text in ((2, "x"), (3, "y")):
        load(lake, [said("ahead", text, 20, updated_at=at(day))], at(day), (at(1), at(30)), accept_shrink=False)
    assert [[0, 1, 0]] == lake.rows("SELECT age_days, edited, vanished FROM late_changes")


# History


@pytest.mark.parametrize("compacted", [False, True])
def test_history_ends_what_no_view_shows_and_never_before_it_began(lake: LakeProbe, compacted: bool) -> None:
    """Regression: of a loose message that a newer export found gone, history said that it was still true."""
    load(lake, [said("ahead", "x", 20), said("kept", "x", 20)], at(2), (at(1), at(30)), keep_superseded=True)
    load(lake, [said("ahead", "y", 20), said("kept", "x", 20)], at(3), (at(1), at(30)), keep_superseded=True)
    if compacted:
        compact(lake)
    load(lake, [said("kept", "x", 20)], at(25), (at(20), at(21)), keep_superseded=True)
    if compacted:
        compact(lake)
    spans = lake.rows("SELECT id, text, day(valid_from), day(valid_to) FROM messages_history ORDER BY ALL")
    assert [["ahead", "x", 2, 3], ["ahead", "y", 3, 25], ["kept", "x", 2, None]] == spans


# Any lake, against a model


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a load: where its export put it, and which export it was."""

    key: str
    cid: str
    hour: int
    export: int


@dataclass(slots=True)
class Model:
    """What a lake shows: of the rows that no newer claim contains, the newest of each key."""

    rows: list[Row] = field(default_factory=list)
    claims: list[tuple[str, int, int, int]] = field(default_factory=list)

    def candidates(self) -> Iterator[Row]:
        for row in self.rows:
            if not any(
                cid == row.cid and since <= row.hour < until and export > row.export
                for cid, since, until, export in self.claims
            ):
                yield row

    def shown(self) -> dict[str, int]:
        newest: dict[str, int] = defaultdict(int)
        for row in self.candidates():
            newest[row.key] = max(newest[row.key], row.export)
        return dict(newest)

    def compact(self) -> None:
        shown = self.shown()
        self.rows = [row for row in self.candidates() if row.export == shown[row.key]]


# Three messages and their reactions. Message 2 is dated ahead of every export. Each message may be in either channel,
# and each reaction in an export with its message, or without.
BEGIN = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOURS, AHEAD = 24, 60
MESSAGE_HOURS = {"0": 2, "1": 14, "2": AHEAD}
exports = st.fixed_dictionaries(
    {
        "since": st.sampled_from([0, 6, 12]),
        "until": st.sampled_from([13, 24, 72]),
        "messages": st.dictionaries(st.sampled_from("012"), st.sampled_from([CID, CID, CID, OTHER])),
        "reactions": st.dictionaries(st.sampled_from("012"), st.sampled_from([CID, OTHER])),
        "cids": st.sampled_from([(CID,), (CID, OTHER)]),
        "rewrite": st.sampled_from([None, compact, settled]),
    }
)


def moment(hour: int) -> str:
    return (BEGIN + timedelta(hours=hour)).isoformat()


@settings(max_examples=examples(8), deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), made=st.lists(exports, min_size=2, max_size=4))
def test_a_lake_shows_the_newest_row_of_each_key(data: st.DataObject, made: list[dict[str, Any]]) -> None:
    """Loads arrive in any order, and compactions come in between."""
    messages, reactions = Model(), Model()
    order = data.draw(st.permutations(range(len(made))))
    with tempfile.TemporaryDirectory() as folder:
        lake = LakeProbe(f"{folder}/lake")
        for number in order:
            export = made[number]
            lines = [line("channel", channel(cid)) for cid in export["cids"]]
            placed = {}
            for key, cid in export["messages"].items():
                hour = MESSAGE_HOURS[key]
                if cid in export["cids"] and export["since"] <= hour < export["until"]:
                    placed[key] = cid, hour
                    messages.rows.append(Row(key, cid, hour, number))
                    lines.append(line("message", message(key, cid=cid, created_at=moment(hour), text=str(number))))
            for key, cid in export["reactions"].items():
                own_hour = MESSAGE_HOURS[key] + 1 + number
                where = placed.get(key) or (cid, own_hour)
                if export["since"] <= where[1] < export["until"]:
                    reactions.rows.append(Row(key, *where, number))
                    lone = reaction(
                        key, cid=cid, created_at=moment(own_hour), updated_at=moment(own_hour), score=number
                    )
                    lines.append(line("reaction", lone))
            exported = HOURS + number
            for model in (messages, reactions):
                named = {*export["cids"], *(cid for cid, _ in placed.values())}
                until = min(export["until"], exported)
                model.claims += [(cid, export["since"], until, number) for cid in named]
            load(lake, lines, moment(exported), (moment(export["since"]), moment(export["until"])))
            if (rewrite := export["rewrite"]) is not None:
                rewrite(lake)
                messages.compact()
                reactions.compact()
            assert_shows(lake, messages, "SELECT id, text::INT FROM messages")
            assert_shows(lake, reactions, "SELECT message_id, score FROM reactions")
        compact(lake)
        assert messages.shown() == dict(lake.rows("SELECT id, text::INT FROM messages"))
        assert reactions.shown() == dict(lake.rows("SELECT message_id, score FROM reactions"))
        assert len(messages.shown()) == lake.value("SELECT count(*) FROM messages")
        lake.assert_glob_equals_view()
        assert compact(lake) is None
        assert [] == [each for each in Lake(lake.uri).verify().findings if each.kind != "gap"]


def assert_shows(lake: LakeProbe, model: Model, query: str) -> None:
    """Check that the newest row of each key is shown, and an older one only of a message that moved."""
    rows = lake.rows(query)
    expected = model.shown()
    assert {(key, export) for key, export in expected.items()} <= {(key, export) for key, export in rows}
    for key, export in rows:
        if export != expected[key]:
            assert 1 < len({row.cid for row in model.rows if row.key == key})

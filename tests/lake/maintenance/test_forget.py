"""Removing a person from every file of a lake, for good."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from export_objects import channel, encoded, line, member, message, reaction, read, user, write_lines
from forgetting import NOW, WINDOW, everything, load
from lakes import LakeProbe, write_export

from airflow_provider_chatexport.core.entities import ExportKind
from airflow_provider_chatexport.core.options import LoadOptions
from airflow_provider_chatexport.core.window import Window
from airflow_provider_chatexport.errors import CallError, LakeError
from airflow_provider_chatexport.lake import Lake
from airflow_provider_chatexport.lake.load.job import load_files
from airflow_provider_chatexport.lake.maintenance.compact import compact
from airflow_provider_chatexport.lake.maintenance.forget import forget_user
from airflow_provider_chatexport.lake.maintenance.verify import verify
from airflow_provider_chatexport.lake.privacy import suppression_list
from airflow_provider_chatexport.lake.privacy.pseudonyms import pseudonym
from airflow_provider_chatexport.lake.schema.tables import TABLES
from airflow_provider_chatexport.lake.schema.types import Column, Kind, PersonalData
from airflow_provider_chatexport.lake.storage.address import open_store

ANN = {"id": "ann-17", "name": "Ann Überall", "image": "https://img/ann.png"}
BOB = {"id": "bob", "name": "Bob"}
AT = "2026-01-01T10:00:00Z"
# What the service may say about people inside the values of a message, by field. One vote has Ann as an object only.
INSIDE_MESSAGES = {
    "reaction_groups": {"love": {"count": 1, "latest_reactions_by": [{"user_id": "ann-17", "user": ANN}]}},
    "poll": {
        "id": "p",
        "created_by_id": "ann-17",
        "created_by": ANN,
        "own_votes": [{"id": "v1", "user_id": "ann-17"}],
        "latest_answers": [{"id": "v2", "user": ANN, "answer_text": "secretly"}],
        "latest_votes_by_option": {"o": [{"id": "v3", "user_id": "ann-17", "user": ANN}]},
    },
    "moderation": {"action": "flag", "original_text": "secret of @ann-17"},
    "member": {"user_id": "ann-17", "user": ANN, "channel_role": "member"},
    "mentioned_groups": [{"id": "g", "members": [{"user_id": "ann-17", "user": ANN}]}],
    "mentioned_channel_members": {"ann-17": {"nick": "annie"}},
    "shared_location": {"user_id": "ann-17", "latitude": 1.5},
    "reminder": {"user_id": "bob", "user": BOB, "message": {"id": "m", "user": ANN, "text": "secretly"}},
    "draft": {"message": {"text": "to @ann-17", "mentioned_users": [ANN]}, "parent_message": {"user": "ann-17"}},
    "i18n": {"language": "de", "de_text": "an @ann-17"},
    "image_labels": {"https://img/1.png": ["ann-17"]},
    "attachments": [{"title": "at sea", "shot_by": ANN}],
    "latest_reactions": [reaction("inside", "ann-17", user=ANN)],
    "quoted_message": {"id": "by-ann", "user": ANN, "text": "secretly"},
    "custom": {"asked": {"by": ["ann-17"], "of": ANN}},
    "note": [{"user": ANN, "text": "secretly"}],
}
WRITTEN_INSIDE = ("i18n", "image_labels")  # kept where only ids are hashed, with whatever names are in them


def export(path: Path, text: str = "I am Ann", poll: str = "p1") -> Path:
    """Write an export with Ann in every place that a person can be in."""
    by_bob = {
        "user": BOB,
        "text": f"@ann-17 hello Ann Überall, {text}; annals of ann-170",
        "mentioned_users": [ANN, BOB],
        "thread_participants": [ANN],
        "pinned_by": ANN,
        "restricted_visibility": ["ann-17", "bob"],
        "mentioned_channel_members": {"ann-17": {"nick": "annie"}, "bob": {"nick": "bobby"}},
        "poll": {"id": poll, "name": "Lunch?", "latest_votes": [{"user_id": "ann-17", "user": ANN, "n": 1.10}]},
        "note": {"who": "ann-17", "name": "Ann \u00dcberall", "digits": 12345678901234567890},
        "latest_reactions": [reaction("by-bob", "ann-17", user=ANN)],
        "attachments": [{"type": "image", "title": "Ann Überall at sea"}],
    }
    lines = [
        line("channel", channel("a:1", created_by=ANN)),
        line("member", member("ann-17", user=ANN, cid="a:1")),
        line("read", read("ann-17", user=ANN, cid="a:1")),
        line("user", user("ann-17", name=ANN["name"])),
        line("message", message("by-ann", cid="a:1", user=ANN, text="secretly", attachments=[{"title": "mine"}])),
        line("message", message("by-bob", cid="a:1", **by_bob)),
        line("message", message("quiet", cid="a:1", user=BOB, text="nothing here")),
        line("reaction", reaction("by-ann", "bob", user=BOB, cid="a:1")),
        line("reaction", reaction("by-bob", "ann-17", "haha", user=ANN, cid="a:1")),
        line("poll", {"id": poll, "created_by": ANN, "question": "Who?"}),
        b'{"type":"message","data":{"user":{"id":"ann-17"},"text":"cut off',
        b'{"type":"message","data":{"user":{"id":"ann-17"},"text":"\xff\xfe"}}',
    ]
    return write_lines(path, lines)


@pytest.fixture
def lake(tmp_path: Path) -> LakeProbe:
    """Two exports of the day. The second supersedes the first, which is kept for history."""
    lake = LakeProbe(str(tmp_path / "lake"))
    load(lake, export(tmp_path / "one", "I am Ann, first"), 1, keep_superseded=True)
    load(lake, export(tmp_path / "two"), 2, keep_superseded=True)
    return lake


def test_no_file_holds_the_person_afterwards(lake: LakeProbe) -> None:
    """Live files, history, rejects and superseded files have neither their id nor their name."""
    assert "ann-17" in everything(lake)
    report = forget_user(open_store(lake.uri), "ann-17", now=NOW)
    left = everything(lake)
    for word in ("ann-17 ", '"ann-17"', "@ann-17", "Ann Überall", "Ann \\u00dcberall", "ann.png", "secretly", "annie"):
        assert word not in left, word
    assert report.removed["messages"] >= 1
    assert "ann-17" not in str(report.to_json())
    lake.assert_tidy()
    findings = verify(open_store(lake.uri), now=NOW).findings
    assert [] == [each for each in findings if each.is_fault]


def test_leftovers_of_a_killed_load_go_as_well(lake: LakeProbe) -> None:
    """A work folder holds the raw export. Today's may belong to a load under way."""
    for name, modified_at in (("old", NOW - timedelta(days=2)), ("new", NOW)):
        folder = Path(lake.uri) / "_staging" / name
        export_file = export(folder.parent.parent / f"{name}-export")
        folder.mkdir(parents=True)
        export_file.rename(folder / "export-0")
        for path in (folder / "export-0", folder):
            os.utime(path, (modified_at.timestamp(), modified_at.timestamp()))
    report = forget_user(open_store(lake.uri), "ann-17", now=NOW)
    assert (["new"], 1) == ([path.name for path in (Path(lake.uri) / "_staging").iterdir()], report.leftovers)


def test_what_others_wrote_stays(lake: LakeProbe) -> None:
    """Only what names the person goes: other words, numbers and rows are as they were."""
    forget_user(open_store(lake.uri), "ann-17", now=NOW)
    assert [["by-bob"], ["quiet"]] == lake.rows("SELECT id FROM messages ORDER BY id")
    (row,) = lake.rows(
        "SELECT text, mentioned_user_ids, thread_participant_ids, pinned_by_id, restricted_visibility, poll, custom "
        "FROM messages WHERE id = 'by-bob'"
    )
    text, mentioned, participants, pinned_by, visible_to, poll, custom = row
    assert text == "@[forgotten] hello [forgotten], I am Ann; annals of ann-170"
    assert (["bob"], [], None, ["bob"]) == (mentioned, participants, pinned_by, visible_to)
    assert poll == '{"id":"p1","name":"Lunch?","latest_votes":[{"id":"[forgotten]"}]}'
    assert custom == '{"note":{"who":"[forgotten]","name":"[forgotten]","digits":12345678901234567890}}'
    assert [["[forgotten] at sea"]] == lake.rows("SELECT title FROM attachments")
    assert 0 == lake.value("SELECT count(*) FROM reactions")
    assert [["bob"]] == lake.rows("SELECT id FROM users")
    assert [[None]] == lake.rows("SELECT created_by_id FROM channels")


@pytest.mark.parametrize("kind", list(ExportKind))
def test_no_value_names_the_person_afterwards(kind: ExportKind, tmp_path: Path) -> None:
    """Neither what the lake holds at the removal, nor what is loaded later, nor a load with pseudonyms names them."""
    lake, hashed = LakeProbe(str(tmp_path / "lake")), LakeProbe(str(tmp_path / "hashed"))
    lines = {
        name: line("message", message(name, cid="a:1", user=BOB, mentioned_users=[ANN], **{name: value}))
        for name, value in INSIDE_MESSAGES.items()
    }
    whole = write_lines(tmp_path / "whole", [line("user", user("bob")), *lines.values()])
    for name in WRITTEN_INSIDE:
        del lines[name]
    without_texts = write_lines(tmp_path / "without_texts", [line("user", user("bob")), *lines.values()])

    def left_in(lake: LakeProbe) -> list[str]:
        found = everything(lake)
        return [word for word in ("ann-17", "Überall", "ann.png", "secretly", "annie") if word in found]

    for hour, (into, path, options) in enumerate(
        [
            (lake, whole, LoadOptions(keep_superseded=True)),
            (lake, whole, LoadOptions(keep_superseded=True)),
            (hashed, without_texts, LoadOptions(hash_users=True, pseudonym_key="secret")),
        ]
    ):
        exported_at = datetime(2026, 1, 3, hour, tzinfo=UTC)
        load_files([path], lake_uri=into.uri, kind=kind, exported_at=exported_at, options=options)
    assert [] == left_in(hashed)
    forget_user(open_store(lake.uri), "ann-17", now=NOW)
    assert [] == left_in(lake)
    load_files([whole], lake_uri=lake.uri, kind=kind, exported_at=datetime(2026, 1, 4, tzinfo=UTC))
    assert [] == left_in(lake)


def test_messages_can_stay_without_author_and_text(lake: LakeProbe) -> None:
    """Threads and counts hold, and do not say who the person is."""
    forget_user(open_store(lake.uri), "ann-17", now=NOW, keep_messages=True)
    assert [["by-ann", None, None, "{}"], ["by-bob", "bob"], ["quiet", "bob"]] == [
        row[: 4 if row[0] == "by-ann" else 2]
        for row in lake.rows("SELECT id, user_id, text, custom FROM messages ORDER BY id")
    ]
    assert [["by-ann", "bob"]] == lake.rows("SELECT message_id, user_id FROM reactions")
    assert "secretly" not in everything(lake)


def test_history_of_others_is_kept(lake: LakeProbe) -> None:
    """What keep_superseded kept still has the versions of other people's messages."""
    query = "SELECT count(*) FROM messages_history WHERE id = 'by-bob'"
    assert 2 == lake.value(query)
    forget_user(open_store(lake.uri), "ann-17", now=NOW)
    assert 2 == lake.value(query)


def test_they_stay_out_when_an_old_window_is_loaded_again(lake: LakeProbe, tmp_path: Path) -> None:
    """A backfill must not bring them back. The load counts the rows that it left out, and its counts add up."""
    forget_user(open_store(lake.uri), "ann-17", now=NOW)
    report = load(lake, export(tmp_path / "three", "again"), 3)
    assert report.record.counts["forgotten"]["messages"] == 1
    assert "Ann Überall" not in everything(lake)
    assert '"ann-17"' not in everything(lake)
    assert [["by-bob"], ["quiet"]] == lake.rows("SELECT id FROM messages ORDER BY id")
    assert verify(open_store(lake.uri), now=NOW).ok


@pytest.mark.parametrize(
    "fields",
    [
        {"reaction_groups": {"love": {"count": 1, "latest_reactions_by": [{"user_id": "ann-17"}]}}},
        {"poll": {"own_votes": [{"user_id": "ann-17"}]}},
        {"custom": {"assigned to": "ann-17"}},
    ],
)
def test_they_stay_out_if_only_a_value_of_others_names_them(
    fields: dict[str, Any], lake: LakeProbe, tmp_path: Path
) -> None:
    forget_user(open_store(lake.uri), "ann-17", now=NOW)
    load(lake, write_lines(tmp_path / "later", [line("message", message("m9", user=BOB, **fields))]), 5)
    rows = {row for row in everything(lake).splitlines() if '"id":"m9"' in row}
    assert {(True, False)} == {("bob" in row, "ann-17" in row) for row in rows}


def test_forgetting_again_finds_nothing(lake: LakeProbe) -> None:
    """After a crash a person runs it again. If it was done, nothing is rewritten."""
    store = open_store(lake.uri)
    forget_user(store, "ann-17", now=NOW)
    again = forget_user(store, "ann-17", now=NOW)
    assert ([], 0) == (again.files, sum(again.removed.values()))


def test_the_truth_rule_holds_after_a_removal(lake: LakeProbe, tmp_path: Path) -> None:
    """Rows that newer exports hide must not come back because their files were rewritten together."""
    later = write_lines(
        tmp_path / "later",
        [line("channel", channel("a:1")), line("message", message("quiet", cid="a:1", user=BOB, text="edited"))],
    )
    load_files(
        [later],
        lake_uri=lake.uri,
        window=Window.parse("2026-01-01T10:00:00Z", "2026-01-01T10:30:00Z"),
        exported_at=datetime(2026, 1, 4, tzinfo=UTC),
        options=LoadOptions(accept_shrink=True),
    )
    assert [["quiet", "edited"]] == lake.rows("SELECT id, text FROM messages")
    forget_user(open_store(lake.uri), "ann-17", now=NOW)
    assert [["quiet", "edited"]] == lake.rows("SELECT id, text FROM messages")
    compact(open_store(lake.uri))
    assert [["quiet", "edited"]] == lake.rows("SELECT id, text FROM messages")
    lake.assert_glob_equals_view()


def test_the_list_says_nothing_but_a_hash(lake: LakeProbe) -> None:
    """A reader of the lake's folder learns that a person is on the list, and not who."""
    store = open_store(lake.uri)
    forget_user(store, "ann-17", now=NOW)
    listed = suppression_list.read(store)
    assert {"ann-17"} == listed.among(["bob", "ann-17"]).keys()
    assert "ann" not in "".join(path.read_text() for path in Path(lake.uri, "_forgotten").glob("*.json"))


def test_an_empty_id_is_refused(lake: LakeProbe) -> None:
    """It would match nothing, and the removal would seem to have worked."""
    with pytest.raises(CallError, match="there is no user id to forget"):
        forget_user(open_store(lake.uri), " ", now=NOW)


def test_pseudonyms_leave_no_raw_personal_data(tmp_path: Path) -> None:
    """With both options, no id, name, picture or text is stored, and joins still work."""
    lake = LakeProbe(str(tmp_path / "lake"))
    load(lake, export(tmp_path / "one"), 1, hash_users=True, pseudonym_key="secret", drop_text=True)
    left = everything(lake)
    for word in ("ann-17", "Überall", "\\u00dc", '"bob"', "Bob", "I am Ann", "nothing here", "Lunch", "at sea", "Who?"):
        assert word not in left, word
    ann, bob = pseudonym("ann-17", "secret"), pseudonym("bob", "secret")
    assert [["by-ann", ann], ["by-bob", bob], ["quiet", bob]] == lake.rows(
        "SELECT m.id, u.id FROM messages m JOIN users u ON u.id = m.user_id ORDER BY m.id"
    )
    assert [[[ann, bob]]] == lake.rows("SELECT mentioned_user_ids FROM messages WHERE id = 'by-bob'")
    assert 2 == lake.value("SELECT count(*) FROM rejects WHERE raw = '' AND raw_size_bytes > 0")
    assert verify(open_store(lake.uri), now=NOW).ok


def test_an_empty_list_of_people_stays_empty_under_pseudonyms(tmp_path: Path) -> None:
    """Null means that the export does not say. Readers that count mentions would lose the message."""
    lake = LakeProbe(str(tmp_path / "lake"))
    lists = {"mentioned_users": [], "restricted_visibility": ["u2", "u1", "u2"]}
    path = write_lines(tmp_path / "one", [line("message", message("m", **lists))])
    load(lake, path, hash_users=True, pseudonym_key="secret")
    first, second = pseudonym("u1", "secret"), pseudonym("u2", "secret")
    assert [[[], [second, first, second], None]] == lake.rows(
        "SELECT mentioned_user_ids, restricted_visibility, thread_participant_ids FROM messages"
    )


@pytest.mark.parametrize("named", ["ann-17", pseudonym("ann-17", "secret")], ids=["the id", "the pseudonym"])
def test_a_forgotten_person_stays_out_under_a_pseudonym_too(named: str, tmp_path: Path) -> None:
    """Whether the removal named the id or the pseudonym."""
    lake = LakeProbe(str(tmp_path / "lake"))
    load(lake, export(tmp_path / "one"), 1, hash_users=True, pseudonym_key="secret")
    forget_user(open_store(lake.uri), named, now=NOW, pseudonym_key="secret" if named == "ann-17" else None)
    hashed = pseudonym("ann-17", "secret")
    assert hashed not in everything(lake)
    load(lake, export(tmp_path / "two", "still Ann"), 2, hash_users=True, pseudonym_key="secret")
    assert hashed not in everything(lake)
    assert {"by-bob", "quiet"} == set(lake.texts())


@pytest.mark.parametrize(
    ("name", "text"),
    [("ΓΙΏΡΓΟΣ", "Γεια ΓΙΏΡΓΟΣ, γιώργος"), ("田中", "田中さんは"), ("Ann", "ann ANN")],
    ids=["final sigma", "kanji", "case"],
)
def test_names_are_found_in_any_script(name: str, text: str, tmp_path: Path) -> None:
    lake = LakeProbe(str(tmp_path / "lake"))
    by_bob = line("message", message("m", user=BOB, text=text, mentioned_users=[{"id": "u7", "name": name}]))
    load(lake, write_lines(tmp_path / "one", [by_bob]))
    forget_user(open_store(lake.uri), "u7", now=NOW, names=True)
    assert name.lower()[:2] not in lake.value("SELECT text FROM messages").lower()


def test_pseudonyms_need_a_key() -> None:
    """Without one, anyone could compute them from ids."""
    with pytest.raises(CallError, match="hash_users needs a secret"):
        LoadOptions(hash_users=True)
    assert "secret" not in repr(LoadOptions(hash_users=True, pseudonym_key="secret"))


@pytest.mark.parametrize("kind", [Kind.TEXT, Kind.TEXTS, Kind.JSON])
def test_a_new_column_of_text_has_to_say_what_it_may_contain_about_a_person(kind: Kind) -> None:
    """A column that does not say it would stay in the lake after every removal."""
    with pytest.raises(ValueError, match="does not say what it may contain about a person"):
        Column(name="nickname", kind=kind, doc="What friends call them.")


def test_every_column_of_ids_has_its_kind() -> None:
    """Regression: a list of message ids had no kind, and kept the ids of its authors."""
    wrong = {
        (table.name, column.name): column.personal
        for table in TABLES
        for column in table
        if (re.search(r"message_ids?$|^deleted_messages$|^parent_id$", column.name) or column.name.endswith("user_ids"))
        and column.personal
        not in {
            Kind.TEXT: (PersonalData.MESSAGE_ID,),
            Kind.TEXTS: (PersonalData.MESSAGE_IDS, PersonalData.USER_IDS),
        }.get(column.kind, ())
    }
    assert {} == wrong


def test_json_columns_without_personal_data_are_few_and_named() -> None:
    """The service puts whole users into more and more of its objects."""
    without = {
        column.name
        for table in TABLES
        for column in table
        if column.kind is Kind.JSON and column.personal is PersonalData.NOTHING
    }
    assert {"reaction_counts", "reaction_scores", "config", "teams_role"} == without


def test_a_person_who_is_removed_during_a_load_stays_out(lake: LakeProbe, tmp_path: Path) -> None:
    """The load reads the list again before its commit and after it, and obeys a list that has grown."""
    path = export(tmp_path / "three")
    removed = []

    def meanwhile(stage: str, done: int, whole: int | None) -> None:
        if stage == "write" and not removed:
            removed.append(forget_user(open_store(lake.uri), "ann-17", now=NOW + timedelta(hours=1)))

    load_files(
        [path], lake_uri=lake.uri, window=WINDOW, exported_at=datetime(2026, 1, 5, tzinfo=UTC), progress=meanwhile
    )
    assert removed
    assert "Ann Überall" not in everything(lake)
    assert '"ann-17"' not in everything(lake)


def test_a_load_that_runs_again_obeys_the_list(lake: LakeProbe, tmp_path: Path) -> None:
    """The removal or the load died right after the person was on the list, or after the commit."""
    path = export(tmp_path / "three")
    load(lake, path, 5)
    suppression_list.add(open_store(lake.uri), "ann-17", keep_messages=False, now=NOW)
    assert '"ann-17"' in everything(lake)
    assert load(lake, path, 5).already_loaded
    assert '"ann-17"' not in everything(lake)
    assert {"by-bob", "quiet"} == set(lake.texts())
    n_records = len(lake.records())
    load(lake, path, 5)
    assert n_records == len(lake.records())


@pytest.mark.parametrize("is_listed_first", [True, False])
def test_many_people_leave_at_once(is_listed_first: bool, tmp_path: Path) -> None:
    """Regression: each person took a quarter of a second of every load, so a list of a thousand stopped a backfill.

    The messages of some people stay. People who are not on the list keep everything, although their ids start alike.
    """
    lake, ids = LakeProbe(str(tmp_path / "lake")), [f"person-{number}" for number in range(130)]
    going, keeping, staying = ids[:120:2], ids[1:120:2], ids[120:]
    people = {each: {"id": each, "name": f"Näme Of {each}"} for each in ids}
    lines = [line("channel", channel("a:1"))]
    for number, (each, following) in enumerate(zip(ids, [*ids[1:], ids[0]], strict=True)):
        wrote = {"user": people[each], "mentioned_users": [people[following]], "note": [people[following]]}
        text = f"says {each} to NÄME OF {following}"
        lines.append(line("message", message(f"m{number:03}", cid="a:1", text=text, **wrote)))
        lines.append(line("reaction", reaction(f"m{number:03}", following, user=people[following], cid="a:1")))
    path = write_lines(tmp_path / "export", lines)
    load(lake, write_lines(tmp_path / "first", lines[:1]), 1)

    def put_on_list() -> None:
        for some, keep in ((going, False), (keeping, True)):
            for each in some:
                suppression_list.add(open_store(lake.uri), each, keep_messages=keep, now=NOW)

    if is_listed_first:
        put_on_list()
        load(lake, path, 2)
    else:
        load(lake, path, 2)
        put_on_list()
        assert load(lake, path, 2).already_loaded
    words = {word.lower() for word in re.findall(r"(?i)(?:näme of )?person-\d+", everything(lake))}
    assert {*staying, *(f"näme of {each}" for each in staying)} == words
    assert [[len(keeping), len(staying)]] == lake.rows(
        "SELECT count(*) FILTER (user_id IS NULL AND text IS NULL), count(user_id) FROM messages"
    )
    # The author's follower reacted. The reaction goes with either of the two.
    assert [[f"m{n:03}", ids[n + 1]] for n in range(119, 129)] == lake.rows(
        "SELECT message_id, user_id FROM reactions ORDER BY ALL"
    )
    assert verify(open_store(lake.uri), now=NOW).ok


def test_a_list_without_its_salt_is_refused(lake: LakeProbe) -> None:
    """With a new salt, people on the list would come back with the next load, unnoticed."""
    forget_user(open_store(lake.uri), "ann-17", now=NOW)
    (Path(lake.uri) / "_forgotten" / "salt").unlink()
    with pytest.raises(LakeError, match=r"/_forgotten/salt is gone, .*; restore it"):
        forget_user(open_store(lake.uri), "bob", now=NOW)


def test_a_users_own_export_goes_too(lake: LakeProbe, tmp_path: Path) -> None:
    """All of the export that a person requested is about that person."""
    own = tmp_path / "own.json"
    own.write_bytes(encoded({"user": ANN, "messages": [message("by-ann", user=ANN)], "reactions": []}))
    load_files([own], lake_uri=lake.uri, exported_at=datetime(2026, 1, 6, tzinfo=UTC))
    assert 1 == lake.value("SELECT count(*) FROM user_export_users")
    forget_user(open_store(lake.uri), "ann-17", now=NOW)
    assert 0 == lake.value("SELECT count(*) FROM user_export_users")
    assert "Ann Überall" not in everything(lake)


def test_a_person_leaves_a_store_that_writes_addresses_in_its_own_way(tmp_path: Path) -> None:
    """A file is found again by what DuckDB calls it. fsspec's file system in memory adds a slash to each address."""
    with Lake(f"memory://{tmp_path.name}/lake") as lake:
        path = write_export(tmp_path / "from", {"m": (10, "hello @ann-17"), "n": (11, "hello")}, user={"id": "ann-17"})
        lake.load(path, since="2026-01-01", until="2026-01-02", exported_at=NOW)
        assert 2 == lake.forget_user("ann-17").removed["messages"]
        assert [(0,)] == lake.sql("SELECT count(*) FROM messages").fetchall()

"""What a removal of a person leaves alone, what it shows first, and that the person does not come back."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from export_objects import channel, encoded, line, member, message, reaction, user, write_lines
from forgetting import NOW, everything, load
from lakes import LakeProbe

from airflow_provider_chatexport.core.window import Window
from airflow_provider_chatexport.errors import LakeError, UnknownUserError
from airflow_provider_chatexport.lake import Lake
from airflow_provider_chatexport.lake.load.job import load_files
from airflow_provider_chatexport.lake.maintenance.compact import compact
from airflow_provider_chatexport.lake.maintenance.vacuum import vacuum
from airflow_provider_chatexport.lake.maintenance.verify import verify
from airflow_provider_chatexport.lake.schema.tables import TABLES
from airflow_provider_chatexport.lake.storage.address import open_store

ANN = {"id": "ann-17", "name": "Ann Überall"}
BOB = {"id": "bob", "name": "Bob"}
OF_ANN: Final = "ann-17-85f6fa93-1165-437c-01f7-90a02d07cdc9"


@pytest.fixture
def lake(tmp_path: Path) -> LakeProbe:
    return LakeProbe(str(tmp_path / "lake"))


def export(path: Path, *texts: str, by_ann: bool = True, **others: Any) -> Path:
    """Write an export with these texts of Bob's, and with or without Ann."""
    lines = [line("channel", channel("a:1")), line("user", user("bob", name="Bob"))]
    if by_ann:
        lines += [line("user", user(**ANN_AS_USER)), line("message", message(OF_ANN, cid="a:1", user=ANN, text="mine"))]
    for number, text in enumerate(texts):
        lines.append(line("message", message(f"b{number}", cid="a:1", user=BOB, text=text, **others)))
    return write_lines(path, lines)


ANN_AS_USER: Final = {"user_id": "ann-17", "name": "Ann Überall"}


def contents(lake: LakeProbe) -> dict[str, list[list[Any]]]:
    """Return all rows of all views over tables, and of the history."""
    names = [*(table.name for table in TABLES), "messages_history"]
    return {name: lake.rows(f"SELECT * FROM {name} ORDER BY ALL") for name in names}


def bytes_of(lake: LakeProbe) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path(lake.uri).rglob("*") if path.is_file()}


def test_an_id_that_the_lake_does_not_know_is_refused_and_nothing_is_touched(lake: LakeProbe, tmp_path: Path) -> None:
    """Regression: a typo read as a success, and `forget-user a` blanked the letter in every text."""
    load(lake, export(tmp_path / "one", "a plan, and @bob"))
    before = bytes_of(lake)
    for user_id, says in (("a", "does not know"), ("ann-71", "does not know"), ("ANN-17", "differs only in upper and")):
        with pytest.raises(UnknownUserError, match=says) as refused:
            Lake(lake.uri).forget_user(user_id)
        assert "ann" not in str(refused.value).replace(lake.uri, "").lower()
    assert before == bytes_of(lake)


def test_an_unknown_id_is_listed_for_later_loads_if_that_is_asked_for(lake: LakeProbe, tmp_path: Path) -> None:
    load(lake, export(tmp_path / "one", "hi @eve-99", by_ann=False))
    before = contents(lake)
    report = Lake(lake.uri).forget_user("eve-99", even_if_unknown=True)
    assert (False, []) == (report.is_known, report.files)
    load_files([export(tmp_path / "other", by_ann=False)], lake_uri=lake.uri, exported_at=NOW, window=LATER)
    compact(open_store(lake.uri))
    assert [["hi @eve-99"]] == lake.rows("SELECT text FROM messages"), "the id was in the lake before it was listed"
    assert before["messages"][0][:3] == contents(lake)["messages"][0][:3]
    load(lake, export(tmp_path / "two", "hi @eve-99", by_ann=False), 2)
    assert [["hi @[forgotten]"]] == lake.rows("SELECT text FROM messages")
    Lake(lake.uri).forget_user("eve-99")  # the lake knows it from the list


LATER: Final = Window.parse("2026-01-20", "2026-01-21")


def test_a_dry_run_counts_what_the_removal_changes_and_changes_nothing(lake: LakeProbe, tmp_path: Path) -> None:
    load(lake, export(tmp_path / "one", "hi @ann-17", "nothing", note={"of": "ann-17"}))
    before, opened = bytes_of(lake), Lake(lake.uri)
    planned = opened.forget_user("ann-17", dry_run=True)
    assert before == bytes_of(lake)
    assert {"messages": {None, "text", "custom"}, "users": {None}} == {
        table: {place["column"] for place in planned.places if place["table"] == table}
        for table in ("messages", "users")
    }
    assert "hi @" not in str(planned.to_json())
    done = opened.forget_user("ann-17")
    assert (planned.removed, planned.blanked, planned.files) == (done.removed, done.blanked, done.files)
    assert {"messages": 1, "users": 1} == +done.removed
    assert planned.texts == done.texts


def test_ordinary_words_of_others_stay(lake: LakeProbe, tmp_path: Path) -> None:
    """The person's id is a word, and their name has one word."""
    may = {"id": "may", "name": "Will"}
    texts = ("May I? I will. @may: see me@may.org", "Will may")
    lines = [line("channel", channel("a:1")), line("message", message("m", cid="a:1", user=may, text="mine"))]
    custom = {"month": "may", "asked_by": "may", "vote": {"user_id": "may"}}
    for number, text in enumerate(texts):
        lines.append(line("message", message(f"b{number}", cid="a:1", user=BOB, text=text, custom=custom)))
    load(lake, write_lines(tmp_path / "one", lines))
    report = Lake(lake.uri).forget_user("may")
    assert 1 == report.texts["names_of_one_word_that_stay"]
    assert [["May I? I will. @[forgotten]: see me@may.org"], ["Will may"]] == lake.rows("SELECT text FROM messages")
    assert [['{"month":"may","asked_by":"[forgotten]","vote":{"id":"[forgotten]"}}']] == lake.rows(
        "SELECT DISTINCT custom FROM messages"
    )
    Lake(lake.uri).forget_user("may", names=True)  # the list remembers the name
    assert [["[forgotten] I? I [forgotten]. @[forgotten]: see me@[forgotten].org"], ["[forgotten] [forgotten]"]] == (
        lake.rows("SELECT text FROM messages")
    )


def test_texts_of_others_lose_the_person_when_their_window_is_exported_again(lake: LakeProbe, tmp_path: Path) -> None:
    """The later export does not contain the person, so the list is all that the load knows of them."""
    texts = ("hi ANN-17, or Ann  u\u0308berall", "annals of ann-170, Ann Ueberall", f"see {OF_ANN}.", "(ann-17)")
    custom = {"quote": 'she said "ann-17", "no"', "k": "Ann Überall!"}
    load(lake, export(tmp_path / "one", *texts, custom=custom))
    Lake(lake.uri).forget_user("ann-17")
    once = lake.texts()
    assert once["b0"] == "hi [forgotten], or [forgotten]"
    load(lake, export(tmp_path / "two", *texts, by_ann=False, custom=custom), 2)
    assert once == lake.texts()
    assert [['{"quote":"she said \\"[forgotten]\\", \\"no\\"","k":"[forgotten]!"}']] == lake.rows(
        "SELECT DISTINCT custom FROM messages"
    )
    load(lake, export(tmp_path / "three", "Ann Überall", "annals", by_ann=False), 3)
    assert {"b0": "[forgotten]", "b1": "annals"} == lake.texts(), "the name without the id"


def test_an_id_after_an_escaped_quote_is_found_by_a_later_load(lake: LakeProbe, tmp_path: Path) -> None:
    """Regression: strings were looked for in JSON without regard to escapes."""
    load(lake, export(tmp_path / "one", "x"))
    Lake(lake.uri).forget_user("ann-17")
    later = export(tmp_path / "two", "y", by_ann=False, custom={"said": 'a "b', "by": "ann-17"})
    load(lake, later, 2)
    assert '"ann-17"' not in everything(lake)


def test_their_message_in_the_export_of_another_user_goes_as_in_messages(lake: LakeProbe, tmp_path: Path) -> None:
    """Regression: the row stayed without author, and kept the text."""
    own = tmp_path / "own.json"
    messages = [message("by-bob", user=BOB), message(OF_ANN, user=ANN, text="secretly")]
    own.write_bytes(encoded({"user": BOB, "messages": messages, "reactions": [reaction("by-bob", "bob", user=BOB)]}))
    load_files([own], lake_uri=lake.uri, exported_at=NOW)
    kept = LakeProbe(str(tmp_path / "kept"))
    shutil.copytree(lake.uri, kept.uri)
    Lake(kept.uri).rebuild_catalog()
    Lake(lake.uri).forget_user("ann-17")
    assert [["by-bob", "bob"]] == lake.rows("SELECT id, user_id FROM user_export_messages")
    assert 1 == lake.value("SELECT count(*) FROM user_export_reactions")
    Lake(kept.uri).forget_user("ann-17", keep_messages=True)
    assert [["[forgotten]" + OF_ANN.removeprefix("ann-17"), None, None]] == kept.rows(
        "SELECT id, user_id, text FROM user_export_messages WHERE id <> 'by-bob'"
    )
    assert "secretly" not in everything(lake) + everything(kept)


def test_a_lost_or_damaged_salt_is_to_be_restored(lake: LakeProbe, tmp_path: Path) -> None:
    """With another salt, people on the list would come back with the next load, unnoticed."""
    load(lake, export(tmp_path / "one", "x"))
    Lake(lake.uri).forget_user("ann-17")
    salt = Path(lake.uri) / "_forgotten" / "salt"
    whole = salt.read_bytes()
    for content, why in ((None, "gone"), (b"", "damaged"), (bytes([whole[0] ^ 1]) + whole[1:], "damaged")):
        if content is None:
            salt.unlink()
        else:
            salt.write_bytes(content)
        with pytest.raises(LakeError, match=rf"/_forgotten/salt is {why}, .*; restore it"):
            load(lake, export(tmp_path / "two", "y"), 9)
        with pytest.raises(LakeError, match=rf"/_forgotten/salt is {why}, .*; restore it"):
            Lake(lake.uri).forget_user("bob")
    # What brings no person into the lake goes on.
    assert Lake(lake.uri).compact().to_json()
    assert ["forgotten"] == [each.kind for each in Lake(lake.uri).verify().findings if each.is_fault]
    salt.write_bytes(whole)
    assert Lake(lake.uri).verify().ok


def test_a_damaged_or_lost_entry_is_named(lake: LakeProbe, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The name of an entry is the hash of the id. It is enough to keep the person's rows out."""
    load(lake, export(tmp_path / "one", "x"))
    Lake(lake.uri).forget_user("ann-17")
    (entry,) = (Path(lake.uri) / "_forgotten").glob("*.json")
    entry.write_bytes(b"{")
    load(lake, export(tmp_path / "two", "y"), 9)
    assert 0 == lake.value("SELECT count(*) FROM messages WHERE user_id = 'ann-17'")
    assert 1 == caplog.text.count(f"{entry} is damaged. Loads leave the person's rows out")
    entry.unlink()
    (finding,) = [each for each in Lake(lake.uri).verify().findings if each.is_fault]
    assert finding.what.startswith(f"{entry} of the suppression list is gone")
    Lake(lake.uri).forget_user("ann-17", even_if_unknown=True)
    assert Lake(lake.uri).verify().ok


def test_the_history_of_others_is_what_it_was(lake: LakeProbe, tmp_path: Path) -> None:
    """Versions and their spans of others, who edit, delete and write again while the person is there."""
    versions = [("b first", "x", "z"), ("b second", "x"), ("b second", "x", "z")]
    for hour, texts in enumerate(versions, 1):
        load(lake, export(tmp_path / f"e{hour}", *texts), hour, keep_superseded=True)
    query = "SELECT * EXCLUDE (_load_id) FROM messages_history WHERE user_id = 'bob' ORDER BY id, valid_from"
    before = lake.rows(query)
    assert 4 <= len(before)
    Lake(lake.uri).forget_user("ann-17")
    assert before == lake.rows(query)
    assert 0 == lake.value("SELECT count(*) FROM messages_history WHERE user_id IS DISTINCT FROM 'bob'")
    compact(open_store(lake.uri))
    assert before == lake.rows(query)


WORDS: Final = ("ann-17", "Ann Überall", "ANN-17", f"see {OF_ANN}", "@ann-17", "ann ÜBERALL", OF_ANN)
OTHERS: Final = ("annals", "ann-170", "Ann", "überall", "x", "@bob", "bob-17", "Überall Ann", '"quoted\\"', "ann_17")


@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_names_the_person_afterwards_and_all_else_is_as_it_was(
    seed: int, lake: LakeProbe, tmp_path: Path
) -> None:
    """Random texts, JSON and lists of others, with the person in some of them."""
    rng = random.Random(seed)

    def words() -> str:
        return " ".join(rng.choice(OTHERS) for _ in range(rng.randint(1, 4)))

    def some(value: Any, other: Any) -> Any:
        return value if rng.random() < 0.4 else other

    lines = [line("channel", channel("a:1")), line("user", user(**ANN_AS_USER)), line("user", user("bob", name="Bob"))]
    named = set()
    for number in range(40):
        parts = [words(), some(rng.choice(WORDS), "y"), words()]
        fields: dict[str, Any] = {
            "text": " ".join(parts),
            "custom": {"n": number, words(): some({"by": ["ann-17", "bob"]}, [words(), 1.50]), "t": words()},
            "mentioned_users": some([ANN, BOB], [BOB]),
            "quoted_message_id": some(OF_ANN, "b0"),
            "poll": some({"id": "p", "votes": [{"user": ANN, "n": 1.10}, {"user": BOB}]}, {"id": "p", "big": 2**60}),
        }
        written = encoded(fields).decode().lower().replace("ann-170", "")
        if any(word in written for word in ("ann-17", "ann überall")):
            named.add(f"b{number}")
        lines.append(line("message", message(f"b{number}", cid="a:1", user=BOB, **fields)))
    lines.append(line("message", message(OF_ANN, cid="a:1", user=ANN, text="mine", attachments=[{"title": "mine"}])))
    lines.append(line("member", member("bob", cid="a:1", deleted_messages=["b0", OF_ANN])))
    load(lake, write_lines(tmp_path / "one", lines), keep_superseded=True)
    query = "SELECT * EXCLUDE (_load_id) FROM messages WHERE user_id = 'bob' AND id NOT IN {} ORDER BY id"
    untouched = query.format(f"({', '.join(map(repr, sorted(named)))})")
    before = lake.rows(untouched)
    assert before
    report = Lake(lake.uri).forget_user("ann-17")
    assert len(named) == report.blanked["messages"]
    assert before == lake.rows(untouched)
    assert 40 == lake.value("SELECT count(*) FROM messages")
    left = everything(lake).lower().replace("ann-170", "")
    for word in ("ann-17", "ann überall", "mine"):
        assert word not in left, word
    assert verify(open_store(lake.uri), now=NOW).ok


def faults(lake: LakeProbe) -> set[str]:
    return {each.kind for each in verify(open_store(lake.uri), now=NOW).findings if each.is_fault}


KILLED: Final = """
import os, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from airflow_provider_chatexport.core.window import Window
from airflow_provider_chatexport.lake.load.job import load_files
from airflow_provider_chatexport.lake import Lake

path, lake = sys.argv[1:]
records = Path(lake) / "_loads"
before = set(records.glob("*.json"))
began = is_inside = False

def between(event, args):
    global began, is_inside
    if is_inside or not event.startswith("os."):
        return
    is_inside = True
    if not began and event in ("os.link", "os.rename") and str(args[1]).startswith(str(records) + "/"):
        began = True
        Lake(lake).forget_user("ann-17")
        before.update(records.glob("*.json"))
    elif began and set(records.glob("*.json")) - before:
        os.kill(os.getpid(), signal.SIGKILL)
    is_inside = False

sys.addaudithook(between)
load_files([Path(path)], lake_uri=lake, window=Window.parse("2026-01-01", "2026-01-02"),
           exported_at=datetime(2026, 1, 3, 5, tzinfo=UTC))
"""


def test_a_load_that_was_killed_while_a_person_was_removed_does_not_keep_them(lake: LakeProbe, tmp_path: Path) -> None:
    """Its record was committed after the removal, and it died before it read the list again."""
    load(lake, export(tmp_path / "one", "x"))
    second = export(tmp_path / "two", "hi Ann Überall", custom={"of": "ann-17"})
    assert -9 == subprocess.run([sys.executable, "-c", KILLED, str(second), lake.uri], check=False).returncode
    assert '"ann-17"' in everything(lake)
    assert "forgotten" in faults(lake)
    saved = tmp_path / "saved"
    shutil.copytree(lake.uri, saved, symlinks=True)
    other = export(tmp_path / "other", by_ann=False)
    for finish in (
        lambda: load_files([other], lake_uri=lake.uri, exported_at=datetime(2026, 1, 22, tzinfo=UTC), window=LATER),
        lambda: compact(open_store(lake.uri)),
        lambda: vacuum(open_store(lake.uri), keep=timedelta(days=1), now=NOW),
    ):
        shutil.rmtree(lake.uri)
        shutil.copytree(saved, lake.uri, symlinks=True)
        finish()
        assert '"ann-17"' not in everything(lake)
        assert "Ann Überall" not in everything(lake)
        assert faults(lake) <= {"gap"}
        n_records = len(lake.records())
        vacuum(open_store(lake.uri), keep=timedelta(days=1), now=NOW)
        assert n_records == len(lake.records()), "it is done once"

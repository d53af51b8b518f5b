"""The world: which messages a window has, how history changes, and that generated worlds need no memory."""

from __future__ import annotations

import gzip
import itertools
import json
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_chatexport.core.times import parse_rfc3339
from airflow_provider_chatexport.errors import CallError, InputError
from airflow_provider_chatexport.sandbox.chat.corpus import SHIPPED
from airflow_provider_chatexport.sandbox.chat.world import Bounds, World

SUPPORT = "messaging:ubuntu-support"
RUST = "messaging:rust"
NOW = datetime(2025, 3, 1, 12, tzinfo=UTC)
GENERATED = World.load(messages=5_000)
FIRST_DAY = datetime(2025, 1, 1, tzinfo=UTC)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Return a world to change: three channels, a thread, ten messages a minute apart."""
    lines = [
        {
            "cid": RUST if number < 6 else SUPPORT if number < 9 else "team:mediawiki",
            "id": f"m{number}",
            "at": f"2025-01-01T00:{number:02d}:00.000000Z",
            "author": f"u{number % 3}",
            "kind": "regular",
            "text": f"text {number}",
            "reply_to": "m0" if number in (2, 3) else None,
        }
        for number in range(10)
    ]
    path = tmp_path / "corpus.ndjson"
    path.write_text("\n".join(map(json.dumps, lines)))
    return World.load(path)


def ids(messages: Any) -> list[str]:
    """Return the ids of messages."""
    return [message["id"] for message in messages]


# Loading.


def test_the_shipped_corpus_has_six_channels_and_a_deleted_one() -> None:
    """Every channel of the shipped data must have messages, or the demo shows little."""
    shipped = World.load()
    assert len(shipped.cids) == 7
    assert [cid for cid in shipped.cids if shipped.channel_is_deleted(cid)] == ["messaging:retired"]
    assert all(next(shipped.messages(cid), None) for cid in shipped.cids)
    assert "deleted_at" in (shipped.channel("messaging:retired") or {})


def test_a_gzipped_corpus_is_the_same_as_a_plain_one(tmp_path: Path) -> None:
    """``--data`` accepts both."""
    line = {"cid": "a:b", "id": "1", "at": "2025-01-01T00:00:00Z", "author": "u", "text": "x", "reply_to": None}
    plain, zipped = tmp_path / "plain", tmp_path / "zipped"
    plain.write_text(json.dumps(line))
    zipped.write_bytes(gzip.compress(plain.read_bytes()))
    assert list(World.load(plain).messages("a:b")) == list(World.load(zipped).messages("a:b")) != []


@pytest.mark.parametrize("content", ["", "not json", '{"cid": "a:b"}', '{"cid": "ab", "id": "1"}', "[1]", "\x1f\x8b"])
def test_a_file_in_another_format_is_refused_in_one_sentence(tmp_path: Path, content: str) -> None:
    """A user who gives ``--data`` the wrong file needs a sentence, not a traceback."""
    path = tmp_path / "corpus"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match="corpus"):
        World.load(path)


def test_a_refused_corpus_line_is_named_by_number_and_not_quoted(tmp_path: Path) -> None:
    """Error messages do not contain people's words."""
    path = tmp_path / "corpus"
    path.write_text('\n\n{"cid": "a:b", "id": 7, "text": "my secret"}\n')
    with pytest.raises(InputError, match="line 3") as refused:
        World.load(path)
    assert "secret" not in str(refused.value)


def test_a_missing_corpus_and_no_messages_are_wrong_calls(tmp_path: Path) -> None:
    """The caller can correct both."""
    with pytest.raises(CallError, match="no corpus file"):
        World.load(tmp_path / "absent")
    with pytest.raises(CallError, match="1 or more"):
        World.load(messages=0)


# Windows.


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        (Bounds.HALF_OPEN, ["m1", "m2", "m3"]),
        (Bounds.INCLUSIVE, ["m1", "m2", "m3", "m4"]),
        (Bounds.EXCLUSIVE, ["m2", "m3"]),
    ],
)
def test_messages_exactly_on_the_edge(world: World, bounds: Bounds, expected: list[str]) -> None:
    """The three readings of "after" and "before" differ in nothing but the messages on the edges."""
    since, until = (FIRST_DAY + timedelta(minutes=minute) for minute in (1, 4))
    assert expected == ids(world.messages(RUST, since=since, until=until, bounds=bounds))
    instant = FIRST_DAY + timedelta(minutes=1)
    on_it = ["m1"] if bounds is Bounds.INCLUSIVE else []
    assert on_it == ids(world.messages(RUST, since=instant, until=instant, bounds=bounds))


def test_a_window_in_another_time_zone_is_the_same_window(world: World) -> None:
    """Clients may send any offset."""
    since = parse_rfc3339("2025-01-01T02:01:00+02:00")
    assert ids(world.messages(RUST))[1:] == ids(world.messages(RUST, since=since))


def test_truncated_messages_come_only_when_asked_for() -> None:
    """The second busiest channel was truncated in its early days."""
    shipped = World.load()
    truncated_at = parse_rfc3339((shipped.channel(SUPPORT) or {})["truncated_at"])
    seen, everything = list(shipped.messages(SUPPORT)), list(shipped.messages(SUPPORT, include_truncated=True))
    hidden = everything[: len(everything) - len(seen)]
    assert hidden
    assert everything == hidden + seen
    assert all(parse_rfc3339(message["created_at"]) < truncated_at for message in hidden)
    assert all(parse_rfc3339(message["created_at"]) >= truncated_at for message in seen)
    assert shipped.message(hidden[0]["id"]) == hidden[0]


def test_an_unknown_channel_is_a_key_error_at_once(world: World) -> None:
    """The error comes from the call, and not first from the iteration."""
    with pytest.raises(KeyError):
        world.messages("messaging:absent")
    assert world.channel("messaging:absent") is None


@given(
    cuts=st.lists(st.integers(0, 3 * 86_400_000_000), max_size=6),
    cid=st.sampled_from(GENERATED.cids),
)
@settings(max_examples=25, deadline=None)
def test_windows_of_a_generated_world_tile(cuts: list[int], cid: str) -> None:
    """Arithmetic finds windows: wherever they are cut, each message must be in exactly one."""
    edges = [None, *(FIRST_DAY + timedelta(microseconds=cut) for cut in sorted(cuts)), None]
    windows = itertools.pairwise(edges)
    tiled = [m for since, until in windows for m in ids(GENERATED.messages(cid, since=since, until=until))]
    assert ids(GENERATED.messages(cid)) == tiled


def test_edges_in_a_generated_world_are_exact() -> None:
    """A generated message whose time is the edge itself follows the bounds."""
    message = list(GENERATED.messages(RUST))[10]
    moment = parse_rfc3339(message["created_at"])
    assert message["id"] == ids(GENERATED.messages(RUST, since=moment))[0]
    assert message["id"] not in ids(GENERATED.messages(RUST, until=moment))
    assert message["id"] not in ids(GENERATED.messages(RUST, since=moment, bounds=Bounds.EXCLUSIVE))
    assert message["id"] == ids(GENERATED.messages(RUST, until=moment, bounds=Bounds.INCLUSIVE))[-1]


# Generated worlds.


@pytest.mark.parametrize("n_messages", [1, 3, 17, 1_000])
def test_a_generated_world_has_exactly_n_messages(n_messages: int) -> None:
    """Each once, in order, spread over three days; the deleted channel comes on top."""
    generated = World.load(messages=n_messages)
    live = [cid for cid in generated.cids if not generated.channel_is_deleted(cid)]
    channels = [list(generated.messages(cid, include_truncated=True)) for cid in live]
    assert n_messages == len({message["id"] for messages in channels for message in messages})
    for messages in channels:
        moments = [parse_rfc3339(message["created_at"]) for message in messages]
        assert moments == sorted(moments)
        assert all(FIRST_DAY <= moment < FIRST_DAY + timedelta(days=3) for moment in moments)


def test_a_world_of_few_messages_has_channels_without_any() -> None:
    """Regression: an export of a sandbox with a few hundred messages failed at the first channel without a message."""
    world = World.load(messages=20)
    silent = [cid for cid in world.cids if not list(world.messages(cid))]
    assert silent
    assert {0} == {read["unread_messages"] for cid in silent for read in world.reads(cid)}


def test_a_generated_message_is_found_by_its_id() -> None:
    """Ids contain their number; no message has any other id."""
    for message in GENERATED.messages("livestream:ubuntu"):
        assert message == GENERATED.message(message["id"])
    for unknown in ("", "m1", "00000000-0000-0000-0000-000000000001", "9e3779b9-7f4a-7c15-0000-000000000000"):
        assert GENERATED.message(unknown) is None


@pytest.mark.parametrize("n_messages", [None, 1_000])
def test_what_a_user_did_equals_a_search_for_it(tmp_path: Path, n_messages: int | None) -> None:
    """What a user did is computed backwards: it must equal a search through all messages."""
    path = tmp_path / "corpus.gz"
    with gzip.open(SHIPPED, "rb") as shipped:
        path.write_bytes(gzip.compress(b"".join(itertools.islice(shipped, 150))))
    world = World.load(path, messages=n_messages)
    everything = [m for cid in world.cids for m in world.messages(cid, include_truncated=True)]
    reactions = [reaction for message in everything for reaction in world.reactions_of(message)]
    assert reactions
    for user_id in world.user_ids():
        mine = {m["id"]: m for m in everything if m["user"]["id"] == user_id}
        assert mine == {m["id"]: m for m in world.messages_of(user_id)}
        assert len(mine) == world.count_messages_of(user_id)
        message_ids = [reaction["message_id"] for reaction in reactions if reaction["user_id"] == user_id]
        assert sorted(message_ids) == sorted(reaction["message_id"] for reaction in world.reactions_by(user_id))


# In a process of its own, because threads of other tests would count too.
READ_A_DAY = """
import sys, tracemalloc
from collections import deque
from datetime import UTC, datetime, timedelta
from airflow_provider_chatexport.sandbox.chat.world import World

world = World.load(messages=200_000)
tracemalloc.start()
print(sum(1 for _ in world.messages("livestream:ubuntu", until=datetime.fromisoformat(sys.argv[1]))))
deque(world.author_ids("team:mediawiki"), maxlen=0)
print(tracemalloc.get_traced_memory()[1])
"""


def test_a_generated_world_is_not_held_in_memory() -> None:
    """Millions of messages must fit a laptop: no message stays in memory, and little of a day that was read."""
    until = (FIRST_DAY + timedelta(days=1)).isoformat()
    command = [sys.executable, "-c", READ_A_DAY, until]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    n_read, peak_bytes = map(int, output.split())
    # What stays is one dict per author of the corpus, and what is built on first use: 6.2 MB in all.
    assert peak_bytes < 7_000_000 < n_read * 1_000


# Changes.


def test_an_edit_is_dated_and_keeps_the_rest(world: World) -> None:
    """The next export must have an edit that came after an export, with its time."""
    before = world.message("m1") or {}
    assert world.edit_message("m1", {"text": "new <text>", "ticket": 7}, NOW)
    after = world.message("m1") or {}
    assert (after["text"], after["html"]) == ("new <text>", "<p>new &lt;text&gt;</p>\n")
    assert "2025-03-01T12:00:00Z" == after["updated_at"] == after["message_text_updated_at"]
    assert after["custom"]["ticket"] == 7
    same = set(before) - {"text", "html", "updated_at", "message_text_updated_at", "custom"}
    assert {key: before[key] for key in same} == {key: after[key] for key in same}
    assert after == list(world.messages(RUST))[1] == next(m for m in world.messages_of("u1") if m["id"] == "m1")


def test_edits_add_up(world: World) -> None:
    """A second edit changes the fields that it names and nothing else."""
    world.edit_message("m1", {"text": "once", "a": 1}, NOW)
    world.edit_message("m1", {"silent": True, "b": 2}, NOW + timedelta(hours=1))
    message = world.message("m1") or {}
    assert (message["text"], message["silent"]) == ("once", True)
    assert {"a": 1, "b": 2}.items() <= message["custom"].items()
    assert (
        message["message_text_updated_at"],
        message["updated_at"],
    ) == ("2025-03-01T12:00:00Z", "2025-03-01T13:00:00Z")


@pytest.mark.parametrize("fields", [{"id": "x"}, {"cid": "a:b"}, {"created_at": "2025-01-01T00:00:00Z"}, {"text": 1}])
def test_an_edit_cannot_move_a_message(world: World, fields: dict[str, Any]) -> None:
    """The service has no such edit, and the order of a channel would break."""
    with pytest.raises(ValueError, match=r"message|text"):
        world.edit_message("m1", fields, NOW)


def test_a_late_reaction_comes_with_an_edit(world: World) -> None:
    """A lookback exists for reactions that come after their window was exported."""
    edit = {"latest_reactions": [{"user_id": "u0", "type": "like"}, {"user": {"id": "newcomer"}, "type": "wow"}]}
    assert world.edit_message("m4", edit, NOW)
    message = world.message("m4") or {}
    assert message["reaction_counts"] == {"like": 1, "wow": 1}
    assert {"u0", "newcomer"} == {reaction["user_id"] for reaction in world.reactions_of(message)}
    assert [reaction["message_id"] for reaction in world.reactions_by("newcomer")] == ["m4"]
    assert world.user("newcomer")


def test_a_soft_deletion_keeps_the_text_unless_the_export_clears_it(world: World) -> None:
    """Soft-deleted messages stay in exports."""
    assert world.delete_message("m1", False, NOW)
    message = list(world.messages(RUST))[1]
    assert (message["type"], message["text"], message["deleted_at"]) == ("deleted", "text 1", "2025-03-01T12:00:00Z")
    cleared = list(world.messages(RUST, clear_deleted_text=True))[1]
    assert (cleared["type"], cleared["text"], cleared["html"]) == ("deleted", "", "")


def test_a_cleared_deletion_leaves_its_words_nowhere(world: World) -> None:
    """An export that clears deleted texts must not have them in translations, in moderation or in a quote."""
    words = {
        "i18n": {"language": "en", "en_text": "text 1"},
        "moderation": {"action": "flag", "original_text": "text 1"},
    }
    world.edit_message("m1", {**words, "mml": "<mml>text 1</mml>"}, NOW)
    for cleared in (False, True):
        assert "text 1" in str(next(m for m in world.messages(RUST, clear_deleted_text=cleared) if m["id"] == "m1"))
    world.delete_message("m1", False, NOW)
    cleared_one = next(m for m in world.messages(RUST, clear_deleted_text=True) if m["id"] == "m1")
    assert "text 1" not in str(cleared_one)
    assert {"action": "flag", "original_text": ""} == cleared_one["moderation"]


def test_a_quote_of_a_cleared_message_is_cleared() -> None:
    """Messages that quote a deleted message contain its words too."""
    world = World.load()
    quoting = next(m for m in world.messages(RUST) if m.get("quoted_message", {}).get("text"))
    assert quoting in world.messages(RUST, clear_deleted_text=True)
    world.delete_message(quoting["quoted_message_id"], False, NOW)
    kept, cleared = (
        next(m for m in world.messages(RUST, clear_deleted_text=clear) if m["id"] == quoting["id"])
        for clear in (False, True)
    )
    assert (quoting["text"], quoting["text"]) == (kept["text"], cleared["text"])
    assert quoting["quoted_message"]["text"] == kept["quoted_message"]["text"]
    assert ("", "") == (cleared["quoted_message"]["text"], cleared["quoted_message"]["html"])


def test_a_hard_deletion_leaves_nothing(world: World) -> None:
    """The channel and the author no longer have the message, and no further change can apply to it."""
    before = world.count_messages_of("u1")
    assert world.delete_message("m1", True, NOW)
    assert "m1" not in ids(world.messages(RUST))
    assert "m1" not in ids(world.messages_of("u1"))
    assert before - 1 == world.count_messages_of("u1")
    assert world.message("m1") is None
    assert not world.edit_message("m1", {"text": "x"}, NOW)
    assert not world.delete_message("m1", False, NOW)


@pytest.mark.parametrize("n_messages", [None, 3_000])
def test_a_channel_that_loses_its_last_messages_ends_at_the_one_before(n_messages: int | None) -> None:
    """A query for active channels would miss a channel that looks empty, and its messages."""
    world = World.load(messages=n_messages)
    before = ids(world.messages(RUST))
    n_unread = [read["unread_messages"] for read in world.reads(RUST)]
    for message_id in before[-45:]:
        world.delete_message(message_id, True, NOW)
    last = list(world.messages(RUST))[-1]
    assert before[-46] == last["id"]
    assert last["created_at"] == (world.channel(RUST) or {})["last_message_at"]
    assert {last["id"]} == {read["last_read_message_id"] for read in world.reads(RUST)}
    assert {0} == {read["unread_messages"] for read in world.reads(RUST)} != set(n_unread)


def test_a_read_moves_to_the_message_before_a_deleted_one(world: World) -> None:
    """A member whose last read message is deleted has read the one before it, and has the same messages unread."""
    before = world.reads(RUST)
    for message_id in {read["last_read_message_id"] for read in before} - {"m0"}:
        world.delete_message(message_id, True, NOW)
    left = ids(world.messages(RUST))
    for was, now in zip(before, world.reads(RUST), strict=True):
        assert was["last_read"] == now["last_read"]
        assert now["last_read_message_id"] in left
        assert left.index(now["last_read_message_id"]) == len(left) - 1 - now["unread_messages"]


def test_an_emptied_channel_has_no_last_message_and_nothing_read(world: World) -> None:
    """Only an empty channel may look empty."""
    for message_id in ids(world.messages(RUST)):
        world.delete_message(message_id, True, NOW)
    assert "last_message_at" not in (world.channel(RUST) or {})
    assert all("last_read_message_id" not in read for read in world.reads(RUST))


def test_a_parent_counts_its_replies_as_they_are(world: World) -> None:
    """Threads change with deletions and additions."""

    def counts() -> tuple[int, int]:
        parent = world.message("m0") or {}
        return parent["reply_count"], parent["deleted_reply_count"]

    deleted_before = counts()[1]
    assert sum(counts()) == 2
    reply = world.add_message({"cid": RUST, "parent_id": "m0", "user_id": "u9", "text": "late"}, NOW)
    assert reply["type"] == "reply"
    assert sum(counts()) == 3
    world.delete_message(reply["id"], False, NOW)
    assert (3, deleted_before + 1) == (sum(counts()), counts()[1])
    world.delete_message(reply["id"], True, NOW)
    world.delete_message("m2", True, NOW)
    assert sum(counts()) == 1


def test_an_added_message_is_complete_and_in_its_place(world: World) -> None:
    """Exports are repeated for messages that appear in a window after its export."""
    added = world.add_message(
        {
            "cid": RUST,
            "id": "late",
            "text": "late",
            "user": {"id": "newcomer", "name": "New"},
            "created_at": "2025-01-01T00:02:30Z",
            "mood": {"level": 3},
            "attachments": [{"type": "image", "image_url": "https://example.com/a.png", "exif": {"iso": 100}}],
        },
        NOW,
    )
    assert ids(world.messages(RUST))[2:5] == ["m2", "late", "m3"]
    assert added == world.message("late") == next(world.messages_of("newcomer"))
    assert added["custom"]["mood"] == {"level": 3}
    assert added["attachments"][0]["custom"] == {"exif": {"iso": 100}}
    assert (world.user("newcomer") or {})["name"] == "New"
    assert "newcomer" in world.user_ids()
    assert world.count_messages_of("newcomer") == 1
    assert world.edit_message("late", {"text": "later"}, NOW)
    assert (world.message("late") or {})["text"] == "later"


def test_an_added_message_without_time_is_the_newest(world: World) -> None:
    """It moves its channel's last_message_at."""
    world.add_message({"cid": RUST, "text": "now"}, NOW)
    assert (world.channel(RUST) or {})["last_message_at"] == "2025-03-01T12:00:00Z"
    assert list(world.messages(RUST))[-1]["text"] == "now"


def test_wrong_additions_are_refused(world: World) -> None:
    """Unknown channels and known ids."""
    with pytest.raises(KeyError):
        world.add_message({"cid": "messaging:absent"}, NOW)
    with pytest.raises(ValueError, match="exists or existed already"):
        world.add_message({"cid": RUST, "id": "m1"}, NOW)
    with pytest.raises(ValueError, match="cannot be set"):
        world.add_message({"cid": RUST, "reply_count": 3}, NOW)
    with pytest.raises(ValueError, match=r"attachments\[0\]: expected `object`, got `str`"):
        world.add_message({"cid": RUST, "attachments": ["x"]}, NOW)
    assert len(list(world.messages(RUST))) == 6


def test_a_running_export_sees_one_state(world: World) -> None:
    """Changes while a file is written must not lead to a file that was never true."""
    running = world.messages(RUST)
    first = next(running)
    world.delete_message("m5", True, NOW)
    world.add_message({"cid": RUST, "id": "m6b", "created_at": "2025-01-01T00:04:30Z"}, NOW)
    assert ids([first, *running]) == ["m0", "m1", "m2", "m3", "m4", "m5"]
    assert ids(world.messages(RUST)) == ["m0", "m1", "m2", "m3", "m4", "m6b"]


def test_changes_from_many_threads_all_count(world: World) -> None:
    """Control calls may come at the same time."""

    def add_some(thread: int) -> None:
        for number in range(50):
            world.add_message({"cid": RUST, "id": f"t{thread}-{number}"}, NOW)

    threads = [threading.Thread(target=add_some, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(world.messages(RUST))) == 6 + 200

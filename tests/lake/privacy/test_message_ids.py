"""A message id names its author: under pseudonyms and after a removal it does not, and joins still work."""

from __future__ import annotations

from pathlib import Path

import pytest
from export_objects import channel, line, member, message, reaction, read, user, write_lines
from forgetting import NOW, everything, load
from lakes import LakeProbe

from airflow_provider_chatexport.lake.maintenance.forget import forget_user
from airflow_provider_chatexport.lake.maintenance.verify import verify
from airflow_provider_chatexport.lake.privacy.pseudonyms import pseudonym
from airflow_provider_chatexport.lake.storage.address import open_store

RANDOM_PARTS = ["85f6fa93-1165-437c-01f7-90a02d07cdc9", "V1StGXR8_Z5jdHi6B-myT"]
OTHERS_ID = "64828eb5-0000-4459-ad13-276f4b374360"
JOINED = (
    "SELECT asked.id, reply.id, quoting.id, r.user_id, reads.user_id FROM messages asked "
    "LEFT JOIN messages reply ON reply.parent_id = asked.id "
    "LEFT JOIN messages quoting ON quoting.quoted_message_id = asked.id "
    "LEFT JOIN reactions r ON r.message_id = asked.id "
    "LEFT JOIN reads ON reads.last_read_message_id = asked.id WHERE reply.id IS NOT NULL"
)


@pytest.fixture(params=RANDOM_PARTS, ids=["uuid", "nanoid"])
def random_part(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def lake(tmp_path: Path) -> LakeProbe:
    return LakeProbe(str(tmp_path / "lake"))


def references(message_id: str) -> list[bytes]:
    """Return the lines in which others refer to a message."""
    bob = {"id": "bob"}
    noted = f'see "{message_id}"'
    return [
        line("message", message(OTHERS_ID, cid="a:1", user=bob, parent_id=message_id, text=noted, note=message_id)),
        line("message", message("quoting", cid="a:1", user=bob, quoted_message_id=message_id)),
        line("reaction", reaction(message_id, "bob", cid="a:1")),
        line("read", read("bob", cid="a:1", last_read_message_id=message_id)),
        line("member", member("bob", cid="a:1", deleted_messages=["other", message_id])),
    ]


def thread(path: Path, random_part: str, text: str = "asked") -> Path:
    """Write an export of Ann's message, a reply to it, a quote of it, a reaction to it, and a read state up to it."""
    asked = message(f"ann-17-{random_part}", cid="a:1", user={"id": "ann-17"}, text=text)
    return write_lines(path, [line("channel", channel("a:1")), line("message", asked), *references(str(asked["id"]))])


def test_pseudonyms_hide_the_author_in_every_reference(random_part: str, lake: LakeProbe, tmp_path: Path) -> None:
    def load_hashed(text: str, hour: int) -> None:
        path = thread(tmp_path / "export", random_part, text)
        load(lake, path, hour, hash_users=True, drop_text=True, pseudonym_key="secret")

    load_hashed("asked", 1)
    assert "ann-17" not in everything(lake)
    ann, bob = pseudonym("ann-17", "secret"), pseudonym("bob", "secret")
    assert [[f"{ann}-{random_part}", OTHERS_ID, "quoting", bob, bob]] == lake.rows(JOINED)
    load_hashed("asked, and edited", 2)
    assert [[f"{ann}-{random_part}", OTHERS_ID, "quoting", bob, bob]] == lake.rows(JOINED)
    assert [[["other", f"{ann}-{random_part}"]]] == lake.rows("SELECT deleted_messages FROM members")
    # The load is compared with the lake by ids without their author: only the lake's ids are hashed at that time.
    assert [] == lake.rows("FROM late_changes")


@pytest.mark.parametrize("keep_messages", [True, False])
def test_no_reference_names_a_forgotten_person(
    keep_messages: bool, random_part: str, lake: LakeProbe, tmp_path: Path
) -> None:
    def forgotten() -> tuple[bool, list[list[object]]]:
        return "ann-17" in everything(lake), lake.rows(JOINED)

    load(lake, thread(tmp_path / "export", random_part), keep_superseded=True)
    assert 1 == len(lake.rows(JOINED))
    forget_user(open_store(lake.uri), "ann-17", now=NOW, keep_messages=keep_messages)
    joined = [[f"[forgotten]-{random_part}", OTHERS_ID, "quoting", "bob", "bob"]]
    assert (False, joined if keep_messages else []) == forgotten()
    assert [[f"[forgotten]-{random_part}"]] == lake.rows(f"SELECT parent_id FROM messages WHERE id = '{OTHERS_ID}'")
    assert [['see "[forgotten]-' + random_part + '"']] == lake.rows(
        f"SELECT text FROM messages WHERE id = '{OTHERS_ID}'"
    )
    assert [[["other", f"[forgotten]-{random_part}"]]] == lake.rows("SELECT deleted_messages FROM members")
    load(lake, thread(tmp_path / "again", random_part), 2)
    assert (False, joined if keep_messages else []) == forgotten()
    assert verify(open_store(lake.uri), now=NOW).ok
    assert [] == forget_user(open_store(lake.uri), "ann-17", now=NOW, keep_messages=keep_messages).files


def test_a_forgotten_person_stays_out_if_only_a_reference_names_them(
    random_part: str, lake: LakeProbe, tmp_path: Path
) -> None:
    load(lake, write_lines(tmp_path / "export", [line("message", message("m", cid="a:1"))]))
    forget_user(open_store(lake.uri), "ann-17", now=NOW, even_if_unknown=True)
    lines = [line("channel", channel("a:1")), *references(f"ann-17-{random_part}")]
    load(lake, write_lines(tmp_path / "later", lines), 2)
    assert "ann-17" not in everything(lake)


@pytest.mark.parametrize(
    "message_id",
    [OTHERS_ID, "by-ann", "ann-17", f"ann-170-{OTHERS_ID}", f"x-ann-17-{OTHERS_ID}", f"ann-17-{OTHERS_ID}-copy"],
)
def test_other_ids_stay(message_id: str, lake: LakeProbe, tmp_path: Path) -> None:
    """An id that does not start with the person's id and a random part is not theirs."""
    ann = line("user", user("ann-17"))
    lines = [line("channel", channel("a:1")), ann, line("message", message(message_id, cid="a:1"))]
    load(lake, write_lines(tmp_path / "export", lines))
    forget_user(open_store(lake.uri), "ann-17", now=NOW)
    assert [[message_id]] == lake.rows("SELECT id FROM messages")


@pytest.mark.parametrize("message_id", [OTHERS_ID, "by-ann", f"ann-17-{OTHERS_ID}-copy"])
def test_an_id_without_an_author_has_no_pseudonym(message_id: str, lake: LakeProbe, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "export", [line("message", message(message_id, cid="a:1"))])
    load(lake, path, hash_users=True, pseudonym_key="secret")
    assert [[message_id]] == lake.rows("SELECT id FROM messages")

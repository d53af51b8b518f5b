"""Links to attachments: signed, dead after 14 days, and new in every export."""

from __future__ import annotations

from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

CHANNEL = "messaging:links"
IMAGE, VIDEO = "http://example.com/a/plan%20b.png?w=1", "http://example.com/film.mp4"
URL_FIELDS = ("image_url", "asset_url", "thumb_url")
DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)


@pytest.fixture
def start_calls(calls_to, start_sandbox, tmp_path):
    """Return a factory of clients of sandboxes with three messages: an image, a video, and an answer that quotes it."""
    path = tmp_path / "chat.ndjson"
    texts = {"m-0001": f"see {IMAGE}", "m-0002": f"and {VIDEO}", "m-0003": "yes"}
    path.write_text(
        "".join(
            f'{{"cid":"{CHANNEL}","id":"{message_id}","at":"2025-01-01T00:00:00Z","author":"ann","kind":"regular",'
            f'"text":"{text}","reply_to":null}}\n'
            for message_id, text in texts.items()
        )
    )

    def start_calls(**settings):
        return calls_to(start_sandbox(data=path, frozen_clock=True, task_s=0, **settings))

    return start_calls


@pytest.fixture
def calls(start_calls):
    """Return a client of such a sandbox, with its links."""
    return start_calls()


def attachments(messages):
    """Return the attachments of messages."""
    return [attachment for message in messages for attachment in message["attachments"]]


def exported(calls, **body):
    """Return the attachments in an export of the channel."""
    return attachments(calls.entities(calls.export(CHANNEL, **body), "message"))


def urls(calls):
    """Return the links of an export."""
    image, video = exported(calls)
    return [image["image_url"], video["asset_url"], video["thumb_url"]]


def test_the_links_work_without_a_key(calls):
    """Each is a file of its own, with the type of what it shows."""
    replies = [httpx.get(url) for url in urls(calls)]
    assert [200] * 3 == [reply.status_code for reply in replies]
    assert ["image/png", "video/mp4", "image/png"] == [reply.headers["content-type"] for reply in replies]
    assert replies[0].content.startswith(b"\x89PNG")
    assert len({urlsplit(url).path for url in urls(calls)}) == 3


def test_a_link_says_when_it_ends(calls):
    """``Expires`` in unix seconds, as the CDN has it; the original address stays where the service has it."""
    expected = int((calls.control.now() + 14 * DAY).timestamp())
    for url in urls(calls):
        assert url.startswith(f"{calls.sandbox.url}/download/attachments/")
        assert abs(expected - int(parse_qs(urlsplit(url).query)["Expires"][0])) <= 1
    image, _ = exported(calls)
    assert IMAGE == image["og_scrape_url"] == image["title_link"]


def test_a_link_ends_after_14_days_and_the_next_export_has_another_one(calls):
    """Who keeps links and not files loses the files."""
    old = urls(calls)
    calls.control.advance_clock(14 * DAY - MINUTE)
    assert [200] * 3 == [httpx.get(url).status_code for url in old]
    calls.control.advance_clock(MINUTE)
    assert [403] * 3 == [httpx.get(url).status_code for url in old]
    new = urls(calls)
    assert [200] * 3 == [httpx.get(url).status_code for url in new]
    assert [urlsplit(url).path for url in old] == [urlsplit(url).path for url in new]


@pytest.mark.parametrize("spoil", [("Expires=1", "Expires=2"), ("/images/", "/files/"), ("Signature=", "Signature=0")])
def test_a_changed_link_is_refused(calls, spoil):
    """A link cannot be prolonged or guessed."""
    link = urls(calls)[0]
    assert spoil[0] in link
    assert httpx.get(link.replace(*spoil)).status_code == 403
    assert httpx.get(link.partition("?")[0]).status_code == 403


def test_every_way_to_read_a_message_has_links(calls):
    """v1, exports of users, the synchronous export, queries."""
    users = calls.entities(calls.export_users("ann"), "message")
    synchronous = calls.http.get("/api/v2/users/ann/export").json()["messages"]
    (state,) = calls.query().json()["channels"]
    (v1,) = httpx.get(calls.link(calls.export(CHANNEL, version="v1"))).json()
    for messages in (users, synchronous, state["messages"], v1["messages"]):
        links = [each[name] for each in attachments(messages) for name in URL_FIELDS if name in each]
        assert len(links) >= 3
        assert {200} == {httpx.get(url).status_code for url in links}


def test_addresses_of_a_control_call_stay(calls):
    """A test that adds an attachment finds what it added."""
    mine = {"type": "image", "image_url": "https://cdn.example.com/a.png"}
    calls.control.add_message(CHANNEL, attachments=[mine])
    assert mine["image_url"] == exported(calls)[-1]["image_url"]


def test_links_can_be_left_out(start_calls):
    """For comparisons of bytes."""
    calls = start_calls(attachment_links=False)
    assert [IMAGE, VIDEO, f"{VIDEO}.jpg"] == urls(calls)
    calls.control.advance_clock(DAY)
    assert [IMAGE, VIDEO, f"{VIDEO}.jpg"] == urls(calls)

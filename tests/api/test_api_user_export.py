"""The export of one user in a single reply: the file that it becomes, and the users whom the service refuses."""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from airflow_provider_chatexport.api import protocol
from airflow_provider_chatexport.api.client import ChatExportClient
from airflow_provider_chatexport.api.settings import ServiceSettings
from airflow_provider_chatexport.core.plan import UserId
from airflow_provider_chatexport.errors import DownloadError, RequestRefusedError, UnexpectedReplyError
from airflow_provider_chatexport.sandbox import Sandbox

USERS = "/api/v2/users"
REPLY = b'{"user":{"id":"u1"},"messages":[],"reactions":[],"duration":"1ms"}'


@pytest.fixture
def user_id(sandbox: Sandbox) -> UserId:
    """Return a user with some hundred messages."""
    world = sandbox.world
    return UserId(max(world.user_ids()[:300], key=world.count_messages_of))


@pytest.fixture
def make_client(scripted_server) -> Callable[..., ChatExportClient]:
    """Return a client of a server that gives one answer, with pauses of milliseconds."""

    def make(status: int, headers: dict[str, str], body: bytes) -> ChatExportClient:
        server = scripted_server()
        server.answer = lambda _path, _headers: (status, headers, body)
        return ChatExportClient(
            ServiceSettings(api_key="the-api-key", api_secret="s" * 32, base_url=server.url, first_wait_s=0.001)
        )

    return make


def test_the_file_is_the_reply(client, user_id, sandbox, tmp_path) -> None:
    """The load reads it later: it must have every message, the digest of its bytes, and the service's time."""
    progress: list[int] = []
    export = client.export_user(user_id, tmp_path / "user.json", progress=lambda done, _total: progress.append(done))
    content = (tmp_path / "user.json").read_bytes()
    reply = json.loads(content)
    assert user_id == reply["user"]["id"]
    assert sandbox.world.count_messages_of(user_id) == len(reply["messages"]) > 100
    assert (len(content), hashlib.sha256(content).hexdigest()) == (export.size_bytes, export.sha256)
    assert len(content) == progress[-1]
    assert abs((datetime.now(UTC) - export.exported_at).total_seconds()) < 60
    assert ["user.json"] == [path.name for path in tmp_path.iterdir()]


@pytest.mark.parametrize("do", ["truncate:5000", "drop", "status:503", "status:429"])
def test_a_reply_that_breaks_off_is_requested_again(client, user_id, control, tmp_path, do) -> None:
    """Half a reply followed by a whole one is not JSON, and half a reply alone would lose messages silently."""
    whole = client.export_user(user_id, tmp_path / "whole.json")
    control.clear_requests()
    control.fault(do, USERS)
    export = client.export_user(user_id, tmp_path / "user.json")
    assert json.loads((tmp_path / "user.json").read_bytes())["user"]["id"] == user_id
    # Nothing but the time that the service took may differ.
    assert abs(whole.size_bytes - export.size_bytes) < 10
    assert 2 == len(control.requests(USERS))


def test_a_reply_that_always_breaks_off_leaves_no_file(make_settings, user_id, control, tmp_path, caplog) -> None:
    """The next step must not find half a file. Neither the error nor a log may contain the key."""
    control.fault("truncate:5000", USERS, times=100)
    with ChatExportClient(make_settings(max_attempts=2)) as client, caplog.at_level(logging.DEBUG):
        with pytest.raises(Exception, match=r"exporting user .* the connection .* was lost") as caught:
            client.export_user(user_id, tmp_path / "user.json")
        assert client.settings.api_key not in caplog.text + str(caught.value)
    assert [] == list(tmp_path.iterdir())


def test_a_compressed_reply_is_unpacked(make_client, tmp_path) -> None:
    """The declared length is that of the packed bytes: it must not count as the file's."""
    totals = []
    headers = {"content-encoding": "gzip", "date": "Thu, 01 Jan 2026 00:00:00 GMT"}
    with make_client(200, headers, gzip.compress(REPLY)) as client:
        export = client.export_user(
            UserId("u1"), tmp_path / "user.json", progress=lambda _done, total: totals.append(total)
        )
    assert (REPLY, datetime(2026, 1, 1, tzinfo=UTC)) == (export.path.read_bytes(), export.exported_at)
    assert {None} == set(totals)


@pytest.mark.parametrize("body", [b"<html>please log in</html>", b"", b"[]"])
def test_a_page_is_not_an_export(make_client, tmp_path, body) -> None:
    """A portal answers 200 to every request: its page must not become a file that is loaded later."""
    with make_client(200, {}, body) as client, pytest.raises(UnexpectedReplyError, match="no JSON object"):
        client.export_user(UserId("u1"), tmp_path / "user.json")
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "reason",
    [
        "user u1 has more than 10000 messages; contact support to export them",
        "user has over 10,000 reactions",
        "too many messages",
    ],
)
def test_a_user_with_too_much_is_refused_with_what_to_do(make_client, tmp_path, reason) -> None:
    """No retry and no other id can help: the sentence must name the two ways that remain."""
    body = json.dumps({"code": 4, "message": f'ExportUser failed with error: "{reason}"'}).encode()
    with (
        make_client(400, {}, body) as client,
        pytest.raises(RequestRefusedError, match=r"10,000.*Export the channels of this user.*support") as caught,
    ):
        client.export_user(UserId("u1"), tmp_path / "user.json")
    assert caught.value.is_too_large_a_user
    assert [] == list(tmp_path.iterdir())


def test_an_unknown_user_is_refused(client, tmp_path) -> None:
    """A mistyped id must not look like a user with too much."""
    with pytest.raises(RequestRefusedError, match=r"Can't find user.*check the user ids") as caught:
        client.export_user(UserId("no-such-user"), tmp_path / "user.json")
    assert (True, False) == (caught.value.is_missing, caught.value.is_too_large_a_user)


def test_a_missing_directory_is_one_sentence(client, user_id, tmp_path: Path) -> None:
    """An error of the disk must not appear as a traceback, nor be retried as one of the network."""
    with pytest.raises(DownloadError, match=r"export of user .* cannot be written to .*missing"):
        client.export_user(user_id, tmp_path / "missing" / "user.json")


def test_a_user_id_cannot_leave_its_path(settings) -> None:
    """User ids may contain any character: one must not turn the request into one for another address."""
    request = protocol.sign(protocol.export_user(UserId("a/../b?x=")), settings, now_epoch_s=0)
    assert request.url.raw_path.startswith(b"/api/v2/users/a%2F..%2Fb%3Fx%3D/export?")

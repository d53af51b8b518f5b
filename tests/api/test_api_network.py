"""Proxies, authorities and file hosts that misbehave in ways the sandbox never would."""

from __future__ import annotations

import ipaddress
import json
import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tenacity import RetryCallState, Retrying

from airflow_provider_chatexport.api.client import ChatExportClient
from airflow_provider_chatexport.api.download import Downloaded, download
from airflow_provider_chatexport.api.retry import RetryPolicy
from airflow_provider_chatexport.api.settings import ServiceSettings
from airflow_provider_chatexport.core.discovery import ChannelPage
from airflow_provider_chatexport.core.task import TaskId
from airflow_provider_chatexport.errors import (
    ConnectionSettingsError,
    DownloadError,
    FileGoneError,
    LinkExpiredError,
    ServiceUnavailableError,
    UnexpectedReplyError,
)

NO_CHANNELS = (201, {"content-type": "application/json"}, b'{"channels":[],"duration":"1ms"}')


def settings_for(url: str, **others: Any) -> ServiceSettings:
    chosen = {"base_url": url, "max_attempts": 2, "first_wait_s": 0.001, "longest_wait_s": 0.01, **others}
    return ServiceSettings(api_key="the-api-key", api_secret="the-api-secret-of-thirty-two-chars", **chosen)


@pytest.fixture
def authority(tmp_path: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate for 127.0.0.1 that only who has its file trusts."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    ca_file, key_file = tmp_path / "ca.pem", tmp_path / "key.pem"
    ca_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(ca_file, key_file)
    return ca_file, tls


def test_an_authority_of_ones_own_is_trusted_when_it_is_named(drive, scripted_server, authority) -> None:
    """Companies that inspect TLS have an authority of their own."""
    ca_file, tls = authority
    server = scripted_server(tls=tls)
    server.answers = lambda _path, _headers: NO_CHANNELS
    assert drive(settings_for(server.url, ca_file=str(ca_file)), "query_channels", ChannelPage()) == ()


def test_an_unknown_authority_is_not_trusted(drive, scripted_server, authority) -> None:
    """Or anyone could read the token."""
    server = scripted_server(tls=authority[1])
    with pytest.raises(ServiceUnavailableError, match="cannot be reached"):
        drive(settings_for(server.url), "query_channels", ChannelPage())
    assert server.asked == []


def test_a_proxy_that_is_set_is_used(drive, scripted_server) -> None:
    """A worker without a way out but the proxy."""
    proxy = scripted_server()
    proxy.answers = lambda _path, _headers: NO_CHANNELS
    assert drive(settings_for("http://chat.example", proxy=proxy.url), "query_channels", ChannelPage()) == ()
    ((target, _headers),) = proxy.asked
    assert target.startswith("http://chat.example/api/v2/chat/channels?")


def test_the_environments_proxy_is_used(drive, scripted_server, monkeypatch) -> None:
    """Deployments set it for every program at once."""
    proxy = scripted_server()
    proxy.answers = lambda _path, _headers: NO_CHANNELS
    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert drive(settings_for("http://chat.example"), "query_channels", ChannelPage()) == ()
    assert len(proxy.asked) == 1


def test_a_proxy_of_another_kind_is_refused_with_a_sentence(drive, monkeypatch) -> None:
    """A SOCKS proxy in the environment needs a package that is not here: no traceback about imports."""
    monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:1")
    with pytest.raises(ConnectionSettingsError, match="no HTTP proxy"):
        drive(settings_for("http://chat.example"), "query_channels", ChannelPage())


def test_a_redirect_is_not_followed(drive, scripted_server) -> None:
    """The API has none: who redirects is someone else, and would get our token."""
    server = scripted_server()
    server.answers = lambda _path, _headers: (302, {"location": f"{server.url}/elsewhere"}, b"")
    with pytest.raises(UnexpectedReplyError, match=r"HTTP 302.*check the address"):
        drive(settings_for(server.url), "query_channels", ChannelPage())
    assert len(server.asked) == 1


def test_a_page_of_a_portal_is_not_a_reply(drive, scripted_server) -> None:
    """A login page answers 200 to everything."""
    server = scripted_server()
    server.answers = lambda _path, _headers: (200, {"content-type": "text/html"}, b"<html>please log in</html>")
    with pytest.raises(UnexpectedReplyError, match="not the documented reply"):
        drive(settings_for(server.url), "query_channels", ChannelPage())


def test_a_failure_is_not_waited_for_until_the_rate_limit_begins_anew(drive, scripted_server) -> None:
    """Every answer tells when that is; with a patience that is shorter, the one failure would be the last."""
    server = scripted_server()
    busy = (503, {"x-ratelimit-remaining": "58", "x-ratelimit-reset": str(int(time.time()) + 400)}, b"{}")
    server.answers = lambda _path, _headers: NO_CHANNELS if len(server.asked) > 1 else busy
    assert drive(settings_for(server.url), "query_channels", ChannelPage()) == ()


def test_the_pause_after_very_many_attempts_is_the_longest() -> None:
    """Who is rate-limited goes on until patience ends, and not until a power of two is too large for a float."""
    options = RetryPolicy(settings_for("http://chat.example"), starts_export=False).options()
    state = RetryCallState(Retrying(**options), None, (), {})
    state.attempt_number = 5000
    assert 0 <= options["wait"](state) <= 0.01


FIRST, SECOND = b"a" * 600 + b"b" * 400, b"c" * 700

FileHost = Callable[[dict[str, str]], tuple[int, dict[str, str], bytes]]


@pytest.fixture
def fetch(scripted_server, tmp_path: Path) -> Callable[[FileHost], Downloaded]:
    """Download one export whose file host answers as given. ``fetch.asked`` has the headers of each attempt."""

    def run(file_host: FileHost) -> Downloaded:
        server = scripted_server()
        run.asked = asked = []  # type: ignore[attr-defined]

        def answer(path: str, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
            if path.startswith("/api/"):
                result = {"url": f"{server.url}/file?signature=secret"}
                task = {"task_id": "t", "status": "completed", "created_at": 1, "result": result}
                return 200, {}, json.dumps(task).encode()
            asked.append(headers)
            return file_host(headers)

        server.answers = answer
        with ChatExportClient(settings_for(server.url)) as client:
            return download(client, TaskId("t"), tmp_path / "export")

    return run


EXPIRED = b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"


@pytest.mark.parametrize(
    ("status", "body"), [(400, EXPIRED), (401, b""), (403, b""), (404, b"<html>default backend - 404</html>")]
)
def test_a_fresh_link_is_asked_for_where_one_is_refused(fetch, status, body) -> None:
    """What it was signed with has expired, or a page stands in its place: the next link leads to the file."""
    answers = [(status, {}, body), (200, {}, FIRST)]
    assert fetch(lambda _headers: answers.pop(0)).path.read_bytes() == FIRST


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [(400, EXPIRED, LinkExpiredError), (401, b"", LinkExpiredError), (404, b"", FileGoneError)],
)
def test_links_that_all_lead_nowhere_end_the_download(fetch, tmp_path, status, body, kind) -> None:
    """As many attempts as ever; then a file that none of them finds is gone."""
    with pytest.raises(DownloadError) as caught:
        fetch(lambda _headers: (status, {}, body))
    assert type(caught.value) is kind
    assert len(fetch.asked) == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("status", "kind"), [(400, DownloadError), (410, FileGoneError)])
def test_what_no_link_can_cure_is_final(fetch, status, kind) -> None:
    """A request that is malformed stays so, and a host that says gone means it."""
    with pytest.raises(kind) as caught:
        fetch(lambda _headers: (status, {}, b"<Error><Code>InvalidArgument</Code></Error>"))
    assert (False, 1) == (caught.value.retryable, len(fetch.asked))


def test_a_file_that_changed_in_between_begins_anew(fetch) -> None:
    """Half of one file and half of another would be no export at all: the ETag tells."""

    def file_host(headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        if "range" in headers:
            return 200, {"etag": '"two"'}, SECOND  # If-Range did not match
        return 200, {"etag": '"one"', "content-length": "1000"}, FIRST[:600]

    assert fetch(file_host).path.read_bytes() == SECOND


def test_without_an_etag_nothing_is_continued(fetch) -> None:
    """Nothing vouches for the first half being of the same file."""
    broken = [True]

    def file_host(headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        return 200, {"content-length": "1000"}, FIRST[: 600 if broken and broken.pop() else 1000]

    assert fetch(file_host).path.read_bytes() == FIRST
    assert all("range" not in headers for headers in fetch.asked)


def test_a_file_that_is_another_one_at_each_attempt_is_given_up(fetch) -> None:
    """Beginning anew is no progress, or this would go on for ever."""

    def file_host(_headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        n = len(fetch.asked)
        return 200, {"etag": f'"{n}"', "content-length": "1000"}, FIRST[: 600 + 100 * (n % 2)]

    with pytest.raises(DownloadError, match="did not come whole"):
        fetch(file_host)


@pytest.mark.parametrize(
    "head",
    [
        {"etag": '"one"', "content-range": "bytes 0-399/1000"},
        {"etag": '"other"', "content-range": "bytes 600-999/1000"},
        {"etag": '"one"'},
    ],
)
def test_a_part_that_was_not_asked_for_is_not_taken(fetch, head) -> None:
    """A cache in between may answer with another range: the file must begin anew, and come out right."""

    def file_host(headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        if "range" in headers:
            return 206, head, FIRST[600:]
        first_time = len(fetch.asked) == 1
        return 200, {"etag": '"one"', "content-length": "1000"}, FIRST[: 600 if first_time else 1000]

    assert fetch(file_host).path.read_bytes() == FIRST


def test_a_part_larger_than_the_whole_is_refused(fetch, tmp_path) -> None:
    """More bytes than were announced are not the file that was announced."""

    def file_host(headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        if "range" in headers:
            return 206, {"etag": '"one"', "content-range": "bytes 600-999/1000"}, FIRST
        return 200, {"etag": '"one"', "content-length": "1000"}, FIRST[:600]

    with pytest.raises(DownloadError, match="more than the announced 1000 bytes"):
        fetch(file_host)
    assert list(tmp_path.iterdir()) == []


def test_a_redirect_to_another_host_is_refused(fetch) -> None:
    """A link is followed, what it says is not."""
    with pytest.raises(DownloadError, match="redirects elsewhere") as caught:
        fetch(lambda _headers: (307, {"location": "https://elsewhere.example/file"}, b""))
    assert "signature" not in str(caught.value)
    assert len(fetch.asked) == 1

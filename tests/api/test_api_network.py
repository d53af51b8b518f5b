"""Proxies, certificate authorities, and file hosts that misbehave in ways that the sandbox does not."""

from __future__ import annotations

import asyncio
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

from airflow_provider_chatexport.api.client import AsyncChatExportClient, ChatExportClient
from airflow_provider_chatexport.api.download import Downloaded, download
from airflow_provider_chatexport.api.retry import RetryPolicy
from airflow_provider_chatexport.api.settings import ServiceSettings
from airflow_provider_chatexport.core.plan import UserId, UsersRequest
from airflow_provider_chatexport.core.task import Status, TaskId
from airflow_provider_chatexport.errors import (
    ConnectionSettingsError,
    DownloadError,
    FileGoneError,
    LinkExpiredError,
    ServiceUnavailableError,
    UnexpectedReplyError,
)

T = TaskId("t")
RUNNING = (
    200,
    {"content-type": "application/json"},
    b'{"task_id":"t","status":"running","created_at":1768640897000000000}',
)


def settings_for(url: str, **others: Any) -> ServiceSettings:
    """Return settings for a scripted server, with pauses of milliseconds."""
    options = {"base_url": url, "max_attempts": 2, "first_wait_s": 0.001, "longest_wait_s": 0.01, **others}
    return ServiceSettings(api_key="the-api-key", api_secret="the-api-secret-of-thirty-two-chars", **options)


@pytest.fixture
def authority(tmp_path: Path) -> tuple[Path, ssl.SSLContext]:
    """Make a certificate for 127.0.0.1 that only a client with its file trusts."""
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


def test_the_authority_in_ca_file_is_trusted(ask_status, scripted_server, authority) -> None:
    """A company that inspects TLS has its own certificate authority."""
    ca_file, tls = authority
    server = scripted_server(tls=tls)
    server.answer = lambda _path, _headers: RUNNING
    assert ask_status(settings_for(server.url, ca_file=str(ca_file)), T).status is Status.RUNNING


def test_an_unknown_authority_is_not_trusted(ask_status, scripted_server, authority) -> None:
    """Otherwise a host between client and service could read the token."""
    server = scripted_server(tls=authority[1])
    with pytest.raises(ServiceUnavailableError, match="cannot be reached"):
        ask_status(settings_for(server.url), T)
    assert server.requests == []


def test_the_proxy_of_the_settings_is_used(ask_status, scripted_server) -> None:
    """Some workers reach the service through a proxy only."""
    proxy = scripted_server()
    proxy.answer = lambda _path, _headers: RUNNING
    assert ask_status(settings_for("http://chat.example", proxy=proxy.url), T).status is Status.RUNNING
    ((target, _headers),) = proxy.requests
    assert target.startswith("http://chat.example/api/v2/tasks/t?")


def test_the_environments_proxy_is_used(ask_status, scripted_server, monkeypatch) -> None:
    """Deployments set the proxy for all programs at once."""
    proxy = scripted_server()
    proxy.answer = lambda _path, _headers: RUNNING
    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert ask_status(settings_for("http://chat.example"), T).status is Status.RUNNING
    assert len(proxy.requests) == 1


def test_a_proxy_that_is_not_an_http_proxy_is_refused(ask_status, monkeypatch) -> None:
    """A SOCKS proxy needs a package that is not installed: a sentence must say so, not an ImportError."""
    monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:1")
    with pytest.raises(ConnectionSettingsError, match="http_proxy does not name an HTTP proxy"):
        ask_status(settings_for("http://chat.example"), T)


@pytest.fixture(params=["sync", "async"])
def ask_often(request) -> Callable[[ServiceSettings, int], None]:
    """Ask for a status several times, through one client."""

    def with_sync(settings: ServiceSettings, n_times: int) -> None:
        with ChatExportClient(settings) as client:
            assert all(client.task(T).status is Status.RUNNING for _ in range(n_times))

    def with_async(settings: ServiceSettings, n_times: int) -> None:
        async def run() -> None:
            async with AsyncChatExportClient(settings) as client:
                assert all([(await client.task(T)).status is Status.RUNNING for _ in range(n_times)])

        asyncio.run(run())

    return with_sync if request.param == "sync" else with_async


def test_a_kept_connection_that_the_server_closes_is_not_a_failure(ask_often, scripted_server) -> None:
    """Regression: servers close connections that are idle. A wait took that for a failure of the service."""
    server = scripted_server(answers_per_connection=2)
    server.answer = lambda _path, _headers: RUNNING
    ask_often(settings_for(server.url, max_attempts=1), 6)
    assert len(server.requests) == 6 + 2


def test_a_connection_that_breaks_at_its_first_request_is_a_failure(ask_often, scripted_server) -> None:
    """A service that closes new connections is out of order: a client that asked again at once would never stop."""
    server = scripted_server(answers_per_connection=0)
    with pytest.raises(ServiceUnavailableError, match="was lost"):
        ask_often(settings_for(server.url, max_attempts=1), 1)
    assert len(server.requests) == 1


def test_a_submit_on_a_connection_that_the_server_closes_is_not_repeated_silently(scripted_server) -> None:
    """The service may have started the export. The retry policy repeats the call, and its log names the unused one."""
    server = scripted_server(answers_per_connection=1)
    server.answer = lambda _path, _headers: RUNNING
    with ChatExportClient(settings_for(server.url, max_attempts=1)) as client:
        client.task(T)
        with pytest.raises(ServiceUnavailableError) as caught:
            client.submit_users(UsersRequest(user_ids=(UserId("u"),)))
    assert (caught.value.reply_lost, len(server.requests)) == (True, 2)


def test_a_redirect_is_not_followed(ask_status, scripted_server) -> None:
    """The API does not redirect. Another server that does would get our token."""
    server = scripted_server()
    server.answer = lambda _path, _headers: (302, {"location": f"{server.url}/elsewhere"}, b"")
    with pytest.raises(UnexpectedReplyError, match=r"HTTP 302.*check the address"):
        ask_status(settings_for(server.url), T)
    assert len(server.requests) == 1


def test_a_login_page_is_not_a_reply(ask_status, scripted_server) -> None:
    """A portal's login page answers 200 to every request."""
    server = scripted_server()
    server.answer = lambda _path, _headers: (200, {"content-type": "text/html"}, b"<html>please log in</html>")
    with pytest.raises(UnexpectedReplyError, match="not with the documented reply"):
        ask_status(settings_for(server.url), T)


def test_a_failure_is_retried_before_the_rate_limit_resets(ask_status, scripted_server) -> None:
    """Every reply names the reset: a client that waited for it would give up after one failure."""
    server = scripted_server()
    busy = (503, {"x-ratelimit-remaining": "58", "x-ratelimit-reset": str(int(time.time()) + 400)}, b"{}")
    server.answer = lambda _path, _headers: RUNNING if len(server.requests) > 1 else busy
    assert ask_status(settings_for(server.url), T).status is Status.RUNNING


def test_the_pause_after_very_many_attempts_is_the_longest() -> None:
    """After 5,000 rate-limited attempts a power of two would be too large for a float."""
    options = RetryPolicy(settings_for("http://chat.example"), starts_export=False).options()
    state = RetryCallState(Retrying(**options), None, (), {})
    state.attempt_number = 5000
    assert 0 <= options["wait"](state) <= 0.01


FIRST, SECOND = b"a" * 600 + b"b" * 400, b"c" * 700

FileHost = Callable[[dict[str, str]], tuple[int, dict[str, str], bytes]]


@pytest.fixture
def fetch(scripted_server, tmp_path: Path) -> Callable[[FileHost], Downloaded]:
    """Download an export from a scripted file host. ``fetch.headers`` has the request headers of each attempt."""

    def run(file_host: FileHost) -> Downloaded:
        server = scripted_server()
        run.headers = []  # type: ignore[attr-defined]

        def answer(path: str, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
            if path.startswith("/api/"):
                result = {"url": f"{server.url}/file?signature=secret"}
                task = {"task_id": "t", "status": "completed", "created_at": 1768640897000000000, "result": result}
                return 200, {}, json.dumps(task).encode()
            run.headers.append(headers)  # type: ignore[attr-defined]
            return file_host(headers)

        server.answer = answer
        with ChatExportClient(settings_for(server.url)) as client:
            return download(client, T, tmp_path / "export")

    return run


EXPIRED = b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"


@pytest.mark.parametrize(
    ("status", "body"), [(400, EXPIRED), (401, b""), (403, b""), (404, b"<html>default backend - 404</html>")]
)
def test_a_refused_link_is_replaced_by_a_fresh_one(fetch, status, body) -> None:
    """Its credential has expired, or a proxy answers in place of the file host: the next link leads to the file."""
    answers = [(status, {}, body), (200, {}, FIRST)]
    assert fetch(lambda _headers: answers.pop(0)).path.read_bytes() == FIRST


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [(400, EXPIRED, LinkExpiredError), (401, b"", LinkExpiredError), (404, b"", FileGoneError)],
)
def test_links_that_all_lead_nowhere_end_the_download(fetch, tmp_path, status, body, kind) -> None:
    """After the usual number of attempts, a file that no link leads to is gone."""
    with pytest.raises(DownloadError) as caught:
        fetch(lambda _headers: (status, {}, body))
    assert type(caught.value) is kind
    assert len(fetch.headers) == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("status", "kind"), [(400, DownloadError), (410, FileGoneError)])
def test_an_error_that_a_fresh_link_cannot_fix_is_final(fetch, status, kind) -> None:
    """A malformed request stays malformed, and 410 means that the file is gone."""
    with pytest.raises(kind) as caught:
        fetch(lambda _headers: (status, {}, b"<Error><Code>InvalidArgument</Code></Error>"))
    assert (False, 1) == (caught.value.retryable, len(fetch.headers))


def test_a_file_that_changed_between_attempts_is_downloaded_from_the_start(fetch) -> None:
    """Half of one file and half of another are not an export: the ETag shows the change."""

    def file_host(headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        if "range" in headers:
            return 200, {"etag": '"two"'}, SECOND  # If-Range did not match
        return 200, {"etag": '"one"', "content-length": "1000"}, FIRST[:600]

    assert fetch(file_host).path.read_bytes() == SECOND


def test_a_download_without_an_etag_is_not_resumed(fetch) -> None:
    """Without an ETag the rest may belong to another file."""
    broken = [True]

    def file_host(headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        return 200, {"content-length": "1000"}, FIRST[: 600 if broken and broken.pop() else 1000]

    assert fetch(file_host).path.read_bytes() == FIRST
    assert all("range" not in headers for headers in fetch.headers)


def test_a_file_that_changes_at_each_attempt_ends_the_download(fetch) -> None:
    """A restart is not progress: otherwise the download would never end."""

    def file_host(_headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        n = len(fetch.headers)
        return 200, {"etag": f'"{n}"', "content-length": "1000"}, FIRST[: 600 + 100 * (n % 2)]

    with pytest.raises(DownloadError, match="did not arrive whole"):
        fetch(file_host)


@pytest.mark.parametrize(
    "head",
    [
        {"etag": '"one"', "content-range": "bytes 0-399/1000"},
        {"etag": '"other"', "content-range": "bytes 600-999/1000"},
        {"etag": '"one"'},
    ],
)
def test_a_part_that_was_not_requested_is_discarded(fetch, head) -> None:
    """A cache may answer with another range: the download must restart, and the file must be right."""

    def file_host(headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        if "range" in headers:
            return 206, head, FIRST[600:]
        first_time = len(fetch.headers) == 1
        return 200, {"etag": '"one"', "content-length": "1000"}, FIRST[: 600 if first_time else 1000]

    assert fetch(file_host).path.read_bytes() == FIRST


def test_a_part_larger_than_the_whole_is_refused(fetch, tmp_path) -> None:
    """A response with more bytes than it announces is not the announced file."""

    def file_host(headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        if "range" in headers:
            return 206, {"etag": '"one"', "content-range": "bytes 600-999/1000"}, FIRST
        return 200, {"etag": '"one"', "content-length": "1000"}, FIRST[:600]

    with pytest.raises(DownloadError, match="more than the announced 1000 bytes"):
        fetch(file_host)
    assert list(tmp_path.iterdir()) == []


def test_a_redirect_to_another_host_is_refused(fetch) -> None:
    """The client follows the service's link, but no redirect from there."""
    with pytest.raises(DownloadError, match="redirects elsewhere") as caught:
        fetch(lambda _headers: (307, {"location": "https://elsewhere.example/file"}, b""))
    assert "signature" not in str(caught.value)
    assert len(fetch.headers) == 1

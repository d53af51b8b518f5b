"""The settings that reach the service: key, secret, address, timeouts and retries, checked when they are created."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Self

import httpx

from airflow_provider_chatexport.api.token import is_secret
from airflow_provider_chatexport.errors import ConnectionSettingsError

DEFAULT_BASE_URL: Final = "https://chat.stream-io-api.com"

# The variables that the official SDKs read.
ENV_API_KEY: Final = "STREAM_API_KEY"
ENV_API_SECRET: Final = "STREAM_API_SECRET"  # noqa: S105 - a variable's name
ENV_BASE_URL: Final = "STREAM_BASE_URL"

# Thirty years: clocks and sleeps cannot handle more.
_MAX_NUMBER: Final = 1e9
_ABOVE_ZERO: Final = ("connect_timeout_s", "read_timeout_s", "write_timeout_s", "pool_timeout_s", "max_attempts")
_HOST_NAME: Final = re.compile(r"\w[\w.-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSettings:
    """One account at one address. Key, secret and proxy are not in the ``repr``.

    :param base_url: scheme and host of a region or of the sandbox; a path is kept as a prefix.
    :param connect_timeout_s: seconds; the other three timeouts likewise.
    :param max_attempts: how often one request is sent at most; attempts that are rate-limited do not count.
    :param first_wait_s: upper bound of the first pause between attempts. It doubles up to ``longest_wait_s``.
    :param rate_limit_patience_s: how long one request may continue to be rate-limited. The service limits exports to 60
        a minute for the whole app, so with several workers this may take longer than any single pause.
    :param proxy: address of an HTTP proxy; by default ``HTTP_PROXY``, ``HTTPS_PROXY`` and ``NO_PROXY`` apply.
    :param ca_file: a PEM file of certificate authorities to trust instead of the usual ones.
    :param allow_http_links: download export files over plain http as well; always allowed if ``base_url`` is http.
    :param link_host: the only host from which export files may be downloaded; by default any.
    :raises ConnectionSettingsError: a value is missing or malformed.
    """

    api_key: str = field(repr=False)
    api_secret: str = field(repr=False)
    base_url: str = DEFAULT_BASE_URL
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 30.0
    write_timeout_s: float = 30.0
    pool_timeout_s: float = 30.0
    max_attempts: int = 5
    first_wait_s: float = 0.5
    longest_wait_s: float = 30.0
    rate_limit_patience_s: float = 300.0
    proxy: str | None = field(default=None, repr=False)
    ca_file: str | None = None
    allow_http_links: bool = False
    link_host: str | None = None

    def __post_init__(self) -> None:
        if not self.api_key.strip():
            raise ConnectionSettingsError(
                f"the API key is missing; set it as the connection's login, as --api-key, or in {ENV_API_KEY}"
            )
        if not self.api_secret.strip():
            raise ConnectionSettingsError(
                f"the API secret is missing; set it as the connection's password, as --api-secret, or in "
                f"{ENV_API_SECRET}"
            )
        _check_secret(self.api_secret)
        _check_address(self.base_url, "the address of the service")
        object.__setattr__(self, "base_url", self.base_url.strip().rstrip("/"))
        if self.proxy is not None:
            _check_address(self.proxy, "the address of the proxy", may_hold_password=True)
        if self.ca_file is not None and not Path(self.ca_file).is_file():
            raise ConnectionSettingsError(f"ca_file {self.ca_file!r} is not a file; set it to the path of a PEM file")
        if self.link_host is not None:
            _check_host_name(self.link_host, "link_host")
        for name in _ABOVE_ZERO:
            # NaN fails this comparison as well.
            if not 0 < getattr(self, name) <= _MAX_NUMBER:
                raise ConnectionSettingsError(
                    f"{name} is {getattr(self, name)}; set it to a number above 0, at most {_MAX_NUMBER:,.0f}"
                )
        for name in ("first_wait_s", "longest_wait_s", "rate_limit_patience_s"):
            if not 0 <= getattr(self, name) <= _MAX_NUMBER:
                raise ConnectionSettingsError(
                    f"{name} is {getattr(self, name)}; set it to a number from 0 to {_MAX_NUMBER:,.0f}"
                )

    @property
    def host(self) -> str:
        """Host and port, for messages."""
        return httpx.URL(self.base_url).netloc.decode("ascii")

    @property
    def http_links_allowed(self) -> bool:
        """Whether export files may be downloaded over plain http."""
        return self.allow_http_links or self.base_url.startswith("http://")

    @property
    def timeouts(self) -> httpx.Timeout:
        """The four timeouts, as httpx takes them."""
        return httpx.Timeout(
            connect=self.connect_timeout_s,
            read=self.read_timeout_s,
            write=self.write_timeout_s,
            pool=self.pool_timeout_s,
        )

    def pause_bound_s(self, n_failures: int) -> float:
        """Return the upper bound of the pause after ``n_failures`` in a row; it doubles up to ``longest_wait_s``."""
        return min(self.longest_wait_s, self.first_wait_s * 2.0 ** min(n_failures, 64))

    def without_retries(self) -> Self:
        """Return the same settings with a single attempt, for a caller that counts failures and pauses itself."""
        return replace(self, max_attempts=1, rate_limit_patience_s=0.0)

    def within(self, seconds: float) -> Self:
        """Return the same settings with no timeout longer than ``seconds``, for a caller with a deadline."""
        names = ("connect_timeout_s", "read_timeout_s", "write_timeout_s", "pool_timeout_s")
        return replace(self, **{name: min(seconds, getattr(self, name)) for name in names})

    @classmethod
    def from_env(
        cls,
        *,
        api_key: str | None = None,
        api_secret: str | None = None,
        base_url: str | None = None,
        environ: Mapping[str, str] = os.environ,
        **others: Any,
    ) -> Self:
        """Return settings from arguments, or else from the variables of the official SDKs (``STREAM_API_KEY``, ...).

        :raises ConnectionSettingsError: a value is missing or malformed.
        """
        return cls(
            # An empty argument is not replaced: the variables may belong to another account.
            api_key=environ.get(ENV_API_KEY, "") if api_key is None else api_key,
            api_secret=environ.get(ENV_API_SECRET, "") if api_secret is None else api_secret,
            base_url=(environ.get(ENV_BASE_URL) or DEFAULT_BASE_URL) if base_url is None else base_url,
            **others,
        )


def _check_secret(api_secret: str) -> None:
    """Refuse a key file's content in place of the secret now, instead of when the first request is signed."""
    if not is_secret(api_secret):
        raise ConnectionSettingsError(
            "the API secret is a key file's content, or not text; copy the app's secret from the service's dashboard"
        )


def _check_host_name(name: str, what: str) -> None:
    if _HOST_NAME.fullmatch(name):
        return
    try:
        ipaddress.IPv6Address(name)
    except ValueError:
        raise ConnectionSettingsError(
            f"{what} is not a host name; write the name alone, such as bucket.s3.amazonaws.com, without scheme, port, "
            "path or spaces"
        ) from None


def _check_address(address: str, what: str, *, may_hold_password: bool = False) -> None:
    try:
        url = httpx.URL(address.strip())
    except (httpx.InvalidURL, TypeError):
        url = httpx.URL("")
    # The address is quoted only if it cannot contain a password.
    shown = f" ({address[:80]!r})" if "@" not in address else ""
    if url.scheme not in ("http", "https") or not url.host:
        raise ConnectionSettingsError(
            f"{what}{shown} is malformed; write scheme and host, such as {DEFAULT_BASE_URL} or http://127.0.0.1:8080"
        )
    if not may_hold_password and (url.userinfo or url.query or url.fragment):
        raise ConnectionSettingsError(
            f"{what} contains more than scheme, host and path; remove the rest, and set key and secret in their own "
            "fields"
        )

"""How to reach the service: key, secret, address, patience. Checked once, at birth."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Self

import httpx
import jwt

from airflow_provider_chatexport.errors import ConnectionSettingsError

DEFAULT_BASE_URL: Final = "https://chat.stream-io-api.com"

# The variables that the official SDKs read.
ENV_API_KEY: Final = "STREAM_API_KEY"
ENV_API_SECRET: Final = "STREAM_API_SECRET"  # noqa: S105 - a variable's name
ENV_BASE_URL: Final = "STREAM_BASE_URL"

# Thirty years: what is longer, no clock can wait for.
_MAX_NUMBER: Final = 1e9
_ABOVE_ZERO: Final = ("connect_timeout_s", "read_timeout_s", "write_timeout_s", "pool_timeout_s", "max_attempts")
_HOST_NAME: Final = re.compile(r"\w[\w.-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSettings:
    """One account at one address, and how patient to be with it. Key, secret and proxy stay out of ``repr``.

    :param base_url: scheme and host, for a region or the sandbox; a path in it is kept as a prefix.
    :param max_attempts: how often one request is sent at most, rate limiting apart.
    :param first_wait_s: upper end of the first pause between attempts; doubled up to ``longest_wait_s``.
    :param rate_limit_patience_s: how long one request may go on being rate-limited. Exports are limited to 60 a
        minute for a whole app, so several workers may have to take turns for longer than any one pause.
    :param proxy: address of an HTTP proxy; by default what ``HTTP_PROXY``, ``HTTPS_PROXY`` and ``NO_PROXY`` say.
    :param ca_file: a PEM file of certificate authorities to trust instead of the usual ones.
    :param allow_http_links: fetch export files over plain http as well. Always so where ``base_url`` itself is http.
    :param link_host: the only host from which export files may be fetched; by default any.
    :raises ConnectionSettingsError: something is missing or malformed.
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
        _check_address(self.base_url, "the service's address")
        object.__setattr__(self, "base_url", self.base_url.strip().rstrip("/"))
        if self.proxy is not None:
            _check_address(self.proxy, "the proxy's address", may_hold_password=True)
        if self.ca_file is not None and not Path(self.ca_file).is_file():
            raise ConnectionSettingsError(f"ca_file {self.ca_file!r} is not a file; give the path of a PEM file")
        if self.link_host is not None:
            _check_host_name(self.link_host, "link_host")
        for name in _ABOVE_ZERO:
            # Asked so that it holds of no NaN.
            if not 0 < getattr(self, name) <= _MAX_NUMBER:
                raise ConnectionSettingsError(f"{name} must be more than zero and finite, not {getattr(self, name)}")
        for name in ("first_wait_s", "longest_wait_s", "rate_limit_patience_s"):
            if not 0 <= getattr(self, name) <= _MAX_NUMBER:
                raise ConnectionSettingsError(f"{name} must be zero or more and finite, not {getattr(self, name)}")

    @property
    def host(self) -> str:
        """Host and port, for messages."""
        return httpx.URL(self.base_url).netloc.decode("ascii")

    @property
    def http_links_allowed(self) -> bool:
        return self.allow_http_links or self.base_url.startswith("http://")

    @property
    def timeouts(self) -> httpx.Timeout:
        return httpx.Timeout(
            connect=self.connect_timeout_s,
            read=self.read_timeout_s,
            write=self.write_timeout_s,
            pool=self.pool_timeout_s,
        )

    def pause_bound_s(self, n_failures: int) -> float:
        """Upper end of the pause after so many failures in a row, from 0: doubled by each, up to ``longest_wait_s``."""
        return min(self.longest_wait_s, self.first_wait_s * 2.0 ** min(n_failures, 64))

    def without_retries(self) -> Self:
        """The same with a single attempt, for a caller that counts failures and makes pauses itself."""
        return replace(self, max_attempts=1, rate_limit_patience_s=0.0)

    def within(self, seconds: float) -> Self:
        """The same with no answer waited for longer than that, for a caller with a deadline."""
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
        """From arguments, and what they leave out from the variables of the official SDKs (``STREAM_API_KEY``, ...).

        :raises ConnectionSettingsError: something is missing or malformed.
        """
        return cls(
            # Empty is given: the account of the environment may be another one than was meant.
            api_key=environ.get(ENV_API_KEY, "") if api_key is None else api_key,
            api_secret=environ.get(ENV_API_SECRET, "") if api_secret is None else api_secret,
            base_url=(environ.get(ENV_BASE_URL) or DEFAULT_BASE_URL) if base_url is None else base_url,
            **others,
        )


def _check_secret(api_secret: str) -> None:
    """A key pair in the secret's place is refused by whoever signs with it: here, and not at the first request."""
    try:
        jwt.get_algorithm_by_name("HS256").prepare_key(api_secret)
    except (jwt.InvalidKeyError, ValueError):
        raise ConnectionSettingsError(
            "the API secret is no secret of this service but a key file's content, or no text; copy the app's secret "
            "from the service's dashboard"
        ) from None


def _check_host_name(name: str, what: str) -> None:
    if _HOST_NAME.fullmatch(name):
        return
    try:
        ipaddress.IPv6Address(name)
    except ValueError:
        raise ConnectionSettingsError(
            f"{what} is no host name; write the name alone, such as bucket.s3.amazonaws.com, without scheme, port, "
            "path or spaces"
        ) from None


def _check_address(address: str, what: str, *, may_hold_password: bool = False) -> None:
    try:
        url = httpx.URL(address.strip())
    except (httpx.InvalidURL, TypeError):
        url = httpx.URL("")
    # The address itself is quoted only when it cannot hold a password.
    shown = f" ({address[:80]!r})" if "@" not in address else ""
    if url.scheme not in ("http", "https") or not url.host:
        raise ConnectionSettingsError(
            f"{what}{shown} is malformed; write scheme and host, such as {DEFAULT_BASE_URL} or http://127.0.0.1:8080"
        )
    if not may_hold_password and (url.userinfo or url.query or url.fragment):
        raise ConnectionSettingsError(
            f"{what} holds more than scheme, host and path; key and secret have fields of their own"
        )

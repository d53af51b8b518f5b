"""The way to a host: the certificate authorities to trust, the proxy to use, and the connections to keep."""

from __future__ import annotations

import functools
import ssl
import urllib.request
from collections.abc import Mapping
from typing import Any, Final

import httpx

from airflow_provider_chatexport.api.settings import ServiceSettings
from airflow_provider_chatexport.errors import ConnectionSettingsError

# At most so many connections to a host. A client that has more requests at once lets them wait.
MAX_CONNECTIONS: Final = 50
KEPT_CONNECTIONS: Final = httpx.Limits(
    max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS, keepalive_expiry=5.0
)
NEW_CONNECTIONS: Final = httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=0)


class ConnectionTrace:
    """Notes whether a request opened a connection. ``note`` and ``note_async`` are the ``trace`` extension of httpx.

    A server closes connections that were idle for some time. If it does so while a request is on its way, the client
    sees a broken connection, although nothing is wrong. Such a request has to be sent again on a new connection.
    """

    def __init__(self) -> None:
        self._opened = False

    def note(self, event: str, _details: Mapping[str, Any]) -> None:
        """Note an event of the blocking transport."""
        self._opened |= event == "connection.connect_tcp.started"

    async def note_async(self, event: str, details: Mapping[str, Any]) -> None:
        """Note an event of the asyncio transport."""
        self.note(event, details)

    def is_stale(self, error: Exception) -> bool:
        """Return whether a request without a reply failed because it met a connection that the server had closed.

        A timeout is something else: the server may be busy with the request.
        """
        return not self._opened and not isinstance(error, httpx.TimeoutException)


def transport_options(settings: ServiceSettings, url: str) -> dict[str, Any]:
    """Return keyword arguments of httpx's transports for the host of a URL: trust and proxy.

    :raises ConnectionSettingsError: ``ca_file`` or the environment's proxy cannot be used.
    """
    return {"verify": _tls_context(settings.ca_file), "proxy": settings.proxy or _proxy_from_environment(url)}


@functools.lru_cache(maxsize=8)
def _tls_context(ca_file: str | None) -> ssl.SSLContext:
    # Loading the authorities takes tens of milliseconds. A triggerer with many triggers must not pay that for each.
    if ca_file is None:
        return httpx.create_ssl_context()
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConnectionSettingsError(
            f"ca_file {ca_file!r} cannot be used ({type(error).__name__}); set it to a PEM file of certificate "
            "authorities"
        ) from None


def _proxy_from_environment(url: str) -> str | None:
    parsed = httpx.URL(url)
    address = urllib.request.getproxies().get(parsed.scheme)
    if not address or urllib.request.proxy_bypass(parsed.host):
        return None
    address = address if "://" in address else f"http://{address}"
    if not address.startswith(("http://", "https://")):
        raise ConnectionSettingsError(
            f"the variable {parsed.scheme}_proxy does not name an HTTP proxy; set proxy in the connection, or add "
            f"{parsed.host} to no_proxy"
        )
    return address

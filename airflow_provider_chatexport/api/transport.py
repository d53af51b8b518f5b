"""How to reach a host: the certificate authorities to trust, and the proxy to use."""

from __future__ import annotations

import functools
import ssl
import urllib.request
from typing import Any

import httpx

from airflow_provider_chatexport.api.settings import ServiceSettings
from airflow_provider_chatexport.errors import ConnectionSettingsError


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

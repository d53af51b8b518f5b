"""The connection type ``chatexport``: login is the API key, password the API secret, host the base URL."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import httpx
from airflow.providers.common.compat.connection import get_async_connection
from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook
from airflow.sdk.log import mask_secret

from airflow_provider_chatexport.api.client import ChatExportClient
from airflow_provider_chatexport.api.settings import DEFAULT_BASE_URL, ServiceSettings
from airflow_provider_chatexport.core.discovery import ChannelPage
from airflow_provider_chatexport.errors import ChatExportError, ConnectionSettingsError
from airflow_provider_chatexport.provider_info import get_provider_info

if TYPE_CHECKING:
    from airflow.sdk import Connection

log = logging.getLogger(__name__)


class ChatExportHook(BaseHook):
    """Clients of Stream Chat's export API, configured by an Airflow connection.

    The hook fetches the connection when it makes a client, not earlier. So a DAG file or the constructor of a trigger
    may create a hook at no cost.

    :param chatexport_conn_id: a connection of type ``chatexport``.
    """

    conn_name_attr = "chatexport_conn_id"
    default_conn_name = "chatexport_default"
    conn_type = "chatexport"
    hook_name = "Stream Chat export"

    def __init__(self, chatexport_conn_id: str = default_conn_name, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.chatexport_conn_id = chatexport_conn_id

    def settings(self) -> ServiceSettings:
        """Return the settings of the service.

        :raises ConnectionSettingsError: the connection does not exist, or a field is missing or malformed.
        """
        settings = settings_from(self._connection())
        mask_secret(settings.api_secret)
        return settings

    async def async_settings(self) -> ServiceSettings:
        """Return the settings of the service, on an event loop.

        :raises ConnectionSettingsError: the connection does not exist, or a field is missing or malformed.
        """
        # No mask_secret here: Airflow masks the password of every connection that it returns.
        try:
            connection = await get_async_connection(self.chatexport_conn_id)
        except AirflowNotFoundException:
            raise _no_connection_error(self.chatexport_conn_id) from None
        return settings_from(connection)

    def pseudonym_key(self) -> str | None:
        """Return the secret that makes pseudonyms of user ids, from the connection's extra; None if there is none."""
        key = _extra_of(self._connection()).get(_PSEUDONYM_KEY)
        return None if key is None else str(key)

    def client(self) -> ChatExportClient:
        """Return a client, to be used as a context manager.

        :raises ConnectionSettingsError: the connection does not exist, or a field is missing or malformed.
        """
        return ChatExportClient(self.settings())

    def get_conn(self) -> ChatExportClient:
        """Return a client, as Airflow's hooks do under this name."""
        return self.client()

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return the labels of the connection form for Airflow 3.1; later versions read them in the provider info."""
        (connection_type,) = get_provider_info()["connection-types"]
        return {key.replace("-", "_"): value for key, value in connection_type["ui-field-behaviour"].items()}

    def test_connection(self) -> tuple[bool, str]:
        """Ask the service for one channel, which proves address, key and secret and starts nothing."""
        try:
            with self.client() as client:
                channels = client.query_channels(ChannelPage(limit=1))
        except ChatExportError as error:
            return False, error.message
        return True, f"{client.settings.host} accepts the key" + ("" if channels else "; the app has no channels yet")

    def _connection(self) -> Connection:
        try:
            return self.get_connection(self.chatexport_conn_id)
        except AirflowNotFoundException:
            raise _no_connection_error(self.chatexport_conn_id) from None


def settings_from(connection: Connection) -> ServiceSettings:
    """Return the settings of a connection.

    :raises ConnectionSettingsError: the key or the secret is missing, or a field is malformed.
    """
    return ServiceSettings(
        api_key=connection.login or "",
        api_secret=connection.password or "",
        base_url=_base_url(connection),
        **_extras(connection),
    )


def _no_connection_error(conn_id: str) -> ConnectionSettingsError:
    return ConnectionSettingsError(
        f"there is no connection {conn_id!r}; create one of type chatexport with the API key as login and the API "
        "secret as password"
    )


def _base_url(connection: Connection) -> str:
    """Return the host field, which is a whole address; or compose it: a connection URI has scheme, host, port apart.

    :raises ConnectionSettingsError: host and port field name different ports.
    """
    host = (connection.host or "").strip()
    if not host:
        return DEFAULT_BASE_URL
    address = host if "://" in host else f"{connection.schema or 'https'}://{host}"
    if not connection.port:
        return address
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL:
        return address
    if url.port not in (None, connection.port):
        raise ConnectionSettingsError(
            f"connection {connection.conn_id!r} has one port in its host and another in its port field; remove one"
        )
    return str(url.copy_with(port=connection.port))


def _extra_of(connection: Connection) -> dict[str, Any]:
    try:
        extra = json.loads(connection.extra or "{}")
    except ValueError:
        extra = None
    if not isinstance(extra, dict):
        raise ConnectionSettingsError(f"the extra of connection {connection.conn_id!r} is not a JSON object; fix it")
    return extra


def _extras(connection: Connection) -> dict[str, Any]:
    extra = _extra_of(connection)
    if unknown := sorted(set(extra) - set(_READERS) - {_PSEUDONYM_KEY}):
        log.warning("ignoring unknown extra fields of connection %s: %s", connection.conn_id, ", ".join(unknown))
    read = {}
    for name, reader in _READERS.items():
        # The connection form stores empty fields as null or "".
        if extra.get(name) in (None, ""):
            continue
        try:
            read[name] = reader(extra[name])
        except (TypeError, ValueError, OverflowError):
            raise ConnectionSettingsError(
                f"the field {name} of connection {connection.conn_id!r} cannot be read; it should be {_KINDS[reader]}"
            ) from None
    return read


def _whole(value: Any) -> int:
    """Return a whole number; ``int`` alone would accept 2.7 and true."""
    if isinstance(value, bool) or int(value) != float(value):
        raise ValueError("not a whole number")
    return int(value)


def _boolean(value: Any) -> bool:
    match str(value).lower():
        case "true" | "yes" | "1":
            return True
        case "false" | "no" | "0":
            return False
        case _:
            raise ValueError("neither true nor false")


# Not a setting of the service: loads make pseudonyms with it.
_PSEUDONYM_KEY: Final = "pseudonym_key"

_Reader = Callable[[Any], Any]

_READERS: Final[Mapping[str, _Reader]] = {
    "connect_timeout_s": float,
    "read_timeout_s": float,
    "write_timeout_s": float,
    "pool_timeout_s": float,
    "max_attempts": _whole,
    "first_wait_s": float,
    "longest_wait_s": float,
    "rate_limit_patience_s": float,
    "proxy": str,
    "ca_file": str,
    "allow_http_links": _boolean,
    "link_host": str,
}
_KINDS: Final[Mapping[_Reader, str]] = {
    float: "a number of seconds",
    _whole: "a whole number",
    str: "text",
    _boolean: "true or false",
}

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

from airflow_provider_chatexport.api.client import AsyncChatExportClient, ChatExportClient
from airflow_provider_chatexport.api.settings import DEFAULT_BASE_URL, ServiceSettings
from airflow_provider_chatexport.core.discovery import ChannelPage
from airflow_provider_chatexport.errors import ChatExportError, ConnectionSettingsError
from airflow_provider_chatexport.provider_info import get_provider_info

if TYPE_CHECKING:
    from airflow.sdk import Connection

log = logging.getLogger(__name__)


class ChatExportHook(BaseHook):
    """Clients of Stream Chat's export API, set up from an Airflow connection.

    The connection is fetched when a client is asked for, and not before: a hook may be made in a DAG file or in a
    trigger's constructor at no cost.

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
        """:raises ConnectionSettingsError: there is no such connection, or it lacks something."""
        try:
            connection = self.get_connection(self.chatexport_conn_id)
        except AirflowNotFoundException:
            raise _no_connection(self.chatexport_conn_id) from None
        settings = settings_from(connection)
        mask_secret(settings.api_secret)
        return settings

    async def async_settings(self) -> ServiceSettings:
        """The same on an event loop. Airflow itself masks the password of a connection that it hands out.

        :raises ConnectionSettingsError: there is no such connection, or it lacks something.
        """
        try:
            connection = await get_async_connection(self.chatexport_conn_id)
        except AirflowNotFoundException:
            raise _no_connection(self.chatexport_conn_id) from None
        return settings_from(connection)

    def pseudonym_key(self) -> str | None:
        """The secret that pseudonyms of users are made with, from the connection's extra."""
        try:
            connection = self.get_connection(self.chatexport_conn_id)
        except AirflowNotFoundException:
            raise _no_connection(self.chatexport_conn_id) from None
        key = _extra_of(connection).get(_PSEUDONYM_KEY)
        return None if key is None else str(key)

    def client(self) -> ChatExportClient:
        """A client to use as a context manager. :raises ConnectionSettingsError: as ``settings`` does."""
        return ChatExportClient(self.settings())

    async def async_client(self) -> AsyncChatExportClient:
        """A client to use as an async context manager. :raises ConnectionSettingsError: as ``settings`` does."""
        return AsyncChatExportClient(await self.async_settings())

    def get_conn(self) -> ChatExportClient:
        return self.client()

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """The form's labels for Airflow 3.1; later ones read them from the provider info without this class."""
        (connection_type,) = get_provider_info()["connection-types"]
        return {key.replace("-", "_"): value for key, value in connection_type["ui-field-behaviour"].items()}

    def test_connection(self) -> tuple[bool, str]:
        """Ask the service for one channel: proves address, key and secret without starting anything."""
        try:
            with self.client() as client:
                found = client.query_channels(ChannelPage(limit=1))
        except ChatExportError as error:
            return False, error.message
        seen = "and sees channels" if found else "but the app has no channels yet"
        return True, f"{client.settings.host} accepts the key {seen}"


def settings_from(connection: Connection) -> ServiceSettings:
    """The settings that a connection stands for.

    :raises ConnectionSettingsError: key or secret is missing, or a field is malformed.
    """
    return ServiceSettings(
        api_key=connection.login or "",
        api_secret=connection.password or "",
        base_url=_base_url(connection),
        **_extras(connection),
    )


def _no_connection(conn_id: str) -> ConnectionSettingsError:
    return ConnectionSettingsError(
        f"there is no connection {conn_id!r}; create one of type chatexport with the API key as login and the API "
        "secret as password"
    )


def _base_url(connection: Connection) -> str:
    """The host as it is, or put together from parts: a connection given as a URI has scheme, host and port apart."""
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
            f"connection {connection.conn_id!r} has a port in its host and another one beside it; take one of them out"
        )
    return str(url.copy_with(port=connection.port))


def _extra_of(connection: Connection) -> dict[str, Any]:
    try:
        extra = json.loads(connection.extra or "{}")
    except ValueError:
        extra = None
    if not isinstance(extra, dict):
        raise ConnectionSettingsError(f"the extra of connection {connection.conn_id!r} is not a JSON object; repair it")
    return extra


def _extras(connection: Connection) -> dict[str, Any]:
    extra = _extra_of(connection)
    if unknown := sorted(set(extra) - set(_READERS) - {_PSEUDONYM_KEY}):
        log.warning("connection %s: extra fields that mean nothing here: %s", connection.conn_id, ", ".join(unknown))
    read = {}
    for name, reader in _READERS.items():
        # The connection form stores fields that were left empty as null or "".
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
    """``int`` cuts 2.7 to 2, and takes true for 1."""
    if isinstance(value, bool) or int(value) != float(value):
        raise ValueError("no whole number")
    return int(value)


def _boolean(value: Any) -> bool:
    match str(value).lower():
        case "true" | "yes" | "1":
            return True
        case "false" | "no" | "0":
            return False
        case _:
            raise ValueError("neither true nor false")


# No setting of the service: what loads make pseudonyms with.
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

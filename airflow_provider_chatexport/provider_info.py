"""What Airflow knows about this provider: connection form, configuration, hooks, operators, sensors and triggers.

Airflow reads it without importing the hook. The fields of the connection are those of ``api.settings.ServiceSettings``.
"""

from __future__ import annotations

from typing import Any

from airflow_provider_chatexport import __version__

_INTEGRATION = "Stream Chat"


def get_provider_info() -> dict[str, Any]:
    """Return the provider info; the entry point ``apache_airflow_provider`` names this function."""
    return {
        "package-name": "airflow-provider-chatexport",
        "name": "Stream Chat export",
        "description": "Exports the history of Stream Chat through its asynchronous API to a Parquet lake.",
        "versions": [__version__],
        "integrations": [
            {
                "integration-name": _INTEGRATION,
                "external-doc-url": "https://getstream.io/chat/docs/python/exporting_channels/",
                "tags": ["service"],
            }
        ],
        "hooks": [_modules("hooks.chatexport")],
        "operators": [
            _modules(
                "operators.channels",
                "operators.export",
                "operators.gaps",
                "operators.load",
                "operators.publish",
                "operators.windowed",
            )
        ],
        "sensors": [_modules("sensors.export")],
        "triggers": [_modules("triggers.export")],
        "extra-links": ["airflow_provider_chatexport.operators.links.ExportTaskLink"],
        "config": {
            "chatexport": {"description": "Defaults for export tasks.", "options": CONFIG_OPTIONS},
        },
        "connection-types": [
            {
                "connection-type": "chatexport",
                "hook-class-name": "airflow_provider_chatexport.hooks.chatexport.ChatExportHook",
                "hook-name": "Stream Chat export",
                "ui-field-behaviour": {
                    "hidden-fields": ["schema", "port"],
                    "relabeling": {"login": "API key", "password": "API secret", "host": "Base URL"},
                    "placeholders": {"host": "https://chat.stream-io-api.com"},
                },
                "conn-fields": _CONNECTION_FIELDS,
            }
        ],
    }


def _modules(*names: str) -> dict[str, Any]:
    return {
        "integration-name": _INTEGRATION,
        "python-modules": [f"airflow_provider_chatexport.{name}" for name in names],
    }


def _seconds(label: str, default_s: float, description: str) -> dict[str, Any]:
    return {
        "label": label,
        "description": description,
        "schema": {"type": ["number", "null"], "minimum": 0, "default": default_s},
    }


def _optional_text(label: str, description: str) -> dict[str, Any]:
    return {"label": label, "description": description, "schema": {"type": ["string", "null"]}}


def _option(default_s: str, description: str) -> dict[str, Any]:
    return {
        "description": description,
        "version_added": "0.1.0",
        "type": "float",
        "example": None,
        "default": default_s,
    }


CONFIG_OPTIONS: dict[str, dict[str, Any]] = {
    "wait_timeout_s": _option("21600", "Seconds that a task waits for its exports, in all."),
    "poll_interval_s": _option(
        "0", "Seconds between two status requests. 0: grows with the age of the exports, from 1 to 60."
    ),
    "grace_period_s": _option("60", "How old the end of a window must be before it is exported, in seconds."),
}

_CONNECTION_FIELDS: dict[str, dict[str, Any]] = {
    "connect_timeout_s": _seconds("Connect time-out (s)", 10, "Seconds to wait for a connection."),
    "read_timeout_s": _seconds("Read time-out (s)", 30, "Seconds to wait for the next bytes of a reply."),
    "write_timeout_s": _seconds(
        "Write time-out (s)", 30, "Seconds to wait until the next bytes of a request are sent."
    ),
    "pool_timeout_s": _seconds("Pool time-out (s)", 30, "Seconds to wait for a free connection in the pool."),
    "max_attempts": {
        "label": "Attempts",
        "description": "The most times that one request is sent. Replies that ask to slow down (429) do not count.",
        "schema": {"type": ["integer", "null"], "minimum": 1, "default": 5},
    },
    "rate_limit_patience_s": _seconds(
        "Rate limit patience (s)", 300, "Seconds to keep repeating one request that is rate-limited."
    ),
    "proxy": _optional_text("Proxy", "Address of an HTTP proxy. Empty: the one in the environment variables."),
    "ca_file": _optional_text("CA file", "PEM file of certificate authorities to trust instead of the default ones."),
    "allow_http_links": {
        "label": "Allow plain http links",
        "description": "Fetch export files over plain http, too. Always on if the base URL itself is http.",
        "schema": {"type": "boolean", "default": False},
    },
    "pseudonym_key": {
        "label": "Pseudonym key",
        "description": "Secret with which hash_users makes pseudonyms. Use the same one for every load of a lake.",
        "schema": {"type": ["string", "null"], "format": "password"},
    },
    "link_host": _optional_text("Link host", "Fetch export files from this host only. Empty: from any host."),
}

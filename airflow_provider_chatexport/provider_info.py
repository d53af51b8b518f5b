"""What Airflow shows of this provider: its connection form, its hooks, operators, sensors and triggers.

Airflow reads this without importing the hook. The connection's fields are those of ``api.settings.ServiceSettings``.
"""

from __future__ import annotations

from typing import Any

from airflow_provider_chatexport import __version__

_INTEGRATION = "Stream Chat"


def get_provider_info() -> dict[str, Any]:
    """The answer to the entry point ``apache_airflow_provider``."""
    return {
        "package-name": "airflow-provider-chatexport",
        "name": "Stream Chat export",
        "description": "Exports Stream Chat's history through its asynchronous API to a Parquet lake.",
        "versions": [__version__],
        "integrations": [
            {
                "integration-name": _INTEGRATION,
                "external-doc-url": "https://getstream.io/chat/docs/python/exporting_channels/",
                "tags": ["service"],
            }
        ],
        "hooks": [_modules("hooks.chatexport")],
        "operators": [_modules("operators.channels", "operators.export", "operators.load")],
        "sensors": [_modules("sensors.export")],
        "triggers": [_modules("triggers.export")],
        "extra-links": ["airflow_provider_chatexport.operators.links.ExportTaskLink"],
        "config": {
            "chatexport": {"description": "Defaults of tasks that export.", "options": CONFIG_OPTIONS},
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
    "wait_timeout_s": _option("21600", "Seconds that a task waits for its exports in all."),
    "poll_interval_s": _option("0", "Seconds between two looks at an export; 0: they grow with its age from 1 to 60."),
    "grace_period_s": _option("60", "Seconds that the end of a window must be past before it is exported."),
}

_CONNECTION_FIELDS: dict[str, dict[str, Any]] = {
    "connect_timeout_s": _seconds("Connect time-out (s)", 10, "Seconds to wait for a connection."),
    "read_timeout_s": _seconds("Read time-out (s)", 30, "Seconds to wait for the next bytes of an answer."),
    "write_timeout_s": _seconds("Write time-out (s)", 30, "Seconds to wait while sending."),
    "pool_timeout_s": _seconds("Pool time-out (s)", 30, "Seconds to wait for a free connection of the pool."),
    "max_attempts": {
        "label": "Attempts",
        "description": "How often one request is sent at most. Rate limiting is waited out apart from this.",
        "schema": {"type": ["integer", "null"], "minimum": 1, "default": 5},
    },
    "rate_limit_patience_s": _seconds(
        "Rate limit patience (s)", 300, "Seconds that one request may go on being rate-limited."
    ),
    "proxy": _optional_text("Proxy", "Address of an HTTP proxy. Empty: what the environment's variables say."),
    "ca_file": _optional_text("CA file", "PEM file of certificate authorities to trust instead of the usual ones."),
    "allow_http_links": {
        "label": "Allow plain http links",
        "description": "Fetch export files over plain http as well. Always so where the base URL itself is http.",
        "schema": {"type": "boolean", "default": False},
    },
    "pseudonym_key": {
        "label": "Pseudonym key",
        "description": "Secret that hash_users makes pseudonyms with; the same one for every load of a lake.",
        "schema": {"type": ["string", "null"], "format": "password"},
    },
    "link_host": _optional_text("Link host", "The only host from which export files may be fetched. Empty: any."),
}

"""The connection: what its fields mean, and the errors if they are wrong."""

from __future__ import annotations

import math

import pytest

from airflow_provider_chatexport.api.settings import DEFAULT_BASE_URL, ServiceSettings
from airflow_provider_chatexport.errors import ConnectionSettingsError
from airflow_provider_chatexport.hooks.chatexport import ChatExportHook
from airflow_provider_chatexport.provider_info import get_provider_info


def test_the_connection_test_asks_the_service(connection) -> None:
    """A green test must mean that address, key and secret are right."""
    ok, message = ChatExportHook().test_connection()
    assert ok, message
    assert "accepts the key" in message


def test_the_connection_test_says_what_is_wrong(sandbox, set_connection) -> None:
    """A red test must say which of them is wrong."""
    set_connection(login=sandbox.api_key, password="a-wrong-secret-of-more-than-32-bytes", host=sandbox.url)
    ok, message = ChatExportHook().test_connection()
    assert not ok
    assert "API secret (password)" in message


def test_the_connection_test_recognizes_a_key_file(sandbox, set_connection) -> None:
    """A PEM file as the password must not end in an error of the library that signs tokens."""
    pem = "-----BEGIN PUBLIC KEY-----\nabc\n-----END PUBLIC KEY-----"
    set_connection(login=sandbox.api_key, password=pem, host=sandbox.url)
    ok, message = ChatExportHook().test_connection()
    assert not ok
    assert "a key file's content" in message


async def test_both_ways_to_the_settings_agree(connection) -> None:
    """A worker and a triggerer must use the same settings."""
    hook = ChatExportHook()
    assert await hook.async_settings() == hook.settings()


def test_a_new_hook_does_not_fetch_the_connection() -> None:
    """DAG files create hooks while Airflow parses them, and triggers in the triggerer's loop."""
    assert ChatExportHook("nowhere").chatexport_conn_id == "nowhere"


@pytest.mark.parametrize(
    ("fields", "base_url"),
    [
        ({}, DEFAULT_BASE_URL),
        ({"host": "https://chat.example/"}, "https://chat.example"),
        ({"host": "chat.example"}, "https://chat.example"),
        ({"host": "127.0.0.1", "port": 8080, "schema": "http"}, "http://127.0.0.1:8080"),
        ({"host": "http://chat.example/", "port": 8900}, "http://chat.example:8900"),
        ({"host": "http://chat.example:8900", "port": 8900}, "http://chat.example:8900"),
        ({"host": "https://chat.example/prefix/", "port": 8900}, "https://chat.example:8900/prefix"),
    ],
)
def test_the_host_is_read_as_people_write_it(set_connection, fields, base_url) -> None:
    """The form has a field for the address; a connection URI has its parts."""
    set_connection(login="k", password="s", **fields)
    assert ChatExportHook().settings().base_url == base_url


def test_every_field_of_the_form_reaches_the_settings(set_connection) -> None:
    """A field without effect would mislead."""
    (form,) = get_provider_info()["connection-types"]
    changed = {
        "connect_timeout_s": 1.5,
        "read_timeout_s": 2.5,
        "write_timeout_s": 3.5,
        "pool_timeout_s": 4.5,
        "max_attempts": 9,
        "rate_limit_patience_s": 5.5,
        "proxy": "http://proxy.example:3128",
        "ca_file": __file__,
        "allow_http_links": True,
        "link_host": "files.example",
    }
    # The pseudonym key is not a setting of the service: loads use it.
    assert set(changed) == set(form["conn-fields"]) - {"pseudonym_key"}
    set_connection(login="k", password="s", extra=changed)
    settings = ChatExportHook().settings()
    assert {name: getattr(settings, name) for name in changed} == changed


def test_the_forms_defaults_are_those_of_the_settings() -> None:
    """An unchanged form must have the same effect as no form."""
    (form,) = get_provider_info()["connection-types"]
    defaults = ServiceSettings(api_key="k", api_secret="s")
    for name, field in form["conn-fields"].items():
        assert field["schema"].get("default") == getattr(defaults, name, None), name


def test_the_pseudonym_key_comes_from_the_connection(set_connection) -> None:
    """A secret in the arguments of a DAG would be written to the metadata database."""
    set_connection(login="k", password="s", extra={"pseudonym_key": "of the lake"})
    assert ChatExportHook().pseudonym_key() == "of the lake"


def test_an_older_airflow_gets_the_same_labels() -> None:
    """3.1 reads them from the class, later versions from the provider info."""
    behaviour = ChatExportHook.get_ui_field_behaviour()
    assert behaviour["relabeling"]["password"] == "API secret"
    assert set(behaviour) == {"hidden_fields", "relabeling", "placeholders"}


def test_empty_fields_of_the_form_mean_the_defaults(set_connection) -> None:
    """The form stores an empty field as null or as empty text; numbers may be text."""
    set_connection(login="k", password="s", extra={"proxy": "", "max_attempts": None, "read_timeout_s": "12"})
    settings = ChatExportHook().settings()
    assert (settings.proxy, settings.max_attempts, settings.read_timeout_s) == (None, 5, 12.0)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"login": "", "password": "s"}, "API key is missing"),
        ({"login": "k"}, "API secret is missing"),
        ({"login": "k", "password": "s", "extra": {"max_attempts": "many"}}, "max_attempts .* a whole number"),
        ({"login": "k", "password": "s", "extra": {"allow_http_links": "maybe"}}, "allow_http_links .* true or false"),
        ({"login": "k", "password": "s", "extra": {"max_attempts": math.inf}}, "max_attempts .* a whole number"),
        ({"login": "k", "password": "s", "extra": {"max_attempts": 2.7}}, "max_attempts .* a whole number"),
        ({"login": "k", "password": "s", "extra": {"max_attempts": True}}, "max_attempts .* a whole number"),
        ({"login": "k", "password": "s", "extra": {"read_timeout_s": math.nan}}, "read_timeout_s is nan"),
        ({"login": "k", "password": "s", "extra": {"read_timeout_s": 10**400}}, "read_timeout_s .* number of seconds"),
        ({"login": "k", "password": "s", "host": "gopher://x"}, "malformed"),
        ({"login": "k", "password": "s", "host": "::1", "port": 8900}, "malformed"),
        (
            {"login": "k", "password": "s", "host": "http://h:1", "port": 2},
            "one port in its host and another",
        ),
    ],
)
def test_an_error_names_the_wrong_field(set_connection, fields, sentence) -> None:
    """One sentence, with the name of the field."""
    set_connection(**fields)
    with pytest.raises(ConnectionSettingsError, match=sentence):
        ChatExportHook().settings()

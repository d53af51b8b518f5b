"""Settings are checked at birth, with a sentence that says where to set what is missing."""

from __future__ import annotations

import math
from typing import Any

import pytest

from airflow_provider_chatexport.api.client import ChatExportClient
from airflow_provider_chatexport.api.settings import DEFAULT_BASE_URL, ServiceSettings
from airflow_provider_chatexport.errors import ConnectionSettingsError

GOOD = {"api_key": "the-key", "api_secret": "the-secret"}


def test_the_variables_of_the_official_sdks_are_read() -> None:
    """Who has an SDK set up has this set up."""
    environ = {"STREAM_API_KEY": "k1", "STREAM_API_SECRET": "s1", "STREAM_BASE_URL": "http://127.0.0.1:9/"}
    settings = ServiceSettings.from_env(environ=environ)
    assert (settings.api_key, settings.api_secret, settings.base_url) == ("k1", "s1", "http://127.0.0.1:9")


def test_arguments_win_over_variables() -> None:
    """An option on the command line is meant."""
    settings = ServiceSettings.from_env(api_key="k2", environ={"STREAM_API_KEY": "k1", "STREAM_API_SECRET": "s1"})
    assert (settings.api_key, settings.base_url) == ("k2", DEFAULT_BASE_URL)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"api_key": ""}, r"API key is missing.*login.*STREAM_API_KEY"),
        ({"api_secret": " "}, r"API secret is missing.*password.*STREAM_API_SECRET"),
        ({"base_url": "chat.example"}, r"'chat.example'.*malformed; write scheme and host"),
        ({"base_url": "ftp://chat.example"}, r"malformed"),
        ({"base_url": "https://"}, r"malformed"),
        ({"base_url": "https://user:hidden@chat.example"}, r"fields of their own"),
        ({"base_url": "https://chat.example?api_key=hidden"}, r"fields of their own"),
        ({"proxy": "proxy.example:hidden@x"}, r"the proxy's address is malformed"),
        ({"ca_file": "/no/such/file.pem"}, r"is not a file"),
        ({"read_timeout_s": 0}, r"read_timeout_s must be more than zero"),
        ({"connect_timeout_s": math.nan}, r"connect_timeout_s must be more than zero and finite, not nan"),
        ({"pool_timeout_s": math.inf}, r"pool_timeout_s must be more than zero and finite, not inf"),
        ({"write_timeout_s": 1e300}, r"write_timeout_s"),
        ({"max_attempts": math.inf}, r"max_attempts"),
        ({"first_wait_s": -1}, r"first_wait_s must be zero or more"),
        ({"longest_wait_s": math.nan}, r"longest_wait_s"),
        ({"rate_limit_patience_s": -1}, r"rate_limit_patience_s"),
        ({"api_secret": "-----BEGIN PUBLIC KEY-----\nhidden\n-----END PUBLIC KEY-----"}, r"secret.*a key file's"),
        ({"api_secret": "ssh-ed25519 hidden"}, r"secret.*a key file's"),
        ({"api_secret": "hidden\ud800"}, r"secret.*no text"),
        ({"link_host": "https://bucket.example"}, r"link_host is no host name; write the name alone"),
        ({"link_host": "bucket.example:443"}, r"link_host"),
        ({"link_host": " bucket.example"}, r"link_host"),
        ({"link_host": ""}, r"link_host"),
    ],
)
def test_what_is_missing_or_malformed_is_refused(wrong, sentence) -> None:
    """Half-set settings would fail later, further away, and less clearly."""
    with pytest.raises(ConnectionSettingsError, match=sentence) as caught:
        ServiceSettings(**{**GOOD, **wrong})
    assert "hidden" not in str(caught.value)


def test_no_pause_and_a_host_of_any_kind_are_settings() -> None:
    """Tests and triggers make no pauses; a host may be a number."""
    for link_host in ("Bucket.s3.amazonaws.com", "127.0.0.1", "::1", "my_bucket.example"):
        settings = ServiceSettings(
            **GOOD, first_wait_s=0, longest_wait_s=0, rate_limit_patience_s=0, link_host=link_host
        )
        assert settings.without_retries().link_host == link_host


def test_nothing_secret_is_in_the_repr() -> None:
    """A repr ends up in logs."""
    settings = ServiceSettings(**GOOD, proxy="http://user:password@proxy.example:3128")
    assert not any(secret in repr(settings) for secret in ("the-key", "the-secret", "password"))


def test_a_file_that_holds_no_authority_is_refused(tmp_path) -> None:
    """A wrong ca_file must not fail as a lost connection later."""
    ca_file = tmp_path / "ca.pem"
    ca_file.write_text("nothing to trust")
    others: dict[str, Any] = {**GOOD, "ca_file": str(ca_file)}
    with pytest.raises(ConnectionSettingsError, match="cannot be used"):
        ChatExportClient(ServiceSettings(**others))

"""Settings are checked when they are created; the error says where to set a missing value."""

from __future__ import annotations

import math
from typing import Any

import pytest

from airflow_provider_chatexport.api.client import ChatExportClient
from airflow_provider_chatexport.api.settings import DEFAULT_BASE_URL, ServiceSettings
from airflow_provider_chatexport.errors import ConnectionSettingsError

GOOD = {"api_key": "the-key", "api_secret": "the-secret"}


def test_the_variables_of_the_official_sdks_are_read() -> None:
    """A machine that is set up for an SDK must need no further settings."""
    environ = {"STREAM_API_KEY": "k1", "STREAM_API_SECRET": "s1", "STREAM_BASE_URL": "http://127.0.0.1:9/"}
    settings = ServiceSettings.from_env(environ=environ)
    assert (settings.api_key, settings.api_secret, settings.base_url) == ("k1", "s1", "http://127.0.0.1:9")


def test_arguments_win_over_variables() -> None:
    """An option on the command line must beat the environment."""
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
        ({"base_url": "https://user:hidden@chat.example"}, r"in their own fields"),
        ({"base_url": "https://chat.example?api_key=hidden"}, r"in their own fields"),
        ({"proxy": "proxy.example:hidden@x"}, r"the address of the proxy is malformed"),
        ({"ca_file": "/no/such/file.pem"}, r"is not a file"),
        ({"read_timeout_s": 0}, r"read_timeout_s is 0; set it to a number above 0"),
        ({"connect_timeout_s": math.nan}, r"connect_timeout_s is nan; set it to a number above 0"),
        ({"pool_timeout_s": math.inf}, r"pool_timeout_s is inf; set it to a number above 0"),
        ({"write_timeout_s": 1e300}, r"write_timeout_s"),
        ({"max_attempts": math.inf}, r"max_attempts"),
        ({"first_wait_s": -1}, r"first_wait_s is -1; set it to a number from 0 to"),
        ({"longest_wait_s": math.nan}, r"longest_wait_s"),
        ({"rate_limit_patience_s": -1}, r"rate_limit_patience_s"),
        ({"api_secret": "-----BEGIN PUBLIC KEY-----\nhidden\n-----END PUBLIC KEY-----"}, r"secret.*a key file's"),
        ({"api_secret": "ssh-ed25519 hidden"}, r"secret.*a key file's"),
        ({"api_secret": "hidden\ud800"}, r"secret.*not text"),
        ({"link_host": "https://bucket.example"}, r"link_host is not a host name; write the name alone"),
        ({"link_host": "bucket.example:443"}, r"link_host"),
        ({"link_host": " bucket.example"}, r"link_host"),
        ({"link_host": ""}, r"link_host"),
    ],
)
def test_a_missing_or_malformed_value_is_refused(wrong, sentence) -> None:
    """A wrong value would otherwise fail later, elsewhere and less clearly."""
    with pytest.raises(ConnectionSettingsError, match=sentence) as caught:
        ServiceSettings(**{**GOOD, **wrong})
    assert "hidden" not in str(caught.value)


def test_pauses_of_zero_and_hosts_of_any_form_are_accepted() -> None:
    """Tests and triggers do not pause between attempts; a host may be an IP address."""
    for link_host in ("Bucket.s3.amazonaws.com", "127.0.0.1", "::1", "my_bucket.example"):
        settings = ServiceSettings(
            **GOOD, first_wait_s=0, longest_wait_s=0, rate_limit_patience_s=0, link_host=link_host
        )
        assert settings.without_retries().link_host == link_host


def test_the_repr_contains_no_secret() -> None:
    """Logs contain reprs."""
    settings = ServiceSettings(**GOOD, proxy="http://user:password@proxy.example:3128")
    assert not any(secret in repr(settings) for secret in ("the-key", "the-secret", "password"))


def test_a_ca_file_without_an_authority_is_refused(tmp_path) -> None:
    """A wrong ca_file must not look like a lost connection later."""
    ca_file = tmp_path / "ca.pem"
    ca_file.write_text("nothing to trust")
    others: dict[str, Any] = {**GOOD, "ca_file": str(ca_file)}
    with pytest.raises(ConnectionSettingsError, match="cannot be used"):
        ChatExportClient(ServiceSettings(**others))

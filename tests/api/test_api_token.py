"""The token of a request, which this package signs itself: PyJWT, as the service has it in any language, accepts it."""

from __future__ import annotations

import jwt
import pytest

from airflow_provider_chatexport.api.token import is_secret, server_token


@pytest.mark.parametrize("secret", ["s", "sandbox-secret-not-for-production-use", "größer €", "x" * 1_000])
def test_pyjwt_reads_the_token(secret: str) -> None:
    """Signature, header and claims are those of the standard, for any secret."""
    token = server_token(secret, expires_epoch_s=4_000_000_000)
    assert {"server": True, "exp": 4_000_000_000} == jwt.decode(token, secret, algorithms=["HS256"])
    assert token == jwt.encode({"server": True, "exp": 4_000_000_000}, secret, algorithm="HS256")
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(token, f"{secret}.", algorithms=["HS256"])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----",
        "ssh-rsa AAAA",
        "ecdsa-sha2-nistp256 AAAA",
        '{"kty": "oct", "k": "AAAA"}',
        "half \ud83d",
    ],
)
def test_what_cannot_be_a_secret_is_refused(text: str) -> None:
    """PyJWT refuses keys of other kinds as well: they would sign, and the service would refuse every request."""
    assert not is_secret(text)

"""The token of a request: a JSON Web Token, signed with the app's secret (RFC 7519, HS256).

Python's own ``hmac`` signs it. PyJWT would do the same. But it imports ``cryptography`` for algorithms that the service
does not have, in every process of a task.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Final

# How files of keys begin: PEM, SSH, and JSON Web Keys.
_IN_KEY_FILES: Final = ("-----BEGIN ", "---- BEGIN ", '"kty"')
_SSH_KEYS: Final = ("ssh-", "ecdsa-sha2-")


def server_token(api_secret: str, *, expires_epoch_s: int) -> str:
    """Return a token for a server, which names no user ("Tokens & Authentication")."""
    claims = {"server": True, "exp": expires_epoch_s}
    signed = b".".join(_base64url(_json(part)) for part in ({"alg": "HS256", "typ": "JWT"}, claims))
    signature = hmac.digest(api_secret.encode(), signed, hashlib.sha256)
    return (signed + b"." + _base64url(signature)).decode()


def is_secret(text: str) -> bool:
    """Return whether a text can be an app's secret.

    It is not empty, has no half characters, and is not the content of a key file.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return bool(text) and not text.startswith(_SSH_KEYS) and not any(part in text for part in _IN_KEY_FILES)


def _json(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")

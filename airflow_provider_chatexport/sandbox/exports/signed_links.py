"""Signed links of the file host: a client with a link may fetch one file until the link expires, without a key."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, urlencode

from airflow_provider_chatexport.sandbox.clock import Clock

# "Exporting Data": the link expires after 24 hours.
LINK_LIFE_S: Final = 24 * 3600


class LinkRefusedError(Exception):
    """The file host refuses this link. ``reason`` has S3's wording."""

    def __init__(self, reason: str, s3_code: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.s3_code = s3_code


class SignedLinks:
    """Signs and checks links with a key that never leaves the process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._key = secrets.token_bytes(32)

    def sign(self, origin: str, path: str) -> str:
        """Return a link to ``path`` at ``origin`` (scheme and host): another one at every call, valid for 24 hours."""
        expires, nonce = str(int(self._clock.now_s()) + LINK_LIFE_S), secrets.token_hex(8)
        query = {"expires": expires, "nonce": nonce, "signature": self._signature(path, expires, nonce)}
        return f"{origin}{quote(path)}?{urlencode(query)}"

    def check(self, path: str, query: Mapping[str, str]) -> None:
        """Check a link.

        :raises LinkRefusedError: the link is not signed, not by this key, or has expired.
        """
        expires, nonce, signature = (query.get(name, "") for name in ("expires", "nonce", "signature"))
        if not signature:
            raise LinkRefusedError("Access Denied", "AccessDenied")
        if not hmac.compare_digest(signature.encode(), self._signature(path, expires, nonce).encode()):
            raise LinkRefusedError(
                "The request signature we calculated does not match the signature you provided",
                "SignatureDoesNotMatch",
            )
        if self._clock.now_s() >= int(expires):
            raise LinkRefusedError("Request has expired", "AccessDenied")

    def _signature(self, path: str, expires: str, nonce: str) -> str:
        return hmac.new(self._key, f"{path}\n{expires}\n{nonce}".encode(), hashlib.sha256).hexdigest()

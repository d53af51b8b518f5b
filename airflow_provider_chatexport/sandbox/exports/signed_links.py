"""Signed links of the file host: a client with a link may fetch one file until the link expires, without a key.

Links to export files live for a day, links to attachments for two weeks. Each reply and each export has new ones.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote, urlencode

from airflow_provider_chatexport.sandbox.clock import Clock

# "Exporting Data": the link expires after 24 hours.
LINK_LIFE_S: Final = 24 * 3600
# "File Uploads": links to attachments end after 14 days, and reading the message again makes new ones.
ATTACHMENT_LINK_LIFE_S: Final = 14 * 24 * 3600
ATTACHMENTS_PATH: Final = "/download/attachments"

RenewLinks = Callable[[dict[str, Any]], dict[str, Any]]

_URL_FIELDS: Final = ("image_url", "asset_url", "thumb_url")
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]+")


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
        self.reset()

    def reset(self) -> None:
        """Create a new key, so that all earlier links are refused."""
        self._key = secrets.token_bytes(32)

    def sign(self, origin: str, path: str) -> str:
        """Return a link to ``path`` at ``origin`` (scheme and host): another one at every call, valid for 24 hours."""
        expires, nonce = str(int(self._clock.now_s()) + LINK_LIFE_S), secrets.token_hex(8)
        query = {"expires": expires, "nonce": nonce, "signature": self._signature(path, expires, nonce)}
        return f"{origin}{quote(path)}?{urlencode(query)}"

    def attachment_links(self, origin: str) -> RenewLinks:
        """Return a function that points the attachments of a message to the file host at ``origin``, for 14 days.

        The query has ``Expires`` in unix seconds, as the service's CDN has it ("File Uploads"). Only addresses that the
        sandbox made up itself change, which are those after ``og_scrape_url``; a control call's address stays.
        """
        expires = str(int(self._clock.now_s()) + ATTACHMENT_LINK_LIFE_S)

        def link(message_id: str, position: int, field: str, url: str) -> str:
            folder = "files" if field == "asset_url" else "images"
            key = hashlib.blake2b(f"{message_id} {position} {field}".encode(), digest_size=16).hexdigest()
            name = _UNSAFE.sub("-", url.partition("?")[0].rstrip("/").rpartition("/")[2])[-80:] or "file"
            path = f"{ATTACHMENTS_PATH}/{folder}/{key}.{name}"
            signature = self._signature(path, expires, "")
            return f"{origin}{path}?{urlencode({'Key-Pair-Id': 'SANDBOX', 'Expires': expires, 'Signature': signature})}"

        def linked(message_id: str, position: int, attachment: dict[str, Any]) -> dict[str, Any]:
            source = attachment.get("og_scrape_url")
            fields = [name for name in _URL_FIELDS if source and attachment.get(name) in (source, f"{source}.jpg")]
            return {**attachment, **{name: link(message_id, position, name, attachment[name]) for name in fields}}

        def with_links(message: dict[str, Any]) -> dict[str, Any]:
            quoted = message.get("quoted_message")
            if quoted and quoted["attachments"]:
                message = {**message, "quoted_message": with_links(quoted)}
            if not message["attachments"]:
                return message
            attachments = [linked(message["id"], at, each) for at, each in enumerate(message["attachments"])]
            return {**message, "attachments": attachments}

        return with_links

    def check(self, path: str, query: Mapping[str, str]) -> None:
        """Check a link.

        :raises LinkRefusedError: the link is not signed, not by this key, or has expired.
        """
        is_attachment = path.startswith(ATTACHMENTS_PATH)
        names = ("Expires", "Signature") if is_attachment else ("expires", "signature")
        expires, signature = (query.get(name, "") for name in names)
        nonce = query.get("nonce", "")
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

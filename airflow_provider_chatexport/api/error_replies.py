"""What the service's error replies mean, and what may be said about them.

Status and code numbers are those of "API Error Codes" in the service's documentation.
"""

from __future__ import annotations

import email.utils
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from airflow_provider_chatexport.api.settings import ServiceSettings
from airflow_provider_chatexport.errors import (
    NotFoundError,
    RateLimitedError,
    RequestRefusedError,
    ServiceError,
    ServiceUnavailableError,
    UnauthorizedError,
    UnexpectedReplyError,
)

# Codes of a 401 that are about the token's times: expired, not yet valid, used before it was issued.
_CLOCK_CODES: Final = frozenset({40, 41, 42})
_MAX_QUOTED_CHARS: Final = 300
_ABOUT_THE_REQUEST: Final = re.compile(r"can'?t find|channel|user", re.IGNORECASE)
# Statuses of a request that is too large.
_TOO_MUCH: Final = (413, 431)
# "Can't find channel with id ..." is what the SDKs' tests show.
_MISSING: Final = re.compile(r"can'?t find|not found|does(?:n'?t| not) exist|deleted", re.IGNORECASE)

_LINK: Final = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s\"'<>]+", re.IGNORECASE)
_WORD: Final = re.compile(r"[^\s\"'<>]+")
# What makes a link a credential, also where the link has lost its scheme, or is quoted in another one's query.
_SIGNED: Final = re.compile(r"(?:signature|token|credential|\bsig)(?:=|%3d)", re.IGNORECASE)
_TOKEN: Final = re.compile(r"\beyJ[\w-]+\.[\w-]*\.?[\w-]*")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]+")
# '<operation> failed with error: "<inner>"': only the inner part says something.
_WRAPPED: Final = re.compile(r'\w+ failed with error: "(.*)"\s*', re.DOTALL)
# Statuses that say the same whoever gives them: a gateway's "too many requests" is to be heeded as the service's is.
_ANYBODYS: Final = frozenset({408, 429, *_TOO_MUCH})


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A whole answer. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def parse_json(body: bytes) -> Any:
    """:raises ValueError: the body is not JSON, or holds NaN or Infinity, which JSON does not have."""
    return json.loads(body, parse_constant=_refuse_constant)


def scrub(text: str, settings: ServiceSettings | None = None) -> str:
    """Text from outside as it may be quoted: no link, token, key or secret, no control characters, 300 characters."""
    if settings is not None:
        for secret in (settings.api_secret, settings.api_key):
            text = text.replace(secret, "<hidden>")
    text = _WORD.sub(_unsigned, _LINK.sub("<link>", text))
    text = _TOKEN.sub("<hidden>", text)
    text = _CONTROL.sub(" ", text).strip()
    return text if len(text) <= _MAX_QUOTED_CHARS else text[:_MAX_QUOTED_CHARS] + "..."


def error_from(reply: Reply, *, doing: str, settings: ServiceSettings, now_epoch_s: float) -> ServiceError:
    """The error for a reply that is no success. Never raises, whatever the body is."""
    code, inner, unrecoverable = _read_error_body(reply.body)
    said = scrub(inner, settings) if inner else "no readable error body"
    coded = f"HTTP {reply.status}" if code is None else f"HTTP {reply.status}, code {code}"
    facts: dict[str, Any] = {"http_status": reply.status, "code": code}
    if reply.status in (429, 503):
        facts["retry_after_s"] = read_retry_after(reply.headers, status=reply.status, now_epoch_s=now_epoch_s)
    if code is None and 400 <= reply.status < 500 and reply.status not in _ANYBODYS:
        # Every error of the service has a number. Taken for its word, a gateway's 404 would be an export that is lost,
        # and a firewall's 403 a wrong key.
        return UnexpectedReplyError(
            f"{doing} failed: {settings.host} answered HTTP {reply.status} with something that is no error of the chat "
            "API, as a gateway, a proxy or a firewall does; try again later, and if it stays so, check the address and "
            "the proxy",
            **facts,
        )
    kind: type[ServiceError]
    match reply.status:
        case 401 | 403:
            kind, what, cure = UnauthorizedError, "was refused", _cure_refusal(reply.status, code)
        case status if 400 <= status < 500 and "can't find task" in said.lower():
            kind, what = NotFoundError, "found nothing"
            cure = "check the id and that the key is of the same app; the service forgets exports after 60 days"
        # 404 or 400 for a channel or user that does not exist: either way it is the request that has to change.
        case 404 if not _ABOUT_THE_REQUEST.search(said):
            kind, what, cure = NotFoundError, "found nothing", "check the address"
        case 429:
            kind, what, cure = RateLimitedError, "was rate-limited", "let fewer exports run at once, or try again later"
        case 408:
            kind, what, cure = ServiceUnavailableError, "took the service too long", "try again later"
        case status if 400 <= status < 500:
            kind, what, cure = RequestRefusedError, "was refused", _cure_request(status, said)
            facts["is_missing"] = _MISSING.search(said) is not None
            facts["may_be_of_a_part"] = status in _TOO_MUCH or "channel" in said.lower()
        case status if status >= 500 and unrecoverable:
            facts["retryable"] = False
            kind, what, cure = (
                ServiceUnavailableError,
                "failed for good",
                "the service says that repeating is of no use",
            )
        case status if status >= 500:
            kind, what, cure = ServiceUnavailableError, "failed", "the service has a problem, try again later"
        case _:
            kind, what, cure = UnexpectedReplyError, "failed", "the chat API never answers so; check the address"
    return kind(f"{doing} {what}: {settings.host} says: {said} ({coded}); {cure}", **facts)


def read_retry_after(headers: Mapping[str, str], *, status: int, now_epoch_s: float) -> float | None:
    """Seconds until the host wants to hear from us again: ``Retry-After`` (seconds or an HTTP date), and for a 429 else
    ``X-RateLimit-Reset`` (unix seconds). A value may be a comma list; the SDKs take its first non-empty part.
    """
    # The service's own clock, where it tells it: ours may be off by more than the pause is long.
    now_epoch_s = _http_date(headers.get("date", "")) or now_epoch_s
    wanted = headers.get("retry-after", "")
    if (at := _http_date(wanted)) is not None:
        return max(0.0, at - now_epoch_s)
    if (seconds := _first_number(wanted)) is not None:
        return seconds
    # Every answer tells when the limit's window ends; only to who has used it up does that matter.
    if status == 429 and (reset := _first_number(headers.get("x-ratelimit-reset", ""))) is not None:
        return max(0.0, reset - now_epoch_s)
    return None


def _unsigned(word: re.Match[str]) -> str:
    return "<link>" if _SIGNED.search(word[0]) else word[0]


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _read_error_body(body: bytes) -> tuple[int | None, str, bool]:
    try:
        value = parse_json(body)
    except (ValueError, RecursionError):
        return None, "", False
    if not isinstance(value, dict):
        return None, "", False
    code, message = value.get("code"), value.get("message")
    inner = message if isinstance(message, str) else ""
    if wrapped := _WRAPPED.fullmatch(inner):
        inner = wrapped.group(1)
    known_code = code if isinstance(code, int) and not isinstance(code, bool) else None
    return known_code, inner, value.get("unrecoverable") is True


def _cure_refusal(status: int, code: int | None) -> str:
    if code in _CLOCK_CODES:
        return "tokens are made for each request, so this machine's clock is probably wrong"
    if status == 403:
        return "check what this API key may do, and that the app is not suspended"
    return "check the API key (login) and the API secret (password)"


def _cure_request(status: int, said: str) -> str:
    if "channel" in said.lower():
        return "check the channels: one that does not exist or is deleted makes the service refuse the request"
    if "user" in said.lower():
        return "check the user ids"
    if status in _TOO_MUCH:
        return "ask for fewer at once"
    return "change the request; repeating it as it is cannot help"


def _first_number(value: str) -> float | None:
    part = next((part.strip() for part in value.split(",") if part.strip()), "")
    # No more than ten digits: an absurd number must not become an infinite pause.
    return float(part) if re.fullmatch(r"\d{1,10}(\.\d{1,6})?", part, re.ASCII) else None


def _http_date(value: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(value).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None

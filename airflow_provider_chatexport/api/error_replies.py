"""The service's error replies as errors, quoting only what may be quoted.

Statuses and codes are those of "API Error Codes" in the service's documentation.
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
    ApiBudgetError,
    NotFoundError,
    RateLimitedError,
    RequestRefusedError,
    ServiceError,
    ServiceUnavailableError,
    UnauthorizedError,
    UnexpectedReplyError,
)

# Codes of a 401 because of the token's times: expired, not valid yet, used before it was issued.
_CLOCK_CODES: Final = frozenset({40, 41, 42})
_MAX_QUOTED_CHARS: Final = 300
_ABOUT_THE_REQUEST: Final = re.compile(r"can'?t find|channel|user", re.IGNORECASE)
_TOO_LARGE_STATUSES: Final = (413, 431)
# "API Budget": how many milliseconds of database time the app has used, may use, and has left in a sliding minute.
_BUDGET_HEADERS: Final = {
    "used_ms": "x-budget-used-ms",
    "limit_ms": "x-budget-limit-ms",
    "remaining_ms": "x-budget-remaining-ms",
}
# The tests of the SDKs show "Can't find channel with id ...".
_MISSING: Final = re.compile(r"can'?t find|not found|does(?:n'?t| not) exist|deleted", re.IGNORECASE)

_TOO_LARGE_A_USER: Final = re.compile(
    r"10[,._ ]?000\b.*\b(?:messages|reactions)|too many (?:messages|reactions)", re.IGNORECASE | re.DOTALL
)
REMEDY_FOR_TOO_LARGE_A_USER: Final = (
    "the service exports users with at most 10,000 messages and 10,000 reactions. Export the channels of this user "
    "instead, or ask the service's support for an export"
)

_LINK: Final = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s\"'<>]+", re.IGNORECASE)
_WORD: Final = re.compile(r"[^\s\"'<>]+")
# What makes a link a credential. A link may have lost its scheme, or stand inside the query of another link.
_SIGNATURE: Final = re.compile(r"(?:signature|token|credential|\bsig)(?:=|%3d)", re.IGNORECASE)
_TOKEN: Final = re.compile(r"\beyJ[\w-]+\.[\w-]*\.?[\w-]*")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]+")
# '<operation> failed with error: "<inner>"': only the inner part is informative.
_WRAPPED: Final = re.compile(r'\w+ failed with error: "(.*)"\s*', re.DOTALL)
# These mean the same whether the service or a gateway answers.
_STATUSES_OF_ANY_HOST: Final = frozenset({408, 429, *_TOO_LARGE_STATUSES})


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A whole HTTP response. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _ErrorBody:
    code: int | None = None
    message: str = ""
    is_unrecoverable: bool = False


def parse_json(body: bytes) -> Any:
    """Parse strict JSON.

    :raises ValueError: the body is not JSON, or contains NaN or Infinity.
    """
    return json.loads(body, parse_constant=_refuse_constant)


def scrub(text: str, settings: ServiceSettings | None = None) -> str:
    """Return text from outside in a form that may be quoted.

    Links, tokens, the key and the secret are replaced, control characters become spaces, and the text is cut after 300
    characters.
    """
    if settings is not None:
        for secret in (settings.api_secret, settings.api_key):
            text = text.replace(secret, "<hidden>")
    text = _WORD.sub(_hide_signed, _LINK.sub("<link>", text))
    text = _TOKEN.sub("<hidden>", text)
    text = _CONTROL.sub(" ", text).strip()
    return text if len(text) <= _MAX_QUOTED_CHARS else text[:_MAX_QUOTED_CHARS] + "..."


def error_from(reply: Reply, *, doing: str, settings: ServiceSettings, now_epoch_s: float) -> ServiceError:
    """Return the error that an unsuccessful reply stands for. Never raises, whatever the body is."""
    body = _read_error_body(reply.body)
    facts: dict[str, Any] = {"http_status": reply.status, "code": body.code}
    if reply.status in (429, 503):
        facts["retry_after_s"] = read_retry_after(reply.headers, status=reply.status, now_epoch_s=now_epoch_s)
    if body.code is None and 400 <= reply.status < 500 and reply.status not in _STATUSES_OF_ANY_HOST:
        # Every error of the service has a code. Without this check a gateway's 404 would mean that an export is lost,
        # and a firewall's 403 would mean a wrong key.
        return UnexpectedReplyError(
            f"{doing} failed: {settings.host} answered HTTP {reply.status}, but not with an error of the chat API; a "
            "gateway, a proxy or a firewall may have answered. Try again later; if it persists, check the address and "
            "the proxy",
            **facts,
        )
    quoted = scrub(body.message, settings) if body.message else "no readable error body"
    if _is_budget_refusal(reply.status, reply.headers):
        return _budget_error(reply, quoted, doing=doing, host=settings.host, facts=facts)
    kind, what, remedy = _classify(reply.status, body, quoted)
    if kind is RequestRefusedError:
        facts["is_missing"] = _MISSING.search(quoted) is not None
        facts["part_may_succeed"] = reply.status in _TOO_LARGE_STATUSES or "channel" in quoted.lower()
        facts["is_too_large_a_user"] = is_too_large_a_user(quoted)
    if kind is ServiceUnavailableError and body.is_unrecoverable and reply.status >= 500:
        facts["retryable"] = False
    code = "" if body.code is None else f", code {body.code}"
    return kind(f"{doing} {what}: {settings.host} says: {quoted} (HTTP {reply.status}{code}); {remedy}", **facts)


def read_retry_after(headers: Mapping[str, str], *, status: int, now_epoch_s: float) -> float | None:
    """Return the seconds until the host accepts the next request, or None if it does not say.

    Read ``Retry-After`` (seconds or an HTTP date), and otherwise, for a 429 that is about the number of requests,
    ``X-RateLimit-Reset`` (unix seconds). A value may be a comma-separated list; like the SDKs, take its first non-empty
    part.
    """
    # Prefer the service's own clock if it sends its time. Ours may be wrong by more than the pause.
    now_epoch_s = read_date(headers) or now_epoch_s
    wanted = headers.get("retry-after", "")
    if (at := _http_date(wanted)) is not None:
        return max(0.0, at - now_epoch_s)
    if (seconds := first_number(wanted)) is not None:
        return seconds
    # Every reply contains the reset of the rate limit. It matters only to a caller that has used up the limit.
    is_rate_limited = status == 429 and not _is_budget_refusal(status, headers)
    if is_rate_limited and (reset := first_number(headers.get("x-ratelimit-reset", ""))) is not None:
        return max(0.0, reset - now_epoch_s)
    return None


def read_date(headers: Mapping[str, str]) -> float | None:
    """Return the time of a reply by the service's clock, in unix seconds, or None if it does not say."""
    return _http_date(headers.get("date", ""))


def _is_budget_refusal(status: int, headers: Mapping[str, str]) -> bool:
    """Return whether a reply refuses a call because of the app's database time.

    The docs distinguish such a 429 from a rate limit by ``X-Budget-Used-Ms``. They also say that every reply of such an
    endpoint has this header. So a used-up rate limit with some budget left is not a refusal by budget.
    """
    if status != 429 or _BUDGET_HEADERS["used_ms"] not in headers:
        return False
    n_requests_left = first_number(headers.get("x-ratelimit-remaining", ""))
    return n_requests_left != 0 or not first_number(headers.get(_BUDGET_HEADERS["remaining_ms"], ""))


def _budget_error(reply: Reply, quoted: str, *, doing: str, host: str, facts: dict[str, Any]) -> ApiBudgetError:
    times_ms = {name: first_number(reply.headers.get(header, "")) for name, header in _BUDGET_HEADERS.items()}
    used_ms, limit_ms = times_ms["used_ms"], times_ms["limit_ms"]
    spent = f" ({used_ms:g} of {limit_ms:g} ms)" if used_ms is not None and limit_ms is not None else ""
    wait_s = facts["retry_after_s"]
    when = "later" if wait_s is None else f"in {wait_s:g} s"
    code = "" if facts["code"] is None else f", code {facts['code']}"
    return ApiBudgetError(
        f"{doing} was refused: the database time that {host} allows this app for such calls in a minute is used "
        f"up{spent}: {quoted} (HTTP {reply.status}{code}); try again {when}, and make the query cheaper: filter on "
        "cid, type, last_message_at, created_at, updated_at, members or team only, without $ne, $nin or $autocomplete",
        **facts,
        **times_ms,
    )


def _classify(status: int, body: _ErrorBody, quoted: str) -> tuple[type[ServiceError], str, str]:  # noqa: PLR0911
    """Return the class of the error, the predicate of its sentence, and what to do."""
    match status:
        case 401 | 403:
            return UnauthorizedError, "was refused", _remedy_for_refused_key(status, body.code)
        case _ if 400 <= status < 500 and "can't find task" in quoted.lower():
            remedy = "check the id and that the key is of the same app; the service forgets exports after 60 days"
            return NotFoundError, "found nothing", remedy
        # The service answers 404 or 400 for a missing channel or user. In both cases the request has to change.
        case 404 if not _ABOUT_THE_REQUEST.search(quoted):
            return NotFoundError, "found nothing", "check the address"
        case 429:
            return RateLimitedError, "was rate-limited", "run fewer exports at once, or try again later"
        case 408:
            return ServiceUnavailableError, "took the service too long", "try again later"
        case _ if 400 <= status < 500:
            return RequestRefusedError, "was refused", _remedy_for_refused_request(status, quoted)
        case _ if status >= 500 and body.is_unrecoverable:
            return ServiceUnavailableError, "failed", "the service says that a repeat cannot succeed"
        case _ if status >= 500:
            return ServiceUnavailableError, "failed", "the service has a problem; try again later"
        case _:
            return UnexpectedReplyError, "failed", "the chat API does not use this status; check the address"


def _hide_signed(word: re.Match[str]) -> str:
    return "<link>" if _SIGNATURE.search(word[0]) else word[0]


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _read_error_body(body: bytes) -> _ErrorBody:
    try:
        value = parse_json(body)
    except (ValueError, RecursionError):
        return _ErrorBody()
    if not isinstance(value, dict):
        return _ErrorBody()
    code, message = value.get("code"), value.get("message")
    text = message if isinstance(message, str) else ""
    if wrapped := _WRAPPED.fullmatch(text):
        text = wrapped.group(1)
    return _ErrorBody(
        code=code if isinstance(code, int) and not isinstance(code, bool) else None,
        message=text,
        is_unrecoverable=value.get("unrecoverable") is True,
    )


def _remedy_for_refused_key(status: int, code: int | None) -> str:
    if code in _CLOCK_CODES:
        return "each request has a new token, so this machine's clock is probably wrong; correct it"
    if status == 403:
        return "check what this API key is allowed to do, and that the app is not suspended"
    return "check the API key (login) and the API secret (password)"


def is_too_large_a_user(reason: str) -> bool:
    """Return whether the service refuses a user who has more messages or reactions than an export may have.

    Its words are not documented, so this looks for the number and for what is counted.
    """
    return _TOO_LARGE_A_USER.search(reason) is not None


def _remedy_for_refused_request(status: int, quoted: str) -> str:
    if is_too_large_a_user(quoted):
        return REMEDY_FOR_TOO_LARGE_A_USER
    if "channel" in quoted.lower():
        return "check the channels: the service refuses a request with a channel that does not exist or is deleted"
    if "user" in quoted.lower():
        return "check the user ids"
    if status in _TOO_LARGE_STATUSES:
        return "ask for fewer channels or users at once"
    return "change the request; repeating it unchanged cannot help"


def first_number(value: str) -> float | None:
    """Return the first non-empty part of a comma-separated list as a number, or None if it is not one."""
    part = next((part.strip() for part in value.split(",") if part.strip()), "")
    # At most ten digits: an absurd number must not become an endless pause.
    return float(part) if re.fullmatch(r"\d{1,10}(\.\d{1,6})?", part, re.ASCII) else None


def _http_date(value: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(value).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None

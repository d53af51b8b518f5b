"""Failed calls to a store in words: the cause, what to do, and whether to try again.

The libraries of object stores have error trees of their own, and fsspec translates some of their errors. So this looks
at the error and its causes, and at the names and codes in them. It never passes on a message of a library, which may
quote a request with its headers.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

# Names of exceptions of botocore, google-auth and azure-identity.
_NO_CREDENTIALS: Final = frozenset(
    {
        "ClientAuthenticationError",
        "CredentialRetrievalError",
        "CredentialUnavailableError",
        "DefaultCredentialsError",
        "NoAuthTokenError",
        "NoCredentialsError",
        "PartialCredentialsError",
        "ProfileNotFound",
        "SSOError",
        "SSOTokenLoadError",
        "TokenRetrievalError",
        "UnauthorizedSSOTokenError",
    }
)
_UNREACHABLE: Final = frozenset(
    {
        "ClientConnectorError",
        "ConnectTimeoutError",
        "ConnectionClosedError",
        "EndpointConnectionError",
        "HTTPClientError",
        "ReadTimeoutError",
        "ServerDisconnectedError",
        "ServiceRequestError",
        "SSLError",
        "TransportError",
    }
)
_WRONG_KEY: Final = frozenset({"InvalidAccessKeyId", "InvalidClientTokenId", "SignatureDoesNotMatch"})
_EXPIRED: Final = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestTimeTooSkewed", "TokenRefreshRequired"})
_OTHER_REGION: Final = frozenset(
    {"301", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect"}
)
_NO_BUCKET: Final = frozenset({"ContainerNotFound", "NoSuchBucket"})
_BUSY: Final = frozenset({"503", "RequestTimeout", "ServiceUnavailable", "SlowDown"})
_UNKNOWN_OPTION: Final = re.compile(r"unexpected keyword argument '(\w+)'")

_SEE_CREDENTIALS: Final = "see docs/object-storage.md for where credentials are looked for"


@dataclass(frozen=True, slots=True)
class StoreProblem:
    """What is wrong, as part of a sentence.

    :param is_final: the same call cannot succeed before a person has changed something.
    """

    what: str
    cure: str
    is_final: bool = False


# In this order, because an error may have several causes: the first one that is among them is what to look at.
_PROBLEMS: Final[tuple[tuple[frozenset[str], StoreProblem], ...]] = (
    (_NO_CREDENTIALS, StoreProblem("no credentials for the store were found", _SEE_CREDENTIALS, is_final=True)),
    (_EXPIRED, StoreProblem("the store refuses the credentials as expired", "renew them, and check the clock")),
    (
        _WRONG_KEY,
        StoreProblem("the store refuses the key or the secret", f"check them; {_SEE_CREDENTIALS}", is_final=True),
    ),
    (
        _NO_BUCKET,
        StoreProblem("there is no such bucket", "create it, or check its name and the endpoint", is_final=True),
    ),
    (_OTHER_REGION, StoreProblem("the bucket is in another region", "set the region of the bucket", is_final=True)),
    (_BUSY, StoreProblem("the store is busy", "try again later")),
    (_UNREACHABLE, StoreProblem("the store cannot be reached", "check the endpoint, the network and the proxy")),
)


def explain(error: BaseException, verb: str) -> StoreProblem:
    """Return what an error of a store means.

    :param verb: what was being done to the lake: ``read`` or ``write``.
    """
    causes = list(_causes(error))
    codes = {code for each in causes if (code := _code(each))}
    found = codes | {type(each).__name__ for each in causes}
    for names, problem in _PROBLEMS:
        if names & found:
            return problem
    if http_status(error) == HTTPStatus.FORBIDDEN:
        what = f"the store does not allow these credentials to {verb} there"
        return StoreProblem(what, "docs/object-storage.md lists the permissions that a lake needs", is_final=True)
    if isinstance(error, TypeError) and (option := _UNKNOWN_OPTION.search(str(error))):
        return StoreProblem(f"the store has no option {option.group(1)}", "check the storage options", is_final=True)
    # The system's words for the number: fsspec makes its own text from the store's message.
    strerror = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else None
    what = min(codes, default=strerror or type(error).__name__)
    return StoreProblem(what, "check that the place exists, has room, and may be written by this user")


def http_status(error: BaseException) -> int | None:
    """Return the HTTP status that a store answered with, from the error or its causes; None if there was no answer."""
    for each in _causes(error):
        response = getattr(each, "response", None)
        facts = response.get("ResponseMetadata", {}) if isinstance(response, dict) else {}
        for status in (facts.get("HTTPStatusCode"), getattr(each, "status_code", None), getattr(each, "code", None)):
            if isinstance(status, int) or (isinstance(status, str) and status.isdigit()):
                return int(status)
    return None


def _code(error: BaseException) -> str | None:
    """Return the store's own name of an error, such as ``NoSuchBucket``."""
    response = getattr(error, "response", None)
    code = response.get("Error", {}).get("Code") if isinstance(response, dict) else getattr(error, "error_code", None)
    return str(code) if code else None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what caused it, as far as that is recorded."""
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        yield each
        each = each.__cause__ or each.__context__

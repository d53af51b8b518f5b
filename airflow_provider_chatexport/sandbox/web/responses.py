"""Answers of the API: JSON bodies, and errors in the service's words.

Source of the error body and its code numbers: the service's API description (APIError) and its page "API Error Codes".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from starlette.responses import Response

MORE_INFO: Final = "https://getstream.io/chat/docs/api_errors_response"


class ApiCode:
    """The service's own error numbers, as far as the sandbox answers them."""

    INTERNAL: Final = -1
    ACCESS_KEY: Final = 2
    INPUT: Final = 4
    AUTHENTICATION: Final = 5
    RATE_LIMIT: Final = 9
    DOES_NOT_EXIST: Final = 16
    NOT_ALLOWED: Final = 17
    PAYLOAD_TOO_BIG: Final = 22
    TIMEOUT: Final = 23
    HEADERS_TOO_BIG: Final = 24
    TOKEN_EXPIRED: Final = 40
    TOKEN_NOT_YET_VALID: Final = 41
    TOKEN_BEFORE_ISSUED: Final = 42
    SIGNATURE_INVALID: Final = 43


# The error number for a fault that names only a status.
CODE_OF_STATUS: Final[Mapping[int, int]] = {
    400: ApiCode.INPUT,
    401: ApiCode.AUTHENTICATION,
    403: ApiCode.NOT_ALLOWED,
    404: ApiCode.DOES_NOT_EXIST,
    408: ApiCode.TIMEOUT,
    413: ApiCode.PAYLOAD_TOO_BIG,
    429: ApiCode.RATE_LIMIT,
    431: ApiCode.HEADERS_TOO_BIG,
}


class ApiError(Exception):
    """A request that the service refuses. ``field`` names the part of the body that is wrong."""

    def __init__(self, http_status: int, code: int, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.http_status = http_status
        self.code = code
        self.message = message
        self.field = field


def input_error(message: str, *, field: str) -> ApiError:
    """Return 400 with code 4: the endpoint does not accept the body."""
    return ApiError(400, ApiCode.INPUT, message, field=field)


def not_found(message: str) -> ApiError:
    """Return 404 with code 16: what the request names does not exist."""
    return ApiError(404, ApiCode.DOES_NOT_EXIST, message)


class JsonReply(Response):
    """JSON as the service sends it: UTF-8, with its length declared."""

    media_type = "application/json;charset=utf-8"

    def render(self, content: Any) -> bytes:
        """Return the body."""
        # Not orjson: custom data may hold integers past 64 bits, which JSON allows and orjson refuses.
        return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def error_reply(
    error: ApiError, *, operation: str = "Request", duration: str = "0", headers: Mapping[str, str] | None = None
) -> JsonReply:
    """Return the service's error body, with all six required keys: the official SDK cannot read it without them."""
    body: dict[str, Any] = {
        "StatusCode": error.http_status,
        "code": error.code,
        "details": [],
        "duration": duration,
        "message": f'{operation} failed with error: "{error.message}"',
        "more_info": MORE_INFO,
    }
    if error.field is not None:
        body["exception_fields"] = {error.field: error.message}
    return JsonReply(body, status_code=error.http_status, headers=headers)

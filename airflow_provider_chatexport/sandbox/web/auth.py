"""Authentication: the API key in the query, a JWT of the server in the header.

The service's error numbers ("API Error Codes"): 2 for the key, 5 for what is not a token, 40 to 43 for a token that is
out of date or signed with another secret, 17 for a client's token, which the export endpoints refuse.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import jwt
from jwt.types import Options

from airflow_provider_chatexport.sandbox.web.responses import ApiCode, ApiError

ALGORITHM: Final = "HS256"

# Times are checked below: PyJWT has one exception for nbf and iat, the service two numbers.
_CHECKED_BELOW: Final[Options] = {
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_aud": False,
    "verify_sub": False,
}


def authenticate(
    query: Mapping[str, str], headers: Mapping[str, str], *, api_key: str, api_secret: str, now_s: float
) -> None:
    """Check that the request comes from a server that has the secret.

    :param now_s: seconds since 1970 by the machine's clock, which clients sign tokens by.
    :raises ApiError: 401 or 403, with the service's number for what is wrong.
    """
    api_key_sent = query.get("api_key")
    if not api_key_sent:
        raise ApiError(401, ApiCode.ACCESS_KEY, "api_key or app_id not provided")
    if api_key_sent != api_key:
        raise ApiError(401, ApiCode.ACCESS_KEY, "api_key not valid")
    if headers.get("stream-auth-type", "jwt") != "jwt":
        raise _no_token("stream-auth-type must be jwt")
    claims = _claims(headers.get("authorization", ""), api_secret)
    _check_times(claims, now_s)
    if claims.get("user_id") is not None and claims.get("server") is not True:
        raise ApiError(403, ApiCode.NOT_ALLOWED, "this endpoint takes a server-side token, not the token of a user")


def _claims(token: str, api_secret: str) -> dict[str, Any]:
    if not token:
        raise _no_token("Authorization header is missing")
    try:
        return dict(
            jwt.decode(
                token,
                api_secret,
                algorithms=[ALGORITHM],
                options=_CHECKED_BELOW,
            )
        )
    except (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError):
        raise ApiError(401, ApiCode.SIGNATURE_INVALID, "JWTAuth error: signature is invalid") from None
    except jwt.InvalidTokenError:
        # "Bearer <token>" ends here: the service takes the bare token.
        raise _no_token("JWTAuth error: Authorization holds no JSON web token") from None


def _check_times(claims: Mapping[str, Any], now_s: float) -> None:
    times = {name: claims[name] for name in ("exp", "nbf", "iat") if claims.get(name) is not None}
    for name, value in times.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise _no_token(f"JWTAuth error: {name} is not a number")
    if times.get("exp", float("inf")) <= now_s:
        raise ApiError(401, ApiCode.TOKEN_EXPIRED, "JWTAuth error: token is expired (exp)")
    # One second of grace: tokens carry whole seconds, some rounded up.
    if times.get("nbf", 0) > now_s + 1:
        raise ApiError(401, ApiCode.TOKEN_NOT_YET_VALID, "JWTAuth error: token is not valid yet (nbf)")
    if times.get("iat", 0) > now_s + 1:
        raise ApiError(401, ApiCode.TOKEN_BEFORE_ISSUED, "JWTAuth error: token used before issue at (iat)")


def _no_token(message: str) -> ApiError:
    return ApiError(401, ApiCode.AUTHENTICATION, message)

"""Routes of both endpoint families, and the order in which a request is checked.

Path and verb first, then key and token, then the rate limit, then the body: so a request with a wrong key does not
count for the limit, and the body of a request over the limit is not read.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from airflow_provider_chatexport.sandbox.chat.api_family import Family
from airflow_provider_chatexport.sandbox.exports.file_host import FileHost
from airflow_provider_chatexport.sandbox.service import Service
from airflow_provider_chatexport.sandbox.settings import API_KEY, API_SECRET
from airflow_provider_chatexport.sandbox.web import endpoints
from airflow_provider_chatexport.sandbox.web.auth import authenticate
from airflow_provider_chatexport.sandbox.web.control import Control
from airflow_provider_chatexport.sandbox.web.endpoints import Call
from airflow_provider_chatexport.sandbox.web.faults import FILE_HOST_PATH
from airflow_provider_chatexport.sandbox.web.middleware import FaultMiddleware
from airflow_provider_chatexport.sandbox.web.rate_limits import OverLimitError
from airflow_provider_chatexport.sandbox.web.request_body import RequestBody
from airflow_provider_chatexport.sandbox.web.responses import ApiCode, ApiError, JsonReply, error_reply, not_found


class Endpoint(NamedTuple):
    """A path of one family. ``operation`` is its name in error messages and rate limits."""

    family: Family
    method: str
    path: str
    operation: str
    answer: Callable[[Call], Awaitable[dict[str, Any]]]


ENDPOINTS: Final = (
    Endpoint(Family.LEGACY, "POST", "/export_channels", "ExportChannels", endpoints.export_channels),
    Endpoint(Family.LEGACY, "GET", "/export_channels/{task_id}", "GetExportChannels", endpoints.get_channels_export),
    Endpoint(Family.LEGACY, "GET", "/tasks/{task_id}", "GetTask", endpoints.get_task),
    Endpoint(Family.LEGACY, "POST", "/export/users", "ExportUsers", endpoints.export_users),
    Endpoint(Family.LEGACY, "GET", "/users/{user_id:path}/export", "ExportUser", endpoints.export_one_user),
    Endpoint(Family.LEGACY, "POST", "/channels", "QueryChannels", endpoints.channels),
    Endpoint(Family.LEGACY, "GET", "/rate_limits", "GetRateLimits", endpoints.rate_limits),
    Endpoint(Family.V2, "POST", "/api/v2/chat/export_channels", "ExportChannels", endpoints.export_channels),
    Endpoint(Family.V2, "GET", "/api/v2/tasks/{task_id}", "GetTask", endpoints.get_task),
    Endpoint(Family.V2, "POST", "/api/v2/export/users", "ExportUsers", endpoints.export_users),
    Endpoint(Family.V2, "GET", "/api/v2/users/{user_id:path}/export", "ExportUser", endpoints.export_one_user),
    Endpoint(Family.V2, "POST", "/api/v2/chat/channels", "QueryChannels", endpoints.channels),
    Endpoint(Family.V2, "GET", "/api/v2/rate_limits", "GetRateLimits", endpoints.rate_limits),
    Endpoint(Family.V2, "GET", "/api/v2/chat/retention_policy", "GetRetentionPolicy", endpoints.retention_policy),
)  # fmt: skip


def build_app(service: Service) -> ASGIApp:
    """Return the ASGI app of a sandbox: API, file host and control calls, inside the middleware for faults."""
    file_host = FileHost(service.links, service.tasks)
    routes: list[BaseRoute] = [
        *Control(service).routes(),
        Route(f"{FILE_HOST_PATH}/{{path:path}}", file_host.answer, methods=["GET", "HEAD"]),
        *(Route(e.path, _answering(service, e), methods=[e.method]) for e in ENDPOINTS),
    ]
    app = Starlette(
        routes=routes, exception_handlers={404: _no_such_path, 405: _no_such_path, Exception: _internal_error}
    )
    # A path with an extra slash is unknown to the service, which does not redirect.
    app.router.redirect_slashes = False
    return FaultMiddleware(app, service.faults, service.clock, service.requests)


def _answering(service: Service, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        start_s = time.perf_counter()
        # Read in any case: an answer before the end of a body would leave the connection in the middle of a request.
        body = await request.body()
        headers: dict[str, str] = service.limits.quota(endpoint.operation).headers()
        try:
            authenticate(
                request.query_params, request.headers, api_key=API_KEY, api_secret=API_SECRET, now_s=time.time()
            )
            headers = service.limits.take(endpoint.operation).headers()
            fields = RequestBody.parse(body) if endpoint.method == "POST" else RequestBody({})
            await service.delete_old()
            reply = await endpoint.answer(Call(service=service, family=endpoint.family, request=request, body=fields))
        except OverLimitError as over:
            headers = {**over.quota.headers(), "retry-after": str(over.retry_after_s)}
            return error_reply(over, operation=endpoint.operation, duration=_since(start_s), headers=headers)
        except ApiError as refused:
            return error_reply(refused, operation=endpoint.operation, duration=_since(start_s), headers=headers)
        status = 201 if endpoint.method == "POST" else 200
        return JsonReply({**reply, "duration": _since(start_s)}, status_code=status, headers=headers)

    return answer


async def _no_such_path(_request: Request, _problem: Exception) -> Response:
    return error_reply(not_found("Not Found"))


async def _internal_error(_request: Request, problem: Exception) -> Response:
    return error_reply(ApiError(500, ApiCode.INTERNAL, f"internal error: {type(problem).__name__}"))


def _since(start_s: float) -> str:
    """Return the time since then as the service writes it: ``1.23ms``."""
    return f"{(time.perf_counter() - start_s) * 1000:.2f}ms"

"""The app factory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic.alias_generators import to_camel
from starlette.exceptions import HTTPException
from starlette.responses import Response

from matih_ray import __version__
from matih_ray.api.flink import jobs as flink_jobs
from matih_ray.api.flink import sessions as flink_sessions
from matih_ray.api.limits import Deadlines, Limits
from matih_ray.api.middleware import API_PREFIX, Authentication, BodyLimit, Boundary
from matih_ray.api.problems import field_problems, problem_of, problem_response
from matih_ray.api.requests import Runtime
from matih_ray.api.routes import (
    checkpoints,
    connectors,
    endpoints,
    graphql,
    health,
    jobs,
    notifications,
    runs,
    schedules,
    units,
)
from matih_ray.api.tokens import open_tokens
from matih_ray.api.wire import PROBLEM_MEDIA_TYPE, Problem
from matih_ray.control.ports import Ports
from matih_ray.control.source_calls import DirectCalls, SourceCalls
from matih_ray.control.stream_jobs import NoScripts, Scripts
from matih_ray.errors import (
    MatihError,
    MethodNotAllowedError,
    NotFoundError,
    RequestError,
    RequestTooLargeError,
    ValidationError,
)

_DESCRIPTION = """Ingestion into tables: connectors, units, plans, runs and their checkpoints.

Every path below `/tenants/{tenantId}` needs a bearer token of that tenant. Errors are RFC 9457
problems; their `code` is stable. Listings are paged by `offset` and `limit`; `next` leads on."""

# The framework's own errors, as ours. Everything else it raises is a malformed request.
_OF_STATUS: dict[int, tuple[type[MatihError], str]] = {
    404: (NotFoundError, "no such path"),
    405: (MethodNotAllowedError, "this path does not know the method"),
    413: (RequestTooLargeError, "the request's body is too large"),
}


_PROBLEM_RESPONSES: dict[int | str, dict[str, Any]] = {
    code: {
        "description": text,
        "model": Problem,
        "content": {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    for code, text in (("default", "A problem (RFC 9457)"), (422, "A field is wrong"))
}


class ControlApi(FastAPI):
    """FastAPI that describes errors under the one media type they have."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI description."""
        description = super().openapi()
        for operations in description["paths"].values():
            for operation in operations.values():
                for code in _PROBLEM_RESPONSES:
                    # FastAPI declares every model as plain JSON too
                    contents = operation["responses"].get(str(code), {}).get("content", {})
                    contents.pop("application/json", None)
        return description


def create_app(
    ports: Ports,
    limits: Limits | None = None,
    calls: SourceCalls | None = None,
    scripts: Scripts | None = None,
) -> FastAPI:
    """The control API over these ports, as an ASGI application.

    Args:
        ports: What the use cases work with.
        limits: What one request may cost.
        calls: Where sources are tested and discovered; in this process if nothing is said.
        scripts: Who understands scripts of streaming jobs; without, none can be submitted.

    Raises:
        ConfigurationError: The key that tokens are verified with is missing or too short.
    """
    limits = limits or Limits()
    app = ControlApi(
        title="MATIH Ray control API",
        version=__version__,
        description=_DESCRIPTION,
        openapi_url=f"{API_PREFIX}/openapi.json",
        # the usual pages load scripts from elsewhere
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=_operation_id,
        responses=_PROBLEM_RESPONSES,
    )
    app.state.runtime = Runtime(
        ports, limits, Deadlines(limits), calls or DirectCalls(), scripts or NoScripts()
    )
    for module in (
        health, connectors, notifications, endpoints, units, runs, schedules, jobs,
        checkpoints, graphql,
    ):  # fmt: skip
        app.include_router(module.router, prefix=API_PREFIX)
    for flink in (flink_jobs, flink_sessions):
        app.include_router(flink.router)
    surround(app, ports, limits)
    return app


def surround(
    app: FastAPI,
    ports: Ports,
    limits: Limits,
    authentication: type[Authentication] = Authentication,
) -> None:
    """Give an application what surrounds every request: ids, problems, authentication, limits.

    Raises:
        ConfigurationError: The key that tokens are verified with is missing or too short.
    """
    app.add_exception_handler(MatihError, _shown(_as_is))
    app.add_exception_handler(HTTPException, _shown(_framework_error))
    app.add_exception_handler(RequestValidationError, _invalid)
    # the last one added is the outermost
    app.add_middleware(BodyLimit, max_bytes=limits.body_bytes)
    app.add_middleware(authentication, tokens=open_tokens(ports.settings))
    app.add_middleware(Boundary)


def _operation_id(route: APIRoute) -> str:
    return str(to_camel(route.name))


def _shown(
    typed: Callable[[Exception], MatihError],
) -> Callable[[Request, Exception], Response]:
    def handler(request: Request, raised: Exception) -> Response:
        return problem_response(problem_of(typed(raised), request.state.request_id))

    return handler


def _as_is(raised: Exception) -> MatihError:
    assert isinstance(raised, MatihError)  # noqa: S101 registered for this class
    return raised


def _framework_error(raised: Exception) -> MatihError:
    assert isinstance(raised, HTTPException)  # noqa: S101 registered for this class
    kind, message = _OF_STATUS.get(
        raised.status_code, (RequestError, "the request cannot be read; is its body JSON?")
    )
    return kind(message)


def _invalid(request: Request, raised: Exception) -> Response:
    assert isinstance(raised, RequestValidationError)  # noqa: S101 registered for this class
    errors = field_problems(list(raised.errors()))
    first = errors[0]
    more = f" ({len(raised.errors()) - 1} more)" if len(raised.errors()) > 1 else ""
    error = ValidationError(f"{first.field}: {first.message}{more}", field=first.field)
    return problem_response(problem_of(error, request.state.request_id, errors))

"""Errors in Flink's form, and how its clients name versions and handles."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from enum import Enum
from typing import Annotated, Any

from fastapi import APIRouter, Path
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from matih_ray.api.problems import field_problems, problem_of
from matih_ray.errors import MatihError, ValidationError

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class Version(str, Enum):
    """Versions of the SQL Gateway's protocol. The third only adds materialized tables."""

    V1 = "v1"
    V2 = "v2"
    V3 = "v3"


VersionPath = Annotated[Version, Path()]
Handle = Annotated[str, Path(min_length=1, max_length=64)]


class FlinkRoute(APIRoute):
    """A route whose errors are `{"errors": […]}`, as Flink's clients read them."""

    def get_route_handler(self) -> Handler:
        """FastAPI's handler, within this boundary."""
        answered = super().get_route_handler()

        async def handler(request: Request) -> Response:
            try:
                return await answered(_as_json(request))
            except RequestValidationError as error:
                first = field_problems(list(error.errors()))[0]
                return _errors(request, ValidationError(f"{first.field}: {first.message}"))
            except MatihError as error:
                return _errors(request, error)

        return handler


def flink_router() -> APIRouter:
    """A router of such routes, which OpenAPI does not show."""
    return APIRouter(route_class=FlinkRoute, include_in_schema=False)


def _as_json(request: Request) -> Request:
    """The request with the only kind of body that there is: Flink reads it whatever its type, and
    curl calls all data a form."""
    others = [header for header in request.scope["headers"] if header[0] != b"content-type"]
    headers = [*others, (b"content-type", b"application/json")]
    return Request({**request.scope, "headers": headers}, request.receive)


def _errors(request: Request, error: MatihError) -> Response:
    problem = problem_of(error, request.state.request_id)
    # Flink knows no other status for what a client did wrong
    status = 400 if problem.status == 422 else problem.status
    text = f"{problem.detail} [{problem.code}, request {problem.instance}]"
    return JSONResponse({"errors": [text]}, status)

"""Errors as RFC 9457 problems: one body for every producer, one table for the status.

The table is keyed by family, most specific first. `hidden` families are the operator's business
(paths, settings, stores): their message goes to the log, and the caller gets the request's id.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import structlog
from pydantic.alias_generators import to_camel
from starlette.responses import Response

from matih_ray.api.wire import PROBLEM_MEDIA_TYPE, FieldProblem, Problem
from matih_ray.errors import (
    ConfigurationError,
    ConflictError,
    ConnectorTestError,
    ForbiddenError,
    IdentityProviderUnavailableError,
    MappingError,
    MatihError,
    MethodNotAllowedError,
    MissingExtraError,
    NotFoundError,
    PlanError,
    Recovery,
    RequestError,
    RequestTooLargeError,
    SessionsFullError,
    SinkError,
    SinkUnavailableError,
    SourceError,
    SourceTimeoutError,
    SourceUnavailableError,
    StagingError,
    StateConflictError,
    StateError,
    StateVersionError,
    UnauthenticatedError,
    ValidationError,
)
from matih_ray.model.value import JsonValue

# Wrong fields named in one problem; a body with more of them is wrong as a whole.
MAX_FIELD_PROBLEMS = 20

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Family:
    """A class of errors, the status of all of them, and whether their message is hidden."""

    error: type[MatihError]
    status: int
    hidden: bool = False


FAMILIES = (
    Family(UnauthenticatedError, 401),
    Family(IdentityProviderUnavailableError, 503, hidden=True),
    Family(SessionsFullError, 503),
    Family(ForbiddenError, 403),
    Family(NotFoundError, 404),
    Family(ConnectorTestError, 422),
    Family(MethodNotAllowedError, 405),
    Family(ConflictError, 409),
    Family(RequestTooLargeError, 413),
    Family(ValidationError, 422),
    Family(RequestError, 400),
    Family(PlanError, 422),
    Family(MappingError, 422),
    Family(SourceTimeoutError, 504),
    Family(SourceUnavailableError, 503),
    Family(SourceError, 502),
    Family(SinkUnavailableError, 503),
    Family(SinkError, 502),
    Family(StateConflictError, 409),
    Family(StateVersionError, 500, hidden=True),
    Family(StateError, 503, hidden=True),
    Family(StagingError, 503),
    Family(MissingExtraError, 501),
    Family(ConfigurationError, 500, hidden=True),
    Family(MatihError, 500, hidden=True),
)


def family_of(error: type[MatihError]) -> Family:
    """The row of the table that an error class falls under."""
    return next(family for family in FAMILIES if issubclass(error, family.error))


def problem_of(
    error: MatihError, request_id: str, errors: tuple[FieldProblem, ...] = ()
) -> Problem:
    """The problem that a typed error is shown as."""
    family = family_of(type(error))
    context: dict[str, JsonValue] = {to_camel(key): item for key, item in error.context.items()}
    detail = error.message
    if family.hidden:
        log.error("request_failed", code=error.code, detail=error.message, **error.context)
        context = {}
        detail = f"this is ours to solve, not yours; quote request {request_id}"
    return Problem(
        type=f"urn:matih:problem:{error.code}",
        title=error.code.replace("_", " ").capitalize(),
        status=family.status,
        detail=detail,
        instance=f"urn:matih:request:{request_id}",
        code=error.code,
        retryable=error.recovery in (Recovery.RETRY, Recovery.PAUSE),
        context=context,
        errors=errors,
    )


def problem_response(problem: Problem) -> Response:
    """A problem as an HTTP response."""
    headers = {}
    if problem.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return Response(
        problem.to_json(), problem.status, headers=headers, media_type=PROBLEM_MEDIA_TYPE
    )


def field_problems(found: list[dict[str, object]]) -> tuple[FieldProblem, ...]:
    """Pydantic's report of a request, without the values it was given."""
    return tuple(
        FieldProblem(field=_field(item["loc"]), message=_without_input(str(item["msg"])))
        for item in found[:MAX_FIELD_PROBLEMS]
    )


def _field(location: object) -> str:
    parts = [str(part) for part in location] if isinstance(location, (list, tuple)) else []
    return ".".join(part[:100] for part in parts[:10])


def _without_input(message: str) -> str:
    return re.sub(r"^Value error, ", "", message)[:300]

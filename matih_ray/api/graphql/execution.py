"""One operation: executed, with typed errors under `extensions`."""

from __future__ import annotations

import structlog
from graphql import GraphQLError
from pydantic import Field
from strawberry.types import ExecutionResult

from matih_ray.api.graphql.context import OperationContext
from matih_ray.api.graphql.schema import SCHEMA
from matih_ray.api.problems import problem_of
from matih_ray.errors import MatihError, RequestError
from matih_ray.model.value import JsonValue, Value

# Errors that one answer names; an operation with more of them is wrong as a whole.
MAX_ERRORS = 20
MAX_QUERY_CHARS = 100_000
MAX_MESSAGE_CHARS = 1000

log = structlog.get_logger(__name__)


class GraphqlRequest(Value):
    """An operation, as GraphQL over HTTP sends it. Batches are not taken."""

    query: str = Field(min_length=1, max_length=MAX_QUERY_CHARS)
    variables: dict[str, JsonValue] | None = None
    operation_name: str | None = None
    extensions: dict[str, JsonValue] | None = None


class GraphqlAnswer(Value):
    """`data` is None when the operation could not be executed at all."""

    data: dict[str, JsonValue] | None = None
    errors: tuple[dict[str, JsonValue], ...] | None = None


def execute(request: GraphqlRequest, context: OperationContext) -> GraphqlAnswer:
    """Execute an operation in this thread."""
    result = SCHEMA.execute_sync(
        request.query,
        variable_values=dict(request.variables or {}),
        operation_name=request.operation_name,
        context_value=context,
    )
    assert isinstance(result, ExecutionResult)  # noqa: S101 there are no subscriptions
    errors = tuple(_shown(error, context) for error in (result.errors or [])[:MAX_ERRORS])
    return GraphqlAnswer(data=result.data, errors=errors or None)


def _shown(error: GraphQLError, context: OperationContext) -> dict[str, JsonValue]:
    """An error in GraphQL's form: under `extensions` is what REST answers as a problem."""
    cause = error.original_error
    while isinstance(cause, GraphQLError):  # the library's own, once more
        cause = cause.original_error
    if cause is None:  # the query itself is wrong
        typed: MatihError = RequestError(error.message[:MAX_MESSAGE_CHARS])
    elif isinstance(cause, MatihError):
        typed = cause
    else:
        log.error("graphql_failed", request=context.request_id, error=type(cause).__name__)
        typed = MatihError("unexpected error")
    problem = problem_of(typed, context.request_id)
    shown: dict[str, JsonValue] = {
        "message": problem.detail,
        "extensions": {
            "code": problem.code,
            "status": problem.status,
            "retryable": problem.retryable,
            "context": problem.context,
            "instance": problem.instance,
        },
    }
    if error.path is not None:
        shown["path"] = list(error.path)
    if error.locations:
        shown["locations"] = [{"line": at.line, "column": at.column} for at in error.locations]
    return shown

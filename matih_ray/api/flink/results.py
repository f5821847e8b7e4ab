"""An operation's answer as Flink's pages of results.

Shapes: those of Flink's `ResultInfo` and `LogicalType` in JSON.
"""

from __future__ import annotations

from collections.abc import Callable

from matih_ray.api.flink.boundary import Version
from matih_ray.control.sql_operations import raise_failed
from matih_ray.control.stream_jobs import Rows
from matih_ray.errors import NotFoundError
from matih_ray.model.sql_session import ColumnType, OperationState, ResultColumn, SqlOperation
from matih_ray.model.value import JsonValue

_MAX_LENGTH = 2**31 - 1


def results_page(
    version: Version,
    path: str,
    operation: SqlOperation,
    token: int,
    rows_of: Callable[[int], Rows],
) -> dict[str, JsonValue]:
    """The page of a token, which counts from 0; behind the last rows comes a page that says so.

    `path` is that of the pages without their tokens; `rows_of` reads a page of a query.

    Raises:
        NotFoundError: There is no such page.
        ConflictError: The query was cancelled.
        MatihError: The query has failed: with this.
    """
    raise_failed(operation)
    if operation.state is OperationState.RUNNING:
        return {"resultType": "NOT_READY", "nextResultUri": _uri(version, path, token)}
    if token > operation.pages:
        raise NotFoundError(f"the operation has no result {token}; the last was {operation.pages}")
    if token == operation.pages:
        return _page(version, operation, (), "EOS")
    rows = rows_of(token) if operation.is_query else operation.rows
    following = _uri(version, path, token + 1)
    return {**_page(version, operation, rows, "PAYLOAD"), "nextResultUri": following}


def _uri(version: Version, path: str, token: int) -> str:
    return f"{path}/{token}" + ("" if version is Version.V1 else "?rowFormat=JSON")


def _page(version: Version, operation: SqlOperation, rows: Rows, kind: str) -> dict[str, JsonValue]:
    results: dict[str, JsonValue] = {
        "columns": [_column(column) for column in operation.columns],
        "data": [{"kind": "INSERT", "fields": list(row)} for row in rows],
    }
    page: dict[str, JsonValue] = {"resultType": kind, "results": results}
    if version is not Version.V1:
        results["rowFormat"] = "JSON"
        is_ok = operation.rows == (("OK",),)
        page["isQueryResult"] = operation.is_query
        page["resultKind"] = "SUCCESS" if is_ok else "SUCCESS_WITH_CONTENT"
        if operation.job_id is not None:
            page["jobID"] = operation.job_id
    return page


def _column(column: ResultColumn) -> JsonValue:
    return {"name": column.name, "logicalType": _logical_type(column.type), "comment": None}


def _logical_type(kind: ColumnType) -> JsonValue:
    told: dict[str, JsonValue] = {"type": kind.root, "nullable": True}
    if kind.root == "VARCHAR":
        told["length"] = _MAX_LENGTH
    if kind.precision is not None:
        told["precision"] = kind.precision
    if kind.scale is not None:
        told["scale"] = kind.scale
    if kind.element is not None:
        told["elementType"] = _logical_type(kind.element)
    return told

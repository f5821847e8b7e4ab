"""An operation's answer as Flink's page of results."""

from __future__ import annotations

from matih_ray.api.flink.boundary import Version
from matih_ray.errors import NotFoundError
from matih_ray.model.sql_session import ResultColumn, SqlOperation
from matih_ray.model.value import JsonValue

# Rows of a page. Answers are lists of jobs and tables.
PAGE_ROWS = 1000
_VARCHAR: JsonValue = {"type": "VARCHAR", "nullable": True, "length": 2**31 - 1}


def results_page(
    version: Version, session_id: str, operation: SqlOperation, token: int
) -> dict[str, JsonValue]:
    """The page of a token, which counts from 0; behind the last rows comes a page that says so.

    Raises:
        NotFoundError: There is no such page.
    """
    pages = max(1, -(-len(operation.rows) // PAGE_ROWS))
    if token > pages:
        raise NotFoundError(f"the operation has no result {token}; the last was {pages}")
    rows = operation.rows[token * PAGE_ROWS : (token + 1) * PAGE_ROWS]
    at_end = token == pages
    results: dict[str, JsonValue] = {
        "columns": [_column(column) for column in operation.columns],
        "data": [{"kind": "INSERT", "fields": list(row)} for row in rows],
    }
    page: dict[str, JsonValue] = {
        "resultType": "EOS" if at_end else "PAYLOAD",
        "results": results,
    }
    following = (
        f"/{version.value}/sessions/{session_id}/operations/{operation.operation_id}"
        f"/result/{token + 1}"
    )
    if version is not Version.V1:
        results["rowFormat"] = "JSON"
        is_ok = operation.rows == (("OK",),)
        page["isQueryResult"] = False
        page["resultKind"] = "SUCCESS" if is_ok else "SUCCESS_WITH_CONTENT"
        if operation.job_id is not None:
            page["jobID"] = operation.job_id
        following += "?rowFormat=JSON"
    if not at_end:
        page["nextResultUri"] = following
    return page


def _column(column: ResultColumn) -> JsonValue:
    return {"name": column.name, "logicalType": _VARCHAR, "comment": None}

"""Queries of sessions: run to the end of their input by whichever process, their rows kept.

Whoever asked is not waited for. The record of the operation says whether the query is still wanted,
and in the end how it went; see `control.sql_operations`.
"""

from __future__ import annotations

import time

import structlog

from matih_ray.control.sql_operations import SqlOperations
from matih_ray.errors import MatihError, QueryLimitError
from matih_ray.model.sql_session import QueryTask
from matih_ray.settings import Settings
from matih_ray.state.factory import process_stores
from matih_ray.streaming.engine import TURN_S
from matih_ray.streaming.operators import Chunk
from matih_ray.streaming.pipeline import Pipeline
from matih_ray.streaming.results import PageWriter, ResultFiles, result_columns
from matih_ray.streaming.steps import refuse_changes
from matih_ray.streaming.submission import PlannedQuery, TenantScripts

# Somebody waits for the answer; what takes longer is a job.
MAX_S = 120.0
# Between two looks at whether the query is still wanted.
LOOK_EVERY_S = 1.0

log = structlog.get_logger(__name__)


def run_query(settings: Settings, task: QueryTask) -> None:
    """Run a query to its end, or until nobody wants it any more; how it went is in the record of
    its operation."""
    operations = SqlOperations(process_stores(settings).kv, task.tenant_id, task.session_id)
    scripts = TenantScripts(settings)
    files = scripts.result_files(task.tenant_id, task.operation_id)
    try:
        planned = scripts.query(task)
        pages = PageWriter(files, planned.node.schema, planned.limit)
        _read(planned, pages, task.operation_id, operations)
        columns = result_columns(planned.node.schema)
        if not operations.finish(task.operation_id, columns, pages.close()):
            files.delete()
    except MatihError as error:
        _fail(operations, task, files, error)
    except Exception as error:  # the boundary of a query: nobody else would tell
        log.exception("query_broke", tenant=task.tenant_id, operation=task.operation_id)
        told = MatihError(f"unexpected {type(error).__name__}; the log has the details")
        _fail(operations, task, files, told)


def _read(
    planned: PlannedQuery, pages: PageWriter, operation_id: str, operations: SqlOperations
) -> None:
    def take(chunk: Chunk) -> None:
        refuse_changes(chunk)
        pages.take(chunk.batch)

    pipeline = Pipeline(planned.node, take, planned.policy)
    started_s = looked_s = time.monotonic()
    try:
        pipeline.open()
        while not (pipeline.ended or pages.is_full):
            pipeline.turn(TURN_S)
            now_s = time.monotonic()
            if now_s - started_s > MAX_S:
                raise QueryLimitError(
                    f"the query takes longer than {MAX_S:g} s; write its rows into a table: CREATE "
                    "TABLE … AS SELECT is a job, which may take as long as it needs",
                    limit="seconds",
                )
            if now_s - looked_s > LOOK_EVERY_S:
                looked_s = now_s
                if not operations.is_wanted(operation_id):
                    return
    finally:
        pipeline.close()


def _fail(
    operations: SqlOperations, task: QueryTask, files: ResultFiles, error: MatihError
) -> None:
    log.info("query_failed", tenant=task.tenant_id, code=error.code, detail=error.message)
    operations.fail(task.operation_id, error)
    files.delete()

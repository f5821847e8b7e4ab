"""Conversations in SQL: what somebody declared, one statement after the other, and the answers."""

from __future__ import annotations

from datetime import datetime
from enum import Enum

from matih_ray.model.ids import TenantId
from matih_ray.model.run import RunError
from matih_ray.model.value import JsonValue, Value


class StatementKind(str, Enum):
    """What a statement does."""

    DEFINITION = "DEFINITION"  # declares a table or a view
    INSERT = "INSERT"  # becomes a job; `CREATE TABLE … AS` declares a table besides
    QUERY = "QUERY"  # its rows are the answer
    EXPLAIN = "EXPLAIN"
    SETTING = "SETTING"  # an option with the only value that it can have here


class Interpreted(Value):
    """A statement as it was understood. `name` is what it declares or writes to, `declares` the
    text that declares it in statements to come, `lines` a plan. `in_batch` tells that a batch would
    give the same rows: the input ends, and there is no window that a row could be late for."""

    kind: StatementKind
    is_view: bool = False
    name: str = ""
    declares: str = ""
    lines: tuple[str, ...] = ()
    in_batch: bool = False


class Definition(Value):
    """A table or a view that a session declared."""

    name: str
    text: str
    is_view: bool = False


class SqlSession(Value):
    """A session. It is its owner's alone; `operations` are the last ones, oldest first, and
    `queries` those of them whose rows are kept."""

    tenant_id: TenantId
    session_id: str
    name: str | None = None
    owner: str
    properties: dict[str, str] = {}
    definitions: tuple[Definition, ...] = ()
    operations: tuple[str, ...] = ()
    queries: tuple[str, ...] = ()
    opened_at: datetime
    used_at: datetime


class ColumnType(Value):
    """A column's type: its root in Flink's words, and what belongs to it."""

    root: str = "VARCHAR"
    precision: int | None = None
    scale: int | None = None
    element: ColumnType | None = None


class ResultColumn(Value):
    """A column of an answer."""

    name: str
    type: ColumnType = ColumnType()


class OperationState(str, Enum):
    """How far a statement is, in Flink's words."""

    RUNNING = "RUNNING"
    FINISHED = "FINISHED"
    CANCELED = "CANCELED"
    ERROR = "ERROR"


class SqlOperation(Value):
    """A statement and its answer. Jobs that it started go on by themselves.

    Only a query takes longer than its request: whoever runs it writes `pages` of rows and then its
    end, before `due_at` at the latest. Answers of other statements are `rows`.
    """

    operation_id: str
    state: OperationState = OperationState.FINISHED
    columns: tuple[ResultColumn, ...] = ()
    rows: tuple[tuple[JsonValue, ...], ...] = ()
    is_query: bool = False
    pages: int = 1
    job_id: str | None = None
    error: RunError | None = None
    due_at: datetime | None = None


class QueryTask(Value):
    """A query to be run for an operation of a session, behind the declarations of `earlier`."""

    tenant_id: TenantId
    session_id: str
    operation_id: str
    earlier: tuple[str, ...]
    text: str

"""Conversations in SQL: what somebody declared, one statement after the other, and the answers."""

from __future__ import annotations

from datetime import datetime
from enum import Enum

from matih_ray.model.ids import TenantId
from matih_ray.model.value import JsonValue, Value


class StatementKind(str, Enum):
    """What a statement does."""

    DEFINITION = "DEFINITION"  # declares a table or a view
    INSERT = "INSERT"  # becomes a job
    EXPLAIN = "EXPLAIN"
    SETTING = "SETTING"  # an option with the only value that it can have here


class Interpreted(Value):
    """A statement as it was understood. `name` is what it declares or writes to; `lines` a plan."""

    kind: StatementKind
    is_view: bool = False
    name: str = ""
    lines: tuple[str, ...] = ()


class Definition(Value):
    """A table or a view that a session declared."""

    name: str
    text: str
    is_view: bool = False


class SqlSession(Value):
    """A session. It is its owner's alone; `operations` are the last ones, oldest first."""

    tenant_id: TenantId
    session_id: str
    name: str | None = None
    owner: str
    properties: dict[str, str] = {}
    definitions: tuple[Definition, ...] = ()
    operations: tuple[str, ...] = ()
    opened_at: datetime
    used_at: datetime


class ResultColumn(Value):
    """A column of an answer, with its type in Flink's words."""

    name: str
    type: str = "VARCHAR"


class SqlOperation(Value):
    """A statement that was executed, with its answer. Jobs that it started go on by themselves."""

    operation_id: str
    columns: tuple[ResultColumn, ...]
    rows: tuple[tuple[JsonValue, ...], ...]
    job_id: str | None = None

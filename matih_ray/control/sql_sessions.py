"""Sessions of SQL, as Flink's SQL Gateway has them: who has one, what it declared, its answers.

What a statement does is in `sql_statements`. Sessions are in the key-value store: any replica knows
them, and a statement that was refused leaves nothing behind.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta

from matih_ray.control.authorization import Action, Principal, authorize
from matih_ray.control.ports import Ports
from matih_ray.control.sql_operations import SqlOperations
from matih_ray.control.stream_jobs import Scripts
from matih_ray.errors import ConflictError, NotFoundError, StateConflictError, WorkerLostError
from matih_ray.model.ids import TenantId
from matih_ray.model.sql_session import OperationState, SqlOperation, SqlSession

# As Flink's sql-gateway.session.idle-timeout.
IDLE = timedelta(minutes=10)
# Clients ask for status and results many times a second; not each time is it written that they do.
NOTED_EVERY = timedelta(minutes=1)
# Of a tenant; opening one looks at all of them, to end those that are idle.
MAX_SESSIONS = 100
# Answers that a session keeps; clients read each at once.
MAX_OPERATIONS = 50
# Queries whose rows a session keeps: of those, too, clients read one and close it.
MAX_RESULTS = 5

_SESSION = "flink::session::"


def open_session(
    principal: Principal,
    ports: Ports,
    scripts: Scripts,
    name: str | None,
    properties: Mapping[str, str],
) -> SqlSession:
    """A new session of the caller.

    Raises:
        ConflictError: The tenant has as many as it may.
    """
    tenant_id = principal.tenant_id
    authorize(principal, Action.RUN, tenant_id)
    if _ended_idle(ports, scripts, tenant_id) >= MAX_SESSIONS:
        raise ConflictError(f"a tenant has at most {MAX_SESSIONS} sessions; close one")
    now = ports.clock()
    session = SqlSession(
        tenant_id=tenant_id,
        session_id=new_id(ports),
        name=name,
        owner=principal.subject,
        properties=dict(properties),
        opened_at=now,
        used_at=now,
    )
    ports.kv.compare_and_set(tenant_id, _SESSION + session.session_id, session.to_dict(), 0)
    return session


def get_session(principal: Principal, ports: Ports, session_id: str) -> SqlSession:
    """A session of the caller, which is in use now.

    Raises:
        NotFoundError: There is none: it was closed, was idle for too long, or is of somebody else.
    """
    session, version = session_and_version(principal, ports, session_id)
    if ports.clock() - session.used_at > NOTED_EVERY:
        with suppress(StateConflictError):  # somebody else has just used it
            store_session(ports, session, version)
    return session


def close_session(principal: Principal, ports: Ports, scripts: Scripts, session_id: str) -> None:
    """End a session and its queries; its jobs go on. Raises `NotFoundError`."""
    session, _ = session_and_version(principal, ports, session_id)
    _forget(ports, scripts, session)


def get_operation(
    principal: Principal, ports: Ports, session_id: str, operation_id: str
) -> SqlOperation:
    """An operation of a session of the caller. Raises `NotFoundError`."""
    session = get_session(principal, ports, session_id)
    operations = operations_of(ports, session)
    found = operations.get(operation_id)
    is_running = found.state is OperationState.RUNNING and found.due_at is not None
    if is_running and found.due_at is not None and ports.clock() > found.due_at:
        operations.fail(
            operation_id, WorkerLostError("the process that ran the query is gone; run it again")
        )
        return operations.get(operation_id)
    return found


def cancel_operation(
    principal: Principal, ports: Ports, session_id: str, operation_id: str
) -> SqlOperation:
    """Let a query end; a job that a statement started is cancelled as a job.

    Raises:
        NotFoundError: No such operation.
    """
    session = get_session(principal, ports, session_id)
    return operations_of(ports, session).cancel(operation_id)


def close_operation(
    principal: Principal, ports: Ports, scripts: Scripts, session_id: str, operation_id: str
) -> None:
    """Forget an answer; a query that runs ends. Raises `NotFoundError`."""
    session = get_session(principal, ports, session_id)
    operations = operations_of(ports, session)
    operations.get(operation_id)
    operations.forget(operation_id)
    if operation_id in session.queries:
        scripts.forget_rows(session.tenant_id, operation_id)


def operations_of(ports: Ports, session: SqlSession) -> SqlOperations:
    """The operations of a session."""
    return SqlOperations(ports.kv, session.tenant_id, session.session_id)


def session_and_version(
    principal: Principal, ports: Ports, session_id: str
) -> tuple[SqlSession, int]:
    """A session of the caller as it is stored. Raises `NotFoundError`."""
    stored = ports.kv.get(principal.tenant_id, _SESSION + session_id)
    if stored is not None:
        assert isinstance(stored.value, dict)  # noqa: S101 - we wrote it
        session = SqlSession.from_json(stored.value)
        if session.owner == principal.subject and not _is_idle(ports, session):
            return session, stored.version
    raise NotFoundError(
        f"no session {session_id}: it was closed, or idle for {IDLE.seconds // 60} minutes; "
        "open another"
    )


def store_session(ports: Ports, session: SqlSession, version: int) -> None:
    """Replace a session, which is in use now. Raises `StateConflictError`."""
    used = session.model_copy(update={"used_at": ports.clock()})
    key = _SESSION + session.session_id
    ports.kv.compare_and_set(session.tenant_id, key, used.to_dict(), version)


def remember(
    ports: Ports, scripts: Scripts, session: SqlSession, version: int, operation: SqlOperation
) -> None:
    """Store a session with one more operation, and forget those that are too old.

    Raises:
        StateConflictError: Another statement of the session came in between.
    """
    operations = (*session.operations, operation.operation_id)
    queries = (*session.queries, operation.operation_id) if operation.is_query else session.queries
    kept = {"operations": operations[-MAX_OPERATIONS:], "queries": queries[-MAX_RESULTS:]}
    store_session(ports, session.model_copy(update=kept), version)
    stored = operations_of(ports, session)
    for old in {*operations[:-MAX_OPERATIONS], *queries[:-MAX_RESULTS]}:
        stored.forget(old)
    for old in queries[:-MAX_RESULTS]:
        scripts.forget_rows(session.tenant_id, old)


def new_id(ports: Ports) -> str:
    """A handle."""
    return str(uuid.UUID(ports.new_id()))  # Flink's own clients read handles as UUIDs


def _ended_idle(ports: Ports, scripts: Scripts, tenant_id: TenantId) -> int:
    """End the tenant's idle sessions; how many are left."""
    left = 0
    for key in ports.kv.keys(tenant_id, _SESSION):
        stored = ports.kv.get(tenant_id, key)
        if stored is None:
            continue
        assert isinstance(stored.value, dict)  # noqa: S101 - we wrote it
        session = SqlSession.from_json(stored.value)
        if _is_idle(ports, session):
            _forget(ports, scripts, session)
        else:
            left += 1
    return left


def _forget(ports: Ports, scripts: Scripts, session: SqlSession) -> None:
    operations = operations_of(ports, session)
    for operation_id in {*session.operations, *session.queries}:
        operations.forget(operation_id)
    for operation_id in session.queries:
        scripts.forget_rows(session.tenant_id, operation_id)
    ports.kv.delete(session.tenant_id, _SESSION + session.session_id)


def _is_idle(ports: Ports, session: SqlSession) -> bool:
    return ports.clock() - session.used_at > IDLE

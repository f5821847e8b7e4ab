"""Statements of sessions and their answers, in the key-value store; rows of queries are elsewhere.

Whoever runs a query shares nothing with the replica that was asked for it but the record here:
it ends when the record says that it is not wanted any more, and a record that is overdue tells that
nobody runs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime

from matih_ray.errors import ConflictError, MatihError, NotFoundError, StateConflictError
from matih_ray.model.ids import TenantId
from matih_ray.model.run import RunError
from matih_ray.model.sql_session import OperationState, ResultColumn, SqlOperation
from matih_ray.state.base import KeyValueStore

_OPERATION = "flink::operation::"
_RUNNING = "flink::running::"


def _families(kind: type[MatihError]) -> Iterator[type[MatihError]]:
    yield kind
    for one in kind.__subclasses__():
        yield from _families(one)


# What a stored error was. Of classes that share a code, the first, which is the most general.
_BY_CODE: dict[str, type[MatihError]] = {}
for _kind in _families(MatihError):
    _BY_CODE.setdefault(_kind.code, _kind)


def raise_failed(operation: SqlOperation) -> None:
    """Raise what an operation failed with, if it has.

    Raises:
        ConflictError: It was cancelled.
        MatihError: Its error.
    """
    if operation.state is OperationState.CANCELED:
        raise ConflictError("the query was cancelled")
    if operation.error is not None:
        error = operation.error
        kind = _BY_CODE.get(error.code, MatihError)
        context = {
            key: fact
            for key, fact in error.context.items()
            if fact is None or isinstance(fact, str | int | float)
        }
        raise kind(error.message, **context)


class SqlOperations:
    """The statements of one session."""

    def __init__(self, kv: KeyValueStore, tenant_id: TenantId, session_id: str) -> None:
        self._kv = kv
        self._tenant_id = tenant_id
        self._session_id = session_id

    def put(self, operation: SqlOperation) -> None:
        """Keep a new one."""
        key = self._key(operation.operation_id)
        self._kv.compare_and_set(self._tenant_id, key, operation.to_dict(), 0)

    def get(self, operation_id: str) -> SqlOperation:
        """One of them. Raises `NotFoundError`."""
        return self._stored(operation_id)[0]

    def forget(self, operation_id: str) -> None:
        """Remove one; a query ends soon after."""
        self._kv.delete(self._tenant_id, self._key(operation_id))
        self._kv.delete(self._tenant_id, _RUNNING + operation_id)

    def begin(self, operation: SqlOperation, now: datetime, limit: int) -> None:
        """Keep a new query, unless the tenant runs as many as it may.

        Raises:
            ConflictError: It does.
        """
        assert operation.due_at is not None  # noqa: S101 - a query has an end
        mine = _RUNNING + operation.operation_id
        self._kv.compare_and_set(self._tenant_id, mine, operation.due_at.isoformat(), 0)
        if _running(self._kv, self._tenant_id, now) > limit:
            self._kv.delete(self._tenant_id, mine)
            raise ConflictError(
                f"a tenant runs at most {limit} queries at a time; wait for one, or cancel it"
            )
        self.put(operation)

    def is_wanted(self, operation_id: str) -> bool:
        """Whether a query should go on."""
        try:
            return self.get(operation_id).state is OperationState.RUNNING
        except NotFoundError:
            return False

    def finish(self, operation_id: str, columns: tuple[ResultColumn, ...], pages: int) -> bool:
        """The rows of a query are there; whether anybody still wants them."""
        update = {"state": OperationState.FINISHED, "columns": columns, "pages": pages}
        return self._end(operation_id, lambda one: one.model_copy(update=update))

    def fail(self, operation_id: str, error: MatihError) -> bool:
        """A query has failed; whether anybody still wants to know."""
        update = {"state": OperationState.ERROR, "error": RunError.of(error)}
        return self._end(operation_id, lambda one: one.model_copy(update=update))

    def cancel(self, operation_id: str) -> SqlOperation:
        """Let a query end; what has ended stays as it is. Raises `NotFoundError`."""
        update = {"state": OperationState.CANCELED}
        self._end(operation_id, lambda one: one.model_copy(update=update))
        return self.get(operation_id)

    def _end(self, operation_id: str, change: Callable[[SqlOperation], SqlOperation]) -> bool:
        self._kv.delete(self._tenant_id, _RUNNING + operation_id)
        try:
            found, version = self._stored(operation_id)
            if found.state is not OperationState.RUNNING:
                return False
            key = self._key(operation_id)
            self._kv.compare_and_set(self._tenant_id, key, change(found).to_dict(), version)
        except (NotFoundError, StateConflictError):  # closed, or ended by somebody else
            return False
        return True

    def _stored(self, operation_id: str) -> tuple[SqlOperation, int]:
        stored = self._kv.get(self._tenant_id, self._key(operation_id))
        if stored is None:
            raise NotFoundError(f"the session has no operation {operation_id}; it may be closed")
        assert isinstance(stored.value, dict)  # noqa: S101 - we wrote it
        return SqlOperation.from_json(stored.value), stored.version

    def _key(self, operation_id: str) -> str:
        return f"{_OPERATION}{self._session_id}::{operation_id}"


def _running(kv: KeyValueStore, tenant_id: TenantId, now: datetime) -> int:
    """How many queries a tenant runs; what is overdue is removed."""
    count = 0
    for key in kv.keys(tenant_id, _RUNNING):
        stored = kv.get(tenant_id, key)
        if stored is None:
            continue
        if datetime.fromisoformat(str(stored.value)) < now:
            kv.delete(tenant_id, key)
        else:
            count += 1
    return count

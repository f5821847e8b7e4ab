"""A tenant's tables: which there are, what they were, and how they are laid out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from matih_ray.control.authorization import Action, Principal, authorize
from matih_ray.control.building import DEFAULT_SINK, build_sink
from matih_ray.control.ports import Ports
from matih_ray.errors import NotFoundError, ValidationError
from matih_ray.model.ids import SinkId, TenantId
from matih_ray.model.tables import TableSnapshot
from matih_ray.sinks.base import SupportsHistory


def list_tables(
    principal: Principal, ports: Ports, tenant_id: TenantId, sink_id: SinkId = DEFAULT_SINK
) -> list[str]:
    """Dotted names of the tenant's tables, without the tenant.

    Raises:
        NotFoundError: No such sink.
        ValidationError: The sink has no tables to look at.
        SinkError: The catalog cannot be reached.
    """
    authorize(principal, Action.READ, tenant_id)
    with _opened(ports, tenant_id, sink_id) as sink:
        return sink.tables()


def list_snapshots(
    principal: Principal,
    ports: Ports,
    tenant_id: TenantId,
    table: str,
    sink_id: SinkId = DEFAULT_SINK,
) -> list[TableSnapshot]:
    """The states of a table that can still be read, newest first.

    Raises:
        NotFoundError: No such sink or table.
        ValidationError: The sink keeps no snapshots.
        SinkError: The catalog cannot be reached.
    """
    authorize(principal, Action.READ, tenant_id)
    with _opened(ports, tenant_id, sink_id) as sink:
        _check_there(sink, table)
        return sink.snapshots(table)


def repartition_table(
    principal: Principal,
    ports: Ports,
    tenant_id: TenantId,
    table: str,
    partition_by: Sequence[str],
    sink_id: SinkId = DEFAULT_SINK,
) -> None:
    """Let new files of a table be partitioned in another way; with nothing, not at all.

    Raises:
        NotFoundError: No such sink or table.
        ValidationError: A transform or column is wrong, or the sink cannot do this.
        SinkError: The catalog cannot be reached.
    """
    authorize(principal, Action.MAINTAIN, tenant_id)
    with _opened(ports, tenant_id, sink_id) as sink:
        _check_there(sink, table)
        sink.repartition(table, tuple(partition_by))


def rename_table_column(
    principal: Principal,
    ports: Ports,
    tenant_id: TenantId,
    table: str,
    column: str,
    name: str,
    sink_id: SinkId = DEFAULT_SINK,
) -> None:
    """Give a column another name, under which it keeps its values.

    Raises:
        NotFoundError: No such sink or table.
        ValidationError: No such column, the name is taken, or the sink cannot do this.
        SinkError: The catalog cannot be reached.
    """
    authorize(principal, Action.MAINTAIN, tenant_id)
    with _opened(ports, tenant_id, sink_id) as sink:
        _check_there(sink, table)
        sink.rename_column(table, column, name)


@contextmanager
def _opened(ports: Ports, tenant_id: TenantId, sink_id: SinkId) -> Iterator[SupportsHistory]:
    sink = build_sink(ports, tenant_id, sink_id)
    try:
        if not isinstance(sink, SupportsHistory):
            raise ValidationError(f"sink {sink_id!r} keeps no snapshots of tables", field="sinkId")
        yield sink
    finally:
        sink.close()


def _check_there(sink: SupportsHistory, table: str) -> None:
    if table not in sink.tables():
        raise NotFoundError(f"no table {table!r} in this sink", table=table)

"""The MySQL source endpoint."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from contextlib import closing
from fnmatch import fnmatchcase
from typing import ClassVar

import pyarrow as pa

from matih_ray.errors import PlanError, SourceChangedError, UnknownUnitError, ValidationError
from matih_ray.model.checkpoint import Checkpoint
from matih_ray.model.ids import UnitId
from matih_ray.model.plan import IngestionPlan, IngestionSlice
from matih_ray.model.policy import IngestionPolicy, RunMode
from matih_ray.model.unit import EndpointUnitDescriptor
from matih_ray.model.value import Value
from matih_ray.sources.base import ConnectionTest, EndpointSpec, IngestionContext
from matih_ray.sources.mysql.catalog import Relation, relation_of, relations_of, unit_names
from matih_ray.sources.mysql.columns import (
    SelectedColumn,
    arrow_schema,
    check_unchanged,
    selected_columns,
)
from matih_ray.sources.mysql.config import MySqlConfig
from matih_ray.sources.mysql.cursor_scan import CursorScan
from matih_ray.sources.mysql.cutting import COUNT
from matih_ray.sources.mysql.decoding import default_batches
from matih_ray.sources.mysql.full import plan_full
from matih_ray.sources.mysql.incremental import plan_incremental
from matih_ray.sources.mysql.session import Session, Sessions
from matih_ray.sources.mysql.slices import between, condition, parse


class MySqlSource:
    """One database of a MySQL or MariaDB server: its tables and views.

    Safe to use from one thread at a time, except that several `read`s may be under way at once.
    """

    type: ClassVar[str] = "MYSQL"
    vendor: ClassVar[str] = "jdbc.mysql"
    config_model: ClassVar[builtins.type[Value]] = MySqlConfig
    secret_fields: ClassVar[tuple[str, ...]] = ("password",)

    def __init__(self, spec: EndpointSpec) -> None:
        """Check the configuration; nothing is connected yet.

        Raises:
            ValidationError: The configuration does not fit `MySqlConfig`.
        """
        self._endpoint_id = spec.endpoint_id
        self._sessions = Sessions(spec)

    def test(self) -> ConnectionTest:
        """Connect and authenticate, with a new connection."""
        latency_ms, version = self._sessions.ping()
        product = "MariaDB" if "MariaDB" in version else "MySQL"
        return ConnectionTest(latency_ms=latency_ms, server_version=f"{product} {version}")

    def list_units(self, context: IngestionContext) -> list[EndpointUnitDescriptor]:
        """Units that the account may see, ordered by id; `context.pattern` is a glob on the id.

        Raises:
            ValidationError: The page's offset or limit is negative.
        """
        if context.offset < 0 or context.limit < 0:
            raise ValidationError("offset and limit must not be negative", field="offset, limit")
        with self._sessions.lease("listing units") as session:
            names = unit_names(session)
            if context.pattern is not None:
                names = [row for row in names if fnmatchcase(row[0], context.pattern)]
            page = names[context.offset : context.offset + context.limit]
            relations = relations_of(session, [name for _, name in page])
        return [relation.unit(self._endpoint_id) for relation in relations]

    def describe_unit(self, unit_id: UnitId) -> EndpointUnitDescriptor:
        """One unit with its columns and estimates."""
        with self._sessions.lease(f"describing {unit_id}") as session:
            return relation_of(session, unit_id).unit(self._endpoint_id)

    def read_schema(self, unit: EndpointUnitDescriptor, policy: IngestionPolicy) -> pa.Schema:
        """The schema of every batch, from the unit's native types alone.

        Raises:
            ValidationError: The policy's columns or encodings do not fit the unit.
        """
        return arrow_schema(selected_columns(unit, policy))

    def plan_incremental_slices(
        self,
        unit: EndpointUnitDescriptor,
        checkpoint: Checkpoint | None,
        policy: IngestionPolicy,
        target_slice_size: int,
    ) -> IngestionPlan:
        """Slices of `target_slice_size` rows; see `full` and `incremental` for how.

        Raises:
            ValidationError: The policy does not fit the unit, or the size is not positive.
        """
        columns = _checked(unit, policy, target_slice_size)
        with self._sessions.lease(f"planning {unit.unit_id}") as session:
            relation = _present(session, unit)
            check_unchanged(relation, unit, columns)
            if policy.run_mode is RunMode.INCREMENTAL or policy.cursor_column is not None:
                # a full load with a cursor is cut by it, so that incremental runs can go on there
                scan = CursorScan.of(session, unit, relation, policy)
                plan = plan_incremental(scan, checkpoint, policy, target_slice_size)
            else:
                plan = plan_full(session, unit, relation, target_slice_size)
            return _counted(session, relation, plan) if policy.exact_count else plan

    def read(
        self, unit: EndpointUnitDescriptor, slice_: IngestionSlice, policy: IngestionPolicy
    ) -> Iterator[pa.RecordBatch]:
        """Batches of one slice, from one SELECT that streams."""
        params = parse(slice_)
        columns = selected_columns(unit, policy)
        with self._sessions.lease(f"reading {unit.unit_id}") as session:
            relation = _present(session, unit)
            check_unchanged(relation, unit, columns)
            statement = _SELECT.format(
                columns=", ".join([column.expression for column in columns]),
                relation=relation.identifier,
                condition=condition(params, relation),
            )
            with closing(session.stream(statement)) as rows:
                yield from default_batches(rows, columns)

    def close(self) -> None:
        """Release the idle connection. Safe to call twice."""
        self._sessions.close()


def _checked(
    unit: EndpointUnitDescriptor, policy: IngestionPolicy, target_rows: int
) -> tuple[SelectedColumn, ...]:
    if target_rows <= 0:
        raise ValidationError(
            f"the target slice size is a number of rows above 0, not {target_rows}",
            field="targetSliceRows",
        )
    if policy.filter is not None:
        raise ValidationError(
            "this source has no filters; make a view and ingest that", field="filter"
        )
    if policy.run_mode is RunMode.CDC:
        raise PlanError(
            f"{unit.unit_id}: this source has no cdc mode; use full or incremental",
            unit_id=unit.unit_id,
        )
    return selected_columns(unit, policy)


def _present(session: Session, unit: EndpointUnitDescriptor) -> Relation:
    """The relation of a unit that was there when the unit was described."""
    try:
        return relation_of(session, unit.unit_id)
    except UnknownUnitError:
        raise SourceChangedError(
            f"{unit.unit_id} is gone since it was described, or the account may no longer see it",
            unit_id=unit.unit_id,
        ) from None


def _counted(session: Session, relation: Relation, plan: IngestionPlan) -> IngestionPlan:
    """The plan with the exact number of rows in its slices' ranges."""
    where = "TRUE"
    if plan.cursor_column is not None and plan.statistics["upper"] is not None:
        lower, upper = plan.statistics["lower"], plan.statistics["upper"]
        low = None if lower is None else (str(lower),)
        where = between(relation, (plan.cursor_column,), low, (str(upper),))
    (count,) = session.row(COUNT.format(relation=relation.identifier, condition=where))
    statistics = {**plan.statistics, "exactRows": int(str(count))}
    return plan.model_copy(update={"statistics": statistics})


_SELECT = "SELECT {columns} FROM {relation} WHERE {condition}"

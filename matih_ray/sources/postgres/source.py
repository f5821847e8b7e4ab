"""The PostgreSQL source endpoint."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import ClassVar

import pyarrow as pa
from psycopg2 import sql

from matih_ray.errors import SourceChangedError, UnknownUnitError, ValidationError
from matih_ray.model.checkpoint import Checkpoint
from matih_ray.model.ids import UnitId
from matih_ray.model.plan import IngestionPlan, IngestionSlice
from matih_ray.model.policy import IngestionPolicy, RunMode
from matih_ray.model.unit import EndpointUnitDescriptor
from matih_ray.model.value import Value
from matih_ray.sources.base import ConnectionTest, EndpointSpec, IngestionContext
from matih_ray.sources.postgres import copy_kernels
from matih_ray.sources.postgres.catalog import (
    Relation,
    relation_of,
    relations_of,
    unit_names,
)
from matih_ray.sources.postgres.change_runs.plans import ROWS, HeldRows, plan_changes
from matih_ray.sources.postgres.change_runs.position import (
    LogPosition,
    LogSlice,
    RowsSlice,
    parse_change,
)
from matih_ray.sources.postgres.change_runs.preparing import check_log, confirm, drop, opened
from matih_ray.sources.postgres.change_runs.reading import LogReader
from matih_ray.sources.postgres.change_runs.rows import snapshot_rows, with_fields
from matih_ray.sources.postgres.changes.messages import lsn_of
from matih_ray.sources.postgres.changes.replication import ChangeStream
from matih_ray.sources.postgres.columns import (
    SelectedColumn,
    arrow_schema,
    check_unchanged,
    selected_columns,
)
from matih_ray.sources.postgres.config import PostgresConfig
from matih_ray.sources.postgres.copying import open_copy
from matih_ray.sources.postgres.cursor_scan import CursorScan
from matih_ray.sources.postgres.decoding import BlockDecoder
from matih_ray.sources.postgres.full import plan_full
from matih_ray.sources.postgres.incremental import plan_incremental
from matih_ray.sources.postgres.names import qualified
from matih_ray.sources.postgres.session import RANGE_SCAN, Session, Sessions
from matih_ray.sources.postgres.slices import (
    NullSlice,
    PageSlice,
    RangeSlice,
    between,
    condition,
    parse,
)
from matih_ray.sources.postgres.snapshot import HeldSnapshot


class PostgresSource:
    """One PostgreSQL database: tables, partitioned tables, views, materialized and foreign tables.

    Safe to use from one thread at a time, except that several `read`s may be under way at once.
    """

    type: ClassVar[str] = "POSTGRESQL"
    vendor: ClassVar[str] = "jdbc.postgres"
    config_model: ClassVar[builtins.type[Value]] = PostgresConfig
    secret_fields: ClassVar[tuple[str, ...]] = ("password",)

    def __init__(self, spec: EndpointSpec) -> None:
        """Check the configuration; nothing is connected yet.

        Raises:
            ValidationError: The configuration does not fit `PostgresConfig`.
        """
        self._endpoint_id = spec.endpoint_id
        self._spec = spec
        self._sessions = Sessions(spec)

    def test(self) -> ConnectionTest:
        """Connect and authenticate, with a new connection."""
        latency_ms, version = self._sessions.ping()
        return ConnectionTest(latency_ms=latency_ms, server_version=f"PostgreSQL {version}")

    def list_units(self, context: IngestionContext) -> list[EndpointUnitDescriptor]:
        """Units that the role may read, ordered by id; `context.pattern` is a glob on the id.

        Raises:
            ValidationError: The page's offset or limit is negative.
        """
        if context.offset < 0 or context.limit < 0:
            raise ValidationError("offset and limit must not be negative", field="offset, limit")
        with self._sessions.lease("listing units") as session:
            names = unit_names(session)
            if context.pattern is not None:
                names = [row for row in names if fnmatchcase(row[1], context.pattern)]
            page = names[context.offset : context.offset + context.limit]
            relations = relations_of(session, [oid for oid, _ in page])
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
        schema = arrow_schema(_selected(unit, policy))
        return with_fields(schema) if policy.run_mode is RunMode.CDC else schema

    def plan_incremental_slices(
        self,
        unit: EndpointUnitDescriptor,
        checkpoint: Checkpoint | None,
        policy: IngestionPolicy,
        target_slice_size: int,
    ) -> IngestionPlan:
        """Slices of about `target_slice_size` rows; see `full`, `incremental` and `change_runs`
        for how.

        Raises:
            ValidationError: The policy does not fit the unit, or the size is not positive.
        """
        columns = _checked(unit, policy, target_slice_size)
        with self._sessions.lease(f"planning {unit.unit_id}") as session:
            relation = _present(session, unit)
            check_unchanged(relation, unit, columns)
            if policy.run_mode is RunMode.CDC:
                return plan_changes(session, unit, relation, checkpoint, policy, target_slice_size)
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
        """Batches of one slice; see `copying` for the route that rows take, and `change_runs` for
        that of changes."""
        columns = _selected(unit, policy)
        copy_kernels.expect(_estimated_bytes(unit, slice_))
        if policy.run_mode is not RunMode.CDC:
            params = parse(slice_)
            yield from self._rows(unit, columns, params, params.snapshot)
            return
        change = parse_change(slice_)
        if isinstance(change, LogSlice):
            key = policy.key_columns or unit.primary_key
            yield from self._changes(unit, columns, key, change)
            return
        part, lsn = (change.part, change.lsn) if isinstance(change, RowsSlice) else (change, "0/0")
        for batch in self._rows(unit, columns, part, change.snapshot):
            yield snapshot_rows(batch, lsn_of(lsn))

    def hold_snapshot(self, plan: IngestionPlan) -> HeldSnapshot | HeldRows:
        """Open the one snapshot in which a plan's slices mean something."""
        held = HeldRows if plan.strategy == ROWS else HeldSnapshot
        return held(self._sessions.open(), plan)

    def open_log(
        self,
        unit: EndpointUnitDescriptor,
        checkpoint: Checkpoint | None,
        policy: IngestionPolicy,
        reader: str,
    ) -> Checkpoint:
        """See `SupportsChangeLog`; publication and slot are made when they are missing."""
        with self._sessions.lease(f"opening the log of {unit.unit_id}") as session:
            relation = _present(session, unit)
            return opened(session, unit, relation, checkpoint, policy, reader)

    def confirm_log(self, checkpoint: Checkpoint) -> None:
        """See `SupportsChangeLog`."""
        if not isinstance(checkpoint.cursor, dict):
            return
        position = LogPosition.from_json(checkpoint.cursor)
        with self._sessions.lease(f"confirming slot {position.slot}") as session:
            confirm(session, position)

    def drop_log(self, unit_id: UnitId, reader: str) -> None:
        """See `SupportsChangeLog`."""
        with self._sessions.lease(f"dropping the slot of {unit_id}") as session:
            drop(session, reader)

    def close(self) -> None:
        """Release the idle connection. Safe to call twice."""
        self._sessions.close()

    def _rows(
        self,
        unit: EndpointUnitDescriptor,
        columns: tuple[SelectedColumn, ...],
        params: RangeSlice | NullSlice | PageSlice,
        snapshot: str | None,
    ) -> Iterator[pa.RecordBatch]:
        """Rows of the table itself."""
        if isinstance(params, PageSlice) and params.first_page is not None and not snapshot:
            raise ValidationError(
                f"a slice of {unit.unit_id} is a range of pages and has no snapshot; bind it first",
                field="params.snapshot",
            )
        loose = [column.name for column in columns if column.mapping.loose]
        decoder = BlockDecoder(arrow_schema(columns), loose)
        with (
            self._sessions.lease(f"reading {unit.unit_id}") as session,
            session.reading(snapshot),
        ):
            if isinstance(params, RangeSlice) and params.columns:
                session.rows(RANGE_SCAN)
            statement = _copy_statement(session, unit, columns, params)
            stream = open_copy(session.connection, statement)
            try:
                yield from map(decoder.decode, stream.blocks())
            finally:
                stream.close()

    def _changes(
        self,
        unit: EndpointUnitDescriptor,
        columns: tuple[SelectedColumn, ...],
        key: tuple[str, ...],
        params: LogSlice,
    ) -> Iterator[pa.RecordBatch]:
        """Rows of the log."""
        with self._sessions.lease(f"reading changes of {unit.unit_id}") as session:
            relation = _present(session, unit)
            check_unchanged(relation, unit, columns)
            check_log(session, unit, relation, params)
        stream = ChangeStream(
            PostgresConfig.from_json(dict(self._spec.config)),
            self._spec.secrets.get("password"),
            self._spec.host_policy,
            slot=params.slot,
            publication=params.slot,
            position=lsn_of(params.lower),
        )
        try:
            yield from LogReader(self._sessions, unit, columns, key, params).batches(stream)
        finally:
            stream.close()


def _estimated_bytes(unit: EndpointUnitDescriptor, slice_: IngestionSlice) -> int:
    """What the slice takes of the table's pages, or 0 if nobody knows."""
    if not unit.estimated_bytes or not unit.estimated_rows or not slice_.estimated_rows:
        return 0
    return round(unit.estimated_bytes * min(1.0, slice_.estimated_rows / unit.estimated_rows))


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
    return _selected(unit, policy)


def _selected(unit: EndpointUnitDescriptor, policy: IngestionPolicy) -> tuple[SelectedColumn, ...]:
    """The columns that are read.

    Raises:
        ValidationError: The policy does not fit, or a column cannot be read from a log.
    """
    columns = selected_columns(unit, policy)
    if policy.run_mode is RunMode.CDC:
        for column in columns:
            if column.mapping.expression != "{}":
                raise ValidationError(
                    f"column {column.name!r} of type {column.native_type} comes from the log as "
                    'text with a currency sign; choose "text" for it in encodings, or leave it out',
                    field=f"encodings.{column.name}",
                )
    return columns


def _present(session: Session, unit: EndpointUnitDescriptor) -> Relation:
    """The relation of a unit that was there when the unit was described."""
    try:
        return relation_of(session, unit.unit_id)
    except UnknownUnitError:
        raise SourceChangedError(
            f"{unit.unit_id} is gone since it was described", unit_id=unit.unit_id
        ) from None


def _copy_statement(
    session: Session,
    unit: EndpointUnitDescriptor,
    columns: tuple[SelectedColumn, ...],
    params: RangeSlice | NullSlice | PageSlice,
) -> str:
    """Lock what is read, check that it is what was planned, and only then say how to read it."""
    source = sql.SQL("ONLY {}").format(qualified(params.table)) if isinstance(
        params, PageSlice
    ) else qualified(unit.unit_id)  # fmt: skip
    expressions = sql.SQL(", ").join([column.expression for column in columns])
    session.rows(sql.SQL("SELECT 1 FROM {} LIMIT 0").format(source))
    relation = _present(session, unit)
    check_unchanged(relation, unit, columns)
    statement = sql.SQL("COPY (SELECT {} FROM {} WHERE {}) TO STDOUT").format(
        expressions, source, condition(params, relation)
    )
    return str(statement.as_string(session.connection))


def _counted(session: Session, relation: Relation, plan: IngestionPlan) -> IngestionPlan:
    """The plan with the exact number of rows in its slices' ranges."""
    where: sql.Composable = sql.SQL("TRUE")
    if plan.cursor_column is not None and plan.statistics["upper"] is not None:
        lower, upper = plan.statistics["lower"], plan.statistics["upper"]
        where = between(
            relation,
            (plan.cursor_column,),
            None if lower is None else (str(lower),),
            (str(upper),),
        )
    statement = sql.SQL("SELECT count(*) FROM {} WHERE {}").format(relation.identifier, where)
    (count,) = session.row(statement)
    statistics = {**plan.statistics, "exactRows": int(count)}
    return plan.model_copy(update={"statistics": statistics})

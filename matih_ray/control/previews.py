"""A few rows of a unit, without a run: what its data looks like, through the readers of a run."""

from __future__ import annotations

import base64
import contextlib
import math
from collections.abc import Generator, Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import islice

import pyarrow as pa
from pydantic import SecretStr

from matih_ray.control.authorization import Action, Principal, authorize
from matih_ray.control.building import build_source, build_unstored_source
from matih_ray.control.connection_urls import parse_connection
from matih_ray.control.loads import LoadRequest, check_filter_of, check_policy, checked_load
from matih_ray.control.ports import Ports
from matih_ray.errors import ValidationError
from matih_ray.model.ids import TenantId, UnitId
from matih_ray.model.plan import IngestionPlan
from matih_ray.model.policy import IngestionPolicy
from matih_ray.model.preview import MAX_TEXT_CHARS, Preview, PreviewColumn
from matih_ray.model.unit import EndpointUnitDescriptor
from matih_ray.model.value import JsonValue
from matih_ray.planning.planner import make_plan
from matih_ray.sources.base import SourceEndpoint, SupportsSnapshot

DEFAULT_ROWS = 10
# A look, not an export: a page of a screen.
MAX_ROWS = 100
# The first slices may be empty, the tenth hardly is.
MAX_SLICES = 10


def preview_unit(
    principal: Principal,
    ports: Ports,
    tenant_id: TenantId,
    request: LoadRequest,
    *,
    limit: int = DEFAULT_ROWS,
) -> Preview:
    """The first rows that a run started now from nothing would read. Starts and stores nothing.

    Raises:
        NotFoundError: No such endpoint, or the unit is not in its catalog.
        ValidationError: Sink or policy do not fit.
        PlanError: No plan can be made.
        SourceError: Reading failed.
    """
    authorize(principal, Action.CONNECT, tenant_id)
    load = checked_load(ports, tenant_id, request)
    source = build_source(ports, tenant_id, request.endpoint_id)
    try:
        return _preview(source, load.unit, load.policy, limit)
    finally:
        source.close()


def preview_connection(
    principal: Principal,
    ports: Ports,
    tenant_id: TenantId,
    connection_url: SecretStr,
    unit_id: UnitId | None = None,
    policy: IngestionPolicy | None = None,
    *,
    limit: int = DEFAULT_ROWS,
) -> Preview:
    """The same of a connector that is not registered, by a connection string.

    Its two forms are `control.connection_urls`'. Nothing of it is stored or logged, and hosts are
    allowed as for registered connectors. The unit is the source's, since there is no catalog.

    Raises:
        ValidationError: The string is none, or names no unit and none is given.
        HostNotAllowedError: The operator does not allow sources where it points to.
        UnknownUnitError: The source has no such unit.
        SourceError: Reading failed.
    """
    authorize(principal, Action.CONNECT, tenant_id)
    connection = parse_connection(ports, connection_url.get_secret_value())
    wanted = unit_id or connection.unit_id
    if wanted is None:
        raise ValidationError("name the unit to be previewed", field="unitId")
    chosen = policy or IngestionPolicy()
    source = build_unstored_source(
        ports, tenant_id, connection.type, connection.config, connection.secrets
    )
    try:
        unit = source.describe_unit(wanted)
        check_policy(unit, chosen)
        check_filter_of(ports, connection.type, chosen)
        return _preview(source, unit, chosen, limit)
    finally:
        source.close()


def _preview(
    source: SourceEndpoint, unit: EndpointUnitDescriptor, policy: IngestionPolicy, limit: int
) -> Preview:
    schema = source.read_schema(unit, policy)
    plan = make_plan(source, unit, None, policy)
    with contextlib.closing(_batches(source, unit, plan, policy)) as batches:
        rows = _first_rows(batches, limit)
    columns = tuple(PreviewColumn(name=one.name, arrow_type=str(one.type)) for one in schema)
    return Preview(columns=columns, rows=rows)


def _batches(
    source: SourceEndpoint,
    unit: EndpointUnitDescriptor,
    plan: IngestionPlan,
    policy: IngestionPolicy,
) -> Generator[pa.RecordBatch, None, None]:
    snapshot = None
    if isinstance(source, SupportsSnapshot) and not plan.resumable:
        snapshot = source.hold_snapshot(plan)
    try:
        for slice_ in plan.slices[:MAX_SLICES]:
            bound = slice_ if snapshot is None else snapshot.bind(slice_)
            yield from source.read(unit, bound, policy)
    finally:
        if snapshot is not None:
            snapshot.close()


def _first_rows(batches: Iterator[pa.RecordBatch], limit: int) -> tuple[tuple[JsonValue, ...], ...]:
    def rows() -> Iterator[tuple[JsonValue, ...]]:
        for batch in batches:
            few = batch.slice(0, limit)
            columns = [_values(column) for column in few.columns]
            for number in range(few.num_rows):
                yield tuple(shown(values[number]) for values in columns)

    return tuple(islice(rows(), limit))


def _values(column: pa.Array) -> list[object]:
    try:
        return list(column.to_pylist())
    except (OverflowError, ValueError):  # years that Python's calendar has not
        return list(column.cast(pa.string()).to_pylist())


def shown(value: object) -> JsonValue:
    """A value of a row as JSON; see `Preview`."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, bytes):
        return _cut(base64.b64encode(value).decode("ascii"))
    if isinstance(value, dict):
        return {str(key): shown(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [shown(part) for part in value]
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, (Decimal, timedelta, str)):
        return _cut(str(value))
    return _cut(str(value))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT_CHARS else text[: MAX_TEXT_CHARS - 1] + "…"

"""The catalog: what is known of an endpoint's units. Metadata first: only what was collected can
be planned or run, so that every run has a described, typed unit to refer to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import islice

from matih_ray.control.authorization import Action, Principal, authorize
from matih_ray.control.building import build_source
from matih_ray.control.connector_types import source_type
from matih_ray.control.pages import Page, page_of
from matih_ray.control.ports import Ports
from matih_ray.errors import SourcePermissionError, UnknownUnitError, ValidationError
from matih_ray.model.ids import EndpointId, TenantId, UnitId
from matih_ray.model.run import RunError
from matih_ray.model.unit import EndpointUnitDescriptor
from matih_ray.sources.base import IngestionContext, SourceEndpoint
from matih_ray.state.base import MAX_PAGE_ROWS

# One catalog is replaced in one transaction and held in memory once; a database with more tables
# than this is collected in parts, by pattern.
MAX_UNITS = 20_000
# Units between two looks whether the collection is still wanted: each is a query of our own store,
# and a unit may be one of the source's.
UNITS_PER_QUESTION = 20
# Units that could not be described and are named in the answer; the rest is counted.
MAX_SKIPPED_SHOWN = 100


@dataclass(frozen=True)
class SkippedUnit:
    """A unit that the source lists and would not describe."""

    unit_id: UnitId
    error: RunError


@dataclass(frozen=True)
class CollectedCatalog:
    """What a collection found. `skipped` is a part of the `skipped_total` units left out."""

    endpoint_id: EndpointId
    units: int
    skipped_total: int
    skipped: tuple[SkippedUnit, ...]


def collect_catalog(
    principal: Principal,
    ports: Ports,
    tenant_id: TenantId,
    endpoint_id: EndpointId,
    *,
    pattern: str | None = None,
) -> CollectedCatalog:
    """Read the endpoint's units into its catalog.

    Without a pattern the catalog becomes exactly what the source shows. With one (a glob on the
    unit id) matching units are added or refreshed and all others stay as they are.

    Raises:
        NotFoundError: No such endpoint.
        ValidationError: The endpoint is a sink, or has more than `MAX_UNITS` units.
        SourceError: The source cannot be read; the catalog is unchanged.
    """
    authorize(principal, Action.CONNECT, tenant_id)
    source_type(ports, ports.metadata.get_endpoint(tenant_id, endpoint_id))
    collected = collect_units(ports, tenant_id, endpoint_id, pattern=pattern)
    assert collected is not None  # noqa: S101 nobody can cancel it
    return collected


def collect_units(
    ports: Ports,
    tenant_id: TenantId,
    endpoint_id: EndpointId,
    *,
    pattern: str | None = None,
    is_wanted: Callable[[], bool] = lambda: True,
) -> CollectedCatalog | None:
    """`collect_catalog` for callers that have been authorized.

    `is_wanted` is asked now and then, and before the catalog is changed; once it says no, the
    answer is None and the catalog is unchanged.

    Raises: As `collect_catalog`.
    """
    source = build_source(ports, tenant_id, endpoint_id)
    units: list[EndpointUnitDescriptor] = []
    skipped: list[SkippedUnit] = []
    try:
        for position, listed in enumerate(_listed(source, tenant_id, pattern)):
            if position % UNITS_PER_QUESTION == 0 and not is_wanted():
                return None
            if len(units) == MAX_UNITS:
                raise ValidationError(
                    f"the endpoint has more than {MAX_UNITS} units; collect parts of it by pattern",
                    field="pattern",
                )
            try:
                # a source may leave columns out of its listing where they cost a call each
                units.append(listed if listed.columns else source.describe_unit(listed.unit_id))
            except (SourcePermissionError, UnknownUnitError) as error:
                skipped.append(SkippedUnit(listed.unit_id, RunError.of(error)))
    finally:
        source.close()
    if not is_wanted():
        return None
    if pattern is None:
        ports.metadata.replace_units(tenant_id, endpoint_id, units)
    else:
        for unit in units:
            ports.metadata.put_unit(tenant_id, unit)
    return CollectedCatalog(
        endpoint_id, len(units), len(skipped), tuple(skipped[:MAX_SKIPPED_SHOWN])
    )


def list_units(
    principal: Principal,
    ports: Ports,
    tenant_id: TenantId,
    endpoint_id: EndpointId,
    *,
    pattern: str | None,
    include_disabled: bool = False,
    offset: int,
    limit: int,
) -> Page[EndpointUnitDescriptor]:
    """A page of the endpoint's catalog, ordered by id; `pattern` is a glob on the unit id.

    Units that are configured not to be loaded are left out unless they are asked for.

    Raises:
        NotFoundError: No such endpoint.
    """
    authorize(principal, Action.READ, tenant_id)
    ports.metadata.get_endpoint(tenant_id, endpoint_id)
    if pattern is None:
        return page_of(
            lambda start, count: ports.metadata.list_units(
                tenant_id,
                endpoint_id,
                enabled_only=not include_disabled,
                offset=start,
                limit=count,
            ),
            offset,
            limit,
        )
    matching = (
        unit
        for unit in catalogued(ports, tenant_id, endpoint_id, enabled_only=not include_disabled)
        if fnmatchcase(unit.unit_id, pattern)
    )
    return page_of(lambda start, count: list(islice(matching, start, start + count)), offset, limit)


def get_unit(
    principal: Principal,
    ports: Ports,
    tenant_id: TenantId,
    endpoint_id: EndpointId,
    unit_id: UnitId,
) -> EndpointUnitDescriptor:
    """One unit with its columns.

    Raises:
        NotFoundError: No such endpoint.
        UnknownUnitError: It is not in the endpoint's catalog.
    """
    authorize(principal, Action.READ, tenant_id)
    ports.metadata.get_endpoint(tenant_id, endpoint_id)
    return ports.metadata.get_unit(tenant_id, endpoint_id, unit_id)


def _listed(
    source: SourceEndpoint, tenant_id: TenantId, pattern: str | None
) -> Iterator[EndpointUnitDescriptor]:
    """All units that the source lists, page by page; stops by itself at `MAX_UNITS` and one."""
    offset = 0
    while offset <= MAX_UNITS:
        context = IngestionContext(tenant_id, pattern, offset)
        page = source.list_units(context)
        yield from page
        if len(page) < context.limit:
            return
        offset += len(page)


def catalogued(
    ports: Ports, tenant_id: TenantId, endpoint_id: EndpointId, *, enabled_only: bool = False
) -> Iterator[EndpointUnitDescriptor]:
    """The whole catalog of an endpoint, ordered by id, read page by page."""
    offset = 0
    while offset <= MAX_UNITS:
        page = ports.metadata.list_units(
            tenant_id,
            endpoint_id,
            enabled_only=enabled_only,
            offset=offset,
            limit=MAX_PAGE_ROWS,
        )
        yield from page
        if len(page) < MAX_PAGE_ROWS:
            return
        offset += len(page)

"""Sources over the example API, in a line each."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from matih_ray.model.checkpoint import Checkpoint
from matih_ray.model.ids import EndpointId, TenantId, UnitId
from matih_ray.model.plan import IngestionPlan
from matih_ray.model.policy import IngestionPolicy
from matih_ray.planning.planner import make_plan
from matih_ray.sources.base import EndpointSpec
from matih_ray.sources.http import GraphqlSource, RestSource
from matih_ray.sources.http.endpoint import HttpSource

# Retries as usual, without the usual waits.
QUICK = {"retryBackoffS": 0.001}
FULL = IngestionPolicy()

_opened: list[HttpSource] = []


def close_sources() -> None:
    """Close every source of this test."""
    while _opened:
        _opened.pop().close()


def rest(url: str, *, secrets: dict[str, str] | None = None, **config: Any) -> RestSource:
    spec = _spec("REST", {"baseUrl": url, "limits": QUICK, **config}, secrets or {})
    _opened.append(source := RestSource(spec))
    return source


def graphql(url: str, *, secrets: dict[str, str] | None = None, **config: Any) -> GraphqlSource:
    spec = _spec("GRAPHQL", {"url": url, "limits": QUICK, **config}, secrets or {})
    _opened.append(source := GraphqlSource(spec))
    return source


def everything(name: str = "items", **stream: Any) -> dict[str, Any]:
    """A stream that is one answer, `/everything`."""
    return {"name": name, "path": "everything", **stream}


def declared(**types: str) -> list[dict[str, str]]:
    """A stream's schema."""
    return [{"name": name, "type": type_} for name, type_ in types.items()]


def plan(
    source: HttpSource,
    policy: IngestionPolicy = FULL,
    checkpoint: Checkpoint | None = None,
    unit: str = "items",
) -> IngestionPlan:
    return make_plan(source, source.describe_unit(UnitId(unit)), checkpoint, policy)


def table(
    source: HttpSource,
    policy: IngestionPolicy = FULL,
    checkpoint: Checkpoint | None = None,
    unit: str = "items",
) -> pa.Table:
    """All rows that a run would read."""
    described = source.describe_unit(UnitId(unit))
    made = make_plan(source, described, checkpoint, policy)
    batches = [b for slice_ in made.slices for b in source.read(described, slice_, policy)]
    return pa.Table.from_batches(batches, source.read_schema(described, policy))


def _spec(type_: str, config: dict[str, Any], secrets: dict[str, str]) -> EndpointSpec:
    return EndpointSpec(TenantId("tenant"), EndpointId("endpoint"), "test", type_, config, secrets)

"""The in-memory source keeps the source contract, so that tests with it mean something."""

from __future__ import annotations

import pytest

from matih_ray.model.ids import EndpointId, TenantId
from matih_ray.model.policy import IngestionPolicy, RunMode
from matih_ray.sources.base import EndpointSpec
from matih_ray.testing.contracts.source import SourceCase, SourceContract
from matih_ray.testing.fakes import MemorySource

SPEC = EndpointSpec(
    tenant_id=TenantId("acme"),
    endpoint_id=EndpointId("e"),
    name="shop",
    type="MEMORY",
    config={"tables": {"public.orders": 50_000, "public.nothing": 0}},
    secrets={"password": "hunter2"},
)


class TestMemorySource(SourceContract):
    @pytest.fixture
    def case(self) -> SourceCase:
        return SourceCase(
            build=lambda: MemorySource(SPEC),
            unit_id="public.orders",
            unknown_unit_id="public.unknown",
            empty_unit_id="public.nothing",
            policies=(
                IngestionPolicy(),
                IngestionPolicy(run_mode=RunMode.INCREMENTAL, cursor_column="id"),
            ),
            open_connections=lambda: MemorySource.open_reads,
            secret="hunter2",
        )

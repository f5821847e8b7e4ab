"""The contract of units' configurations."""

from __future__ import annotations

import pytest

from matih_ray.errors import NotFoundError, StateConflictError
from matih_ray.model.ids import EndpointId, TenantId, UnitId
from matih_ray.model.policy import IngestionPolicy
from matih_ray.model.unit_configuration import UnitConfiguration
from matih_ray.state.base import MetadataStore
from matih_ray.testing.contracts.state_samples import NOON, endpoint, new_tenant, unit


def _configuration(
    tenant_id: TenantId, endpoint_id: EndpointId, name: str, *, enabled: bool = True
) -> UnitConfiguration:
    return UnitConfiguration(
        tenant_id=tenant_id,
        endpoint_id=endpoint_id,
        unit_id=UnitId(name),
        enabled=enabled,
        policy=IngestionPolicy(target_slice_rows=123),
        updated_by="ann",
        updated_at=NOON,
    )


class UnitConfigurationContract:
    """What people chose for units."""

    def test_a_configuration_comes_back_and_changes_by_its_version(
        self, metadata: MetadataStore
    ) -> None:
        record = metadata.put_endpoint(endpoint(new_tenant()))
        key = (record.tenant_id, record.endpoint_id)
        made = metadata.put_unit_configuration(_configuration(*key, "a"))
        assert made.version == 1
        found = metadata.get_unit_configurations(*key, [UnitId("a"), UnitId("b")])
        assert found == {"a": made}
        later = metadata.put_unit_configuration(made.model_copy(update={"enabled": False}))
        assert metadata.get_unit_configurations(*key, [UnitId("a")]) == {"a": later}
        for stale in (made, _configuration(*key, "a")):
            with pytest.raises(StateConflictError):
                metadata.put_unit_configuration(stale)
        assert metadata.get_unit_configurations(new_tenant(), key[1], [UnitId("a")]) == {}

    def test_a_configuration_needs_its_endpoint_and_goes_with_it(
        self, metadata: MetadataStore
    ) -> None:
        record = metadata.put_endpoint(endpoint(new_tenant()))
        key = (record.tenant_id, record.endpoint_id)
        metadata.put_unit_configuration(_configuration(*key, "a"))
        metadata.delete_endpoint(*key)
        assert metadata.get_unit_configurations(*key, [UnitId("a")]) == {}
        with pytest.raises(NotFoundError):
            metadata.put_unit_configuration(_configuration(*key, "a"))

    def test_disabled_units_are_left_out_of_pages_that_want_the_enabled_ones(
        self, metadata: MetadataStore
    ) -> None:
        record = metadata.put_endpoint(endpoint(new_tenant()))
        key = (record.tenant_id, record.endpoint_id)
        names = ["a", "b", "c", "d"]
        metadata.replace_units(key[0], key[1], [unit(key[1], name) for name in names])
        metadata.put_unit_configuration(_configuration(*key, "b", enabled=False))
        metadata.put_unit_configuration(_configuration(*key, "c"))
        everything = [found.unit_id for found in metadata.list_units(*key)]
        enabled = [found.unit_id for found in metadata.list_units(*key, enabled_only=True)]
        second = metadata.list_units(*key, enabled_only=True, offset=1, limit=1)
        assert everything == names
        assert enabled == ["a", "c", "d"]
        assert [found.unit_id for found in second] == ["c"]

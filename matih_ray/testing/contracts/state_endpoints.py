"""The contract of endpoints and their catalog."""

from __future__ import annotations

from datetime import timedelta, timezone

import pytest

from matih_ray.errors import (
    ConflictError,
    NotFoundError,
    StateConflictError,
    UnknownUnitError,
    ValidationError,
)
from matih_ray.model.ids import EndpointId, RunId, TenantId, UnitId
from matih_ray.state.base import MetadataStore
from matih_ray.testing.contracts.state_samples import (
    BAD_NAMES,
    NOON,
    THREADS,
    endpoint,
    new_tenant,
    run,
    stream,
    together,
    unit,
)


class EndpointContract:
    """Endpoints and catalog."""

    def test_an_endpoint_comes_back_as_it_was_stored(self, metadata: MetadataStore) -> None:
        tenant = new_tenant()
        stored = metadata.put_endpoint(endpoint(tenant))
        assert stored.version == 1
        assert metadata.get_endpoint(tenant, stored.endpoint_id) == stored
        assert metadata.find_endpoint(tenant, "warehouse") == stored
        assert metadata.list_endpoints(tenant) == [stored]

    def test_times_keep_their_moment_and_microseconds(self, metadata: MetadataStore) -> None:
        tenant = new_tenant()
        zone = timezone(timedelta(hours=5, minutes=30))
        stored = metadata.put_endpoint(endpoint(tenant, created_at=NOON.astimezone(zone)))
        assert metadata.get_endpoint(tenant, stored.endpoint_id).created_at == NOON

    def test_replacing_an_endpoint_needs_its_version(self, metadata: MetadataStore) -> None:
        tenant = new_tenant()
        first = metadata.put_endpoint(endpoint(tenant))
        second = metadata.put_endpoint(first.model_copy(update={"config": {"host": "other"}}))
        assert second.version == 2
        for stale in (first, first.model_copy(update={"version": 0})):
            with pytest.raises(StateConflictError):
                metadata.put_endpoint(stale)
        assert metadata.get_endpoint(tenant, first.endpoint_id) == second

    def test_a_name_belongs_to_one_endpoint_of_a_tenant(self, metadata: MetadataStore) -> None:
        tenant = new_tenant()
        first = metadata.put_endpoint(endpoint(tenant))
        with pytest.raises(ConflictError) as caught:
            metadata.put_endpoint(endpoint(tenant))
        assert caught.value.context["endpoint_id"] == first.endpoint_id
        other = metadata.put_endpoint(endpoint(tenant, name="other"))
        with pytest.raises(ConflictError):
            metadata.put_endpoint(other.model_copy(update={"name": "warehouse"}))
        metadata.put_endpoint(endpoint(new_tenant()))

    def test_a_renamed_endpoint_is_found_by_its_new_name_only(
        self, metadata: MetadataStore
    ) -> None:
        tenant = new_tenant()
        stored = metadata.put_endpoint(endpoint(tenant))
        renamed = metadata.put_endpoint(stored.model_copy(update={"name": "lake"}))
        assert metadata.find_endpoint(tenant, "lake") == renamed
        assert metadata.find_endpoint(tenant, "warehouse") is None

    def test_endpoints_are_listed_by_name_in_pages(self, metadata: MetadataStore) -> None:
        tenant = new_tenant()
        names = ["b", "a", "C", "é", "Z", "a1"]
        for name in names:
            metadata.put_endpoint(endpoint(tenant, name=name))
        pages = [
            [record.name for record in metadata.list_endpoints(tenant, offset=offset, limit=4)]
            for offset in (0, 4, 8)
        ]
        assert pages == [sorted(names)[:4], sorted(names)[4:], []]

    def test_an_endpoint_of_another_tenant_does_not_exist(self, metadata: MetadataStore) -> None:
        tenant, other = new_tenant(), new_tenant()
        stored = metadata.put_endpoint(endpoint(tenant))
        metadata.replace_units(tenant, stored.endpoint_id, [unit(stored.endpoint_id, "u")])
        assert metadata.find_endpoint(other, "warehouse") is None
        assert metadata.list_endpoints(other) == []
        assert metadata.list_units(other, stored.endpoint_id) == []
        with pytest.raises(NotFoundError):
            metadata.get_endpoint(other, stored.endpoint_id)
        with pytest.raises(UnknownUnitError):
            metadata.get_unit(other, stored.endpoint_id, UnitId("u"))
        with pytest.raises(NotFoundError):
            metadata.delete_endpoint(other, stored.endpoint_id)
        with pytest.raises(NotFoundError):
            metadata.replace_units(other, stored.endpoint_id, [])
        with pytest.raises(NotFoundError):
            metadata.put_unit(other, unit(stored.endpoint_id, "u"))

    def test_deleting_an_endpoint_takes_its_catalog_and_leaves_its_runs(
        self, metadata: MetadataStore
    ) -> None:
        tenant = new_tenant()
        stored = metadata.put_endpoint(endpoint(tenant, endpoint_id="e-1"))
        metadata.replace_units(tenant, stored.endpoint_id, [unit(stored.endpoint_id, "u")])
        created = metadata.create_run(run(stream(tenant)))
        metadata.delete_endpoint(tenant, stored.endpoint_id)
        with pytest.raises(NotFoundError):
            metadata.get_endpoint(tenant, stored.endpoint_id)
        with pytest.raises(NotFoundError):
            metadata.delete_endpoint(tenant, stored.endpoint_id)
        assert metadata.list_units(tenant, stored.endpoint_id) == []
        assert metadata.get_run(tenant, created.run_id) == created

    def test_units_come_back_as_they_were_stored(self, metadata: MetadataStore) -> None:
        tenant = new_tenant()
        owner = metadata.put_endpoint(endpoint(tenant)).endpoint_id
        odd = unit(owner, 'public."Odd. näme"', estimated_rows=2**40, kind="view")
        metadata.replace_units(tenant, owner, [unit(owner, "b"), odd, unit(owner, "a")])
        assert metadata.get_unit(tenant, owner, odd.unit_id) == odd
        listed = metadata.list_units(tenant, owner)
        assert [u.unit_id for u in listed] == ["a", "b", odd.unit_id]
        assert metadata.list_units(tenant, owner, offset=1, limit=1) == [listed[1]]

    def test_replacing_units_drops_what_is_not_named(self, metadata: MetadataStore) -> None:
        tenant = new_tenant()
        owner = metadata.put_endpoint(endpoint(tenant)).endpoint_id
        metadata.replace_units(tenant, owner, [unit(owner, "a"), unit(owner, "b")])
        metadata.replace_units(tenant, owner, [unit(owner, "b", kind="view"), unit(owner, "c")])
        listed = metadata.list_units(tenant, owner)
        assert [(u.unit_id, u.kind) for u in listed] == [("b", "view"), ("c", "table")]
        metadata.replace_units(tenant, owner, [])
        assert metadata.list_units(tenant, owner) == []

    def test_one_unit_is_inserted_or_refreshed(self, metadata: MetadataStore) -> None:
        tenant = new_tenant()
        owner = metadata.put_endpoint(endpoint(tenant)).endpoint_id
        metadata.put_unit(tenant, unit(owner, "a"))
        metadata.put_unit(tenant, unit(owner, "a", estimated_rows=7))
        assert metadata.list_units(tenant, owner) == [unit(owner, "a", estimated_rows=7)]

    def test_units_that_contradict_are_refused_and_nothing_changes(
        self, metadata: MetadataStore
    ) -> None:
        tenant = new_tenant()
        owner = metadata.put_endpoint(endpoint(tenant)).endpoint_id
        metadata.put_unit(tenant, unit(owner, "a"))
        for bad in (
            [unit(owner, "b"), unit(owner, "b", kind="view")],
            [unit(EndpointId("somebody else's"), "b")],
        ):
            with pytest.raises(ValidationError):
                metadata.replace_units(tenant, owner, bad)
        assert metadata.list_units(tenant, owner) == [unit(owner, "a")]

    def test_catalog_refreshes_at_once_end_as_one_of_them(self, metadata: MetadataStore) -> None:
        tenant = new_tenant()
        owner = metadata.put_endpoint(endpoint(tenant)).endpoint_id

        def refresh(number: int) -> None:
            units = [unit(owner, f"u-{n}", estimated_rows=number) for n in range(20)]
            if number % 2:
                units.reverse()
            metadata.replace_units(tenant, owner, units)

        assert together(THREADS, refresh) == [None] * THREADS
        estimates = {u.estimated_rows for u in metadata.list_units(tenant, owner)}
        assert len(estimates) == 1

    def test_pages_have_limits(self, metadata: MetadataStore) -> None:
        tenant = new_tenant()
        for offset, limit in ((-1, 10), (0, 0), (0, 1001)):
            with pytest.raises(ValidationError):
                metadata.list_endpoints(tenant, offset=offset, limit=limit)
            with pytest.raises(ValidationError):
                metadata.list_units(tenant, EndpointId("e"), offset=offset, limit=limit)
            with pytest.raises(ValidationError):
                metadata.list_runs(tenant, offset=offset, limit=limit)
            with pytest.raises(ValidationError):
                metadata.list_slices(tenant, RunId("r"), offset=offset, limit=limit)
            with pytest.raises(ValidationError):
                metadata.list_unit_states(tenant, offset=offset, limit=limit)

    @pytest.mark.parametrize("bad", BAD_NAMES, ids=["empty", "nul", "surrogate", "long"])
    def test_identifiers_that_cannot_be_stored_are_refused(
        self, metadata: MetadataStore, bad: str
    ) -> None:
        tenant = new_tenant()
        with pytest.raises(ValidationError):
            metadata.get_endpoint(tenant, EndpointId(bad))
        with pytest.raises(ValidationError):
            metadata.list_runs(TenantId(bad))
        with pytest.raises(ValidationError):
            metadata.put_endpoint(endpoint(tenant, name=bad))
        with pytest.raises(ValidationError):
            metadata.create_run(run(stream(tenant, unit_id=bad)))

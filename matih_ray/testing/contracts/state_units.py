"""The contract of slices and unit states."""

from __future__ import annotations

import pytest

from matih_ray.errors import (
    RunOverlapError,
    StateConflictError,
)
from matih_ray.model.ids import EndpointId, SinkId
from matih_ray.model.run import RunState, SliceRecord, SliceState
from matih_ray.state.base import MetadataStore
from matih_ray.testing.contracts.state_samples import (
    changed,
    finish,
    new_tenant,
    run,
    stream,
)


class UnitStateContract:
    """Slices and unit states."""

    def test_slices_are_replaced_by_sequence_and_listed_in_order(
        self, metadata: MetadataStore
    ) -> None:
        of = stream(new_tenant())
        run_id = metadata.create_run(run(of)).run_id
        slices = [
            SliceRecord(sequence=n, key=f"s-{n}", state=SliceState.WRITTEN, rows=n, read_s=0.25)
            for n in (2, 0, 1)
        ]
        metadata.put_slices(of.tenant_id, run_id, slices)
        late = slices[0].model_copy(update={"state": SliceState.COMMITTED, "attempts": 2})
        metadata.put_slices(of.tenant_id, run_id, [late])
        metadata.put_slices(of.tenant_id, run_id, [])
        assert metadata.list_slices(of.tenant_id, run_id) == [slices[1], slices[2], late]
        assert metadata.list_slices(of.tenant_id, run_id, offset=2, limit=1) == [late]
        assert metadata.list_slices(new_tenant(), run_id) == []

    def test_thousands_of_slices_are_stored_at_once(self, metadata: MetadataStore) -> None:
        of = stream(new_tenant())
        run_id = metadata.create_run(run(of)).run_id
        slices = [
            SliceRecord(sequence=n, key=f"s-{n}", state=SliceState.WRITTEN) for n in range(5_000)
        ]
        for _ in range(2):
            metadata.put_slices(of.tenant_id, run_id, slices)
        pages = [
            metadata.list_slices(of.tenant_id, run_id, offset=offset, limit=1000)
            for offset in range(0, 5_000, 1000)
        ]
        assert [record for page in pages for record in page] == slices

    def test_a_stream_without_runs_has_no_state(self, metadata: MetadataStore) -> None:
        of = stream(new_tenant())
        assert metadata.get_unit_state(of) is None
        assert metadata.list_unit_states(of.tenant_id) == []

    def test_the_state_of_a_stream_follows_its_run(self, metadata: MetadataStore) -> None:
        of = stream(new_tenant())
        record = metadata.create_run(run(of))
        seen = []
        for state in (
            RunState.RUNNING, RunState.PAUSED, RunState.QUEUED, RunState.RUNNING,
            RunState.FAILED, RunState.QUEUED, RunState.RUNNING, RunState.COMPLETED,
        ):  # fmt: skip
            record = metadata.update_run(changed(record, state=state))
            known = metadata.get_unit_state(of)
            assert known is not None
            assert (known.stream, known.last_run_id) == (of, record.run_id)
            seen.append((known.state, known.last_completed_run_id))
        assert seen[:-1] == [
            (RunState.RUNNING, None), (RunState.PAUSED, None), (RunState.QUEUED, None),
            (RunState.RUNNING, None), (RunState.FAILED, None), (RunState.QUEUED, None),
            (RunState.RUNNING, None),
        ]  # fmt: skip
        assert seen[-1] == (RunState.COMPLETED, record.run_id)

    def test_a_failed_run_leaves_the_last_completed_one(self, metadata: MetadataStore) -> None:
        of = stream(new_tenant())
        good = finish(metadata, metadata.create_run(run(of)), RunState.COMPLETED)
        bad = finish(metadata, metadata.create_run(run(of)), RunState.FAILED)
        known = metadata.get_unit_state(of)
        assert known is not None
        assert (known.state, known.last_run_id) == (RunState.FAILED, bad.run_id)
        assert known.last_completed_run_id == good.run_id

    def test_cancelling_an_old_run_does_not_hide_a_later_one(self, metadata: MetadataStore) -> None:
        of = stream(new_tenant())
        old = finish(metadata, metadata.create_run(run(of)), RunState.PAUSED)
        new = metadata.create_run(run(of))
        metadata.update_run(changed(old, state=RunState.CANCELLED))
        known = metadata.get_unit_state(of)
        assert known is not None
        assert (known.state, known.last_run_id) == (RunState.QUEUED, new.run_id)

    def test_a_refused_update_leaves_the_state_of_the_stream(self, metadata: MetadataStore) -> None:
        of = stream(new_tenant())
        created = metadata.create_run(run(of))
        owned = metadata.update_run(changed(created, state=RunState.RUNNING))
        before = metadata.get_unit_state(of)
        with pytest.raises(StateConflictError):
            metadata.update_run(changed(created, state=RunState.CANCELLED))
        with pytest.raises(RunOverlapError):
            metadata.create_run(run(of))
        assert metadata.get_unit_state(of) == before
        assert metadata.get_run(of.tenant_id, created.run_id) == owned

    def test_unit_states_are_filtered_and_paged(self, metadata: MetadataStore) -> None:
        tenant = new_tenant()
        for unit_id, sink in (("b", "iceberg"), ("a", "raw_files"), ("a", "iceberg")):
            metadata.create_run(run(stream(tenant, unit_id, sink)))
        listed = metadata.list_unit_states(tenant)
        keys = [(known.stream.unit_id, known.stream.sink_id) for known in listed]
        assert keys == [("a", "iceberg"), ("a", "raw_files"), ("b", "iceberg")]
        assert metadata.list_unit_states(tenant, sink_id=SinkId("raw_files")) == [listed[1]]
        assert metadata.list_unit_states(tenant, endpoint_id=EndpointId("e-2")) == []
        assert metadata.list_unit_states(tenant, offset=1, limit=1) == [listed[1]]
        assert metadata.list_unit_states(new_tenant()) == []

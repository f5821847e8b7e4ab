"""The contract of the run ledger: what is stored, who gets a stream, who owns a run."""

from __future__ import annotations

import itertools
from contextlib import suppress
from datetime import datetime, timedelta, timezone

import pytest

from matih_ray.errors import (
    ConflictError,
    NotFoundError,
    RunOverlapError,
    StateConflictError,
)
from matih_ray.model.ids import EndpointId, RunId, UnitId
from matih_ray.model.run import RunError, RunRecord, RunRequest, RunState, SliceRecord, SliceState
from matih_ray.state.base import MetadataStore
from matih_ray.testing.contracts.state_samples import (
    NOON,
    THREADS,
    changed,
    finish,
    new_tenant,
    plan,
    run,
    stream,
    together,
)


class RunContract:
    """What is stored, and which changes are refused."""

    def test_a_run_comes_back_as_it_was_stored(self, metadata: MetadataStore) -> None:
        of = stream(new_tenant())
        record = run(of, plan=plan(of), statistics={"deep": [1, {"x": 0.5}]}, heartbeat_at=NOON)
        created = metadata.create_run(record)
        assert created == changed(record, version=1)
        assert metadata.get_run(of.tenant_id, record.run_id) == created

    def test_every_field_survives_an_update(self, metadata: MetadataStore) -> None:
        of = stream(new_tenant())
        created = metadata.create_run(run(of))
        full = changed(
            created,
            state=RunState.RUNNING,
            requested=RunRequest.PAUSE,
            plan=plan(of),
            epoch=4,
            commit_sequence=5,
            through=2,
            rows=2**40,
            bytes=2**50,
            error=RunError(code="X", message="m", recovery="retry", context={"a": 1}),
            started_at=NOON + timedelta(seconds=1),
            finished_at=NOON + timedelta(seconds=2),
            heartbeat_at=NOON + timedelta(seconds=3),
            statistics={"k": "v"},
        )
        updated = metadata.update_run(full)
        assert updated == changed(full, version=2)
        assert metadata.get_run(of.tenant_id, created.run_id) == updated

    def test_a_second_active_run_of_a_stream_is_refused(self, metadata: MetadataStore) -> None:
        of = stream(new_tenant())
        first = metadata.create_run(run(of))
        for state in (RunState.QUEUED, RunState.RUNNING):
            with pytest.raises(RunOverlapError) as caught:
                metadata.create_run(run(of, state=state))
            assert caught.value.context["run_id"] == first.run_id
        running = metadata.update_run(changed(first, state=RunState.RUNNING, epoch=1))
        with pytest.raises(RunOverlapError):
            metadata.create_run(run(of))
        metadata.update_run(changed(running, state=RunState.COMPLETED))
        metadata.create_run(run(of))

    def test_other_streams_do_not_overlap(self, metadata: MetadataStore) -> None:
        tenant = new_tenant()
        metadata.create_run(run(stream(tenant)))
        metadata.create_run(run(stream(tenant, unit_id="public.lineitem")))
        metadata.create_run(run(stream(tenant, sink="raw_files")))
        metadata.create_run(run(stream(new_tenant())))

    def test_the_same_run_cannot_be_created_twice(self, metadata: MetadataStore) -> None:
        record = run(stream(new_tenant()))
        metadata.create_run(record)
        with pytest.raises(StateConflictError):
            metadata.create_run(record)

    def test_one_of_many_racing_runs_gets_the_stream(self, metadata: MetadataStore) -> None:
        of = stream(new_tenant())
        results = together(THREADS, lambda _: metadata.create_run(run(of)))
        winners = [result for result in results if isinstance(result, RunRecord)]
        losers = [result for result in results if isinstance(result, RunOverlapError)]
        assert (len(winners), len(losers)) == (1, THREADS - 1)
        assert {loser.context["run_id"] for loser in losers} == {winners[0].run_id}

    def test_one_of_many_resumed_runs_gets_the_stream(self, metadata: MetadataStore) -> None:
        of = stream(new_tenant())
        failed = [
            finish(metadata, metadata.create_run(run(of)), RunState.FAILED) for _ in range(THREADS)
        ]
        results = together(
            THREADS, lambda n: metadata.update_run(changed(failed[n], state=RunState.QUEUED))
        )
        assert sum(isinstance(result, RunRecord) for result in results) == 1
        assert sum(isinstance(result, RunOverlapError) for result in results) == THREADS - 1

    def test_a_failed_run_cannot_resume_while_its_stream_is_busy(
        self, metadata: MetadataStore
    ) -> None:
        of = stream(new_tenant())
        failed = finish(metadata, metadata.create_run(run(of)), RunState.FAILED)
        busy = metadata.create_run(run(of))
        with pytest.raises(RunOverlapError) as caught:
            metadata.update_run(changed(failed, state=RunState.QUEUED))
        assert caught.value.context["run_id"] == busy.run_id
        finish(metadata, busy, RunState.COMPLETED)
        resumed = metadata.update_run(changed(failed, state=RunState.QUEUED))
        assert resumed.state is RunState.QUEUED

    def test_updating_a_run_needs_its_version(self, metadata: MetadataStore) -> None:
        of = stream(new_tenant())
        created = metadata.create_run(run(of))
        updated = metadata.update_run(changed(created, rows=1))
        with pytest.raises(StateConflictError):
            metadata.update_run(changed(created, rows=2))
        assert metadata.get_run(of.tenant_id, created.run_id) == updated

    def test_one_of_many_takers_gets_the_run(self, metadata: MetadataStore) -> None:
        created = metadata.create_run(run(stream(new_tenant())))
        results = together(
            THREADS,
            lambda _: metadata.update_run(changed(created, state=RunState.RUNNING, epoch=1)),
        )
        assert sum(isinstance(result, RunRecord) for result in results) == 1
        assert sum(isinstance(result, StateConflictError) for result in results) == THREADS - 1

    @pytest.mark.parametrize(
        ("before", "after"), list(itertools.product(RunState, RunState)), ids=str
    )
    def test_only_the_allowed_transitions_are_stored(
        self, metadata: MetadataStore, before: RunState, after: RunState
    ) -> None:
        allowed = {
            (RunState.QUEUED, RunState.RUNNING),
            (RunState.QUEUED, RunState.PAUSED),
            (RunState.QUEUED, RunState.CANCELLED),
            (RunState.QUEUED, RunState.FAILED),
            (RunState.RUNNING, RunState.QUEUED),
            (RunState.RUNNING, RunState.PAUSED),
            (RunState.RUNNING, RunState.COMPLETED),
            (RunState.RUNNING, RunState.FAILED),
            (RunState.RUNNING, RunState.CANCELLED),
            (RunState.PAUSED, RunState.QUEUED),
            (RunState.PAUSED, RunState.CANCELLED),
            (RunState.FAILED, RunState.QUEUED),
        }
        created = metadata.create_run(run(stream(new_tenant()), state=before))
        tenant = created.stream.tenant_id
        if before is after or (before, after) in allowed:
            metadata.update_run(changed(created, state=after))
            assert metadata.get_run(tenant, created.run_id).state is after
            return
        with pytest.raises(ConflictError):
            metadata.update_run(changed(created, state=after))
        assert metadata.get_run(tenant, created.run_id) == created

    def test_a_run_cannot_move_to_another_stream(self, metadata: MetadataStore) -> None:
        tenant = new_tenant()
        created = metadata.create_run(run(stream(tenant)))
        with pytest.raises(ConflictError):
            metadata.update_run(changed(created, stream=stream(tenant, unit_id="other")))
        assert metadata.get_run(tenant, created.run_id) == created

    def test_an_update_without_a_plan_keeps_the_plan(self, metadata: MetadataStore) -> None:
        of = stream(new_tenant())
        created = metadata.create_run(run(of, plan=plan(of)))
        metadata.update_run(changed(created, plan=None, rows=5))
        stored = metadata.get_run(of.tenant_id, created.run_id)
        assert (stored.plan, stored.rows) == (plan(of), 5)

    def test_a_new_plan_replaces_the_old_one(self, metadata: MetadataStore) -> None:
        of = stream(new_tenant())
        record = metadata.create_run(run(of))
        for slices in (3, 5, 2):
            record = metadata.update_run(changed(record, plan=plan(of, slices)))
            assert metadata.get_run(of.tenant_id, record.run_id).plan == plan(of, slices)

    def test_a_plan_of_20_000_slices_comes_back(self, metadata: MetadataStore) -> None:
        of = stream(new_tenant())
        created = metadata.create_run(run(of))
        large = plan(of, 20_000)
        updated = metadata.update_run(changed(created, plan=large))
        metadata.update_run(changed(updated, through=1))
        stored = metadata.get_run(of.tenant_id, created.run_id)
        assert stored.plan == large
        assert stored.slices_total == 20_000


class RunLifeContract:
    """Heartbeats, requests, listings and orphans."""

    def test_a_heartbeat_does_not_disturb_the_owner(self, metadata: MetadataStore) -> None:
        of = stream(new_tenant())
        created = metadata.create_run(run(of))
        owned = metadata.update_run(changed(created, state=RunState.RUNNING, epoch=1))
        beat = NOON + timedelta(seconds=30)
        alive = metadata.heartbeat(of.tenant_id, created.run_id, 1, beat)
        assert alive == changed(owned, heartbeat_at=beat)
        updated = metadata.update_run(changed(owned, rows=1))
        assert updated.heartbeat_at == beat
        assert metadata.get_run(of.tenant_id, created.run_id).heartbeat_at == beat

    def test_a_heartbeat_shows_the_owner_what_was_asked(self, metadata: MetadataStore) -> None:
        of = stream(new_tenant())
        created = metadata.create_run(run(of))
        metadata.update_run(changed(created, state=RunState.RUNNING, epoch=1))
        metadata.request(of.tenant_id, created.run_id, RunRequest.PAUSE)
        alive = metadata.heartbeat(of.tenant_id, created.run_id, 1, NOON)
        assert alive.requested is RunRequest.PAUSE

    def test_the_heartbeat_of_a_former_owner_is_refused(self, metadata: MetadataStore) -> None:
        of = stream(new_tenant())
        created = metadata.create_run(run(of))
        owned = metadata.update_run(changed(created, state=RunState.RUNNING, epoch=1))
        metadata.update_run(changed(owned, epoch=2))
        with pytest.raises(StateConflictError) as caught:
            metadata.heartbeat(of.tenant_id, created.run_id, 1, NOON)
        assert caught.value.context["owner"] == 2

    def test_what_does_not_exist_is_not_found(self, metadata: MetadataStore) -> None:
        of = stream(new_tenant())
        elsewhere = metadata.create_run(run(stream(new_tenant())))
        record = run(of, run_id=elsewhere.run_id, version=1)
        with pytest.raises(NotFoundError):
            metadata.get_run(of.tenant_id, record.run_id)
        with pytest.raises(NotFoundError):
            metadata.update_run(record)
        with pytest.raises(NotFoundError):
            metadata.heartbeat(of.tenant_id, record.run_id, 0, NOON)
        with pytest.raises(NotFoundError):
            metadata.request(of.tenant_id, record.run_id, RunRequest.PAUSE)
        with pytest.raises(NotFoundError):
            metadata.put_slices(
                of.tenant_id,
                record.run_id,
                [SliceRecord(sequence=0, key="s", state=SliceState.PENDING)],
            )
        assert metadata.list_slices(of.tenant_id, record.run_id) == []
        assert metadata.list_runs(of.tenant_id) == []

    def test_a_request_makes_the_owner_read_the_run_again(self, metadata: MetadataStore) -> None:
        of = stream(new_tenant())
        created = metadata.create_run(run(of))
        owned = metadata.update_run(changed(created, state=RunState.RUNNING, epoch=1))
        asked = metadata.request(of.tenant_id, owned.run_id, RunRequest.PAUSE)
        assert asked == changed(owned, requested=RunRequest.PAUSE, version=owned.version + 1)
        with pytest.raises(StateConflictError):
            metadata.update_run(changed(owned, rows=1))
        fresh = metadata.get_run(of.tenant_id, owned.run_id)
        assert fresh == asked
        paused = metadata.update_run(changed(fresh, state=RunState.PAUSED, requested=None))
        assert metadata.get_run(of.tenant_id, owned.run_id) == paused

    def test_asking_twice_changes_nothing_and_cancel_wins(self, metadata: MetadataStore) -> None:
        of = stream(new_tenant())
        record = metadata.create_run(run(of))
        paused = metadata.request(of.tenant_id, record.run_id, RunRequest.PAUSE)
        assert metadata.request(of.tenant_id, record.run_id, RunRequest.PAUSE) == paused
        cancelled = metadata.request(of.tenant_id, record.run_id, RunRequest.CANCEL)
        assert cancelled.requested is RunRequest.CANCEL
        assert cancelled.version == paused.version + 1
        assert metadata.request(of.tenant_id, record.run_id, RunRequest.PAUSE) == cancelled

    def test_a_run_that_is_not_active_cannot_be_asked(self, metadata: MetadataStore) -> None:
        of = stream(new_tenant())
        for state in (RunState.PAUSED, RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED):
            done = finish(metadata, metadata.create_run(run(of)), state)
            with pytest.raises(ConflictError):
                metadata.request(of.tenant_id, done.run_id, RunRequest.CANCEL)
            assert metadata.get_run(of.tenant_id, done.run_id) == done

    def test_requests_and_updates_at_once_lose_neither(self, metadata: MetadataStore) -> None:
        of = stream(new_tenant())
        created = metadata.create_run(run(of))
        metadata.update_run(changed(created, state=RunState.RUNNING, epoch=1))

        def work(number: int) -> int:
            if number == 0:
                metadata.request(of.tenant_id, created.run_id, RunRequest.CANCEL)
                return 0
            while True:
                record = metadata.get_run(of.tenant_id, created.run_id)
                with suppress(StateConflictError):
                    metadata.update_run(changed(record, rows=record.rows + 1))
                    return 1

        assert together(THREADS, work) == [0] + [1] * (THREADS - 1)
        stored = metadata.get_run(of.tenant_id, created.run_id)
        assert stored.rows == THREADS - 1
        assert stored.requested is RunRequest.CANCEL
        assert stored.version == 2 + THREADS

    def test_runs_are_listed_newest_first_without_plans(self, metadata: MetadataStore) -> None:
        tenant = new_tenant()
        for number in range(5):
            of = stream(tenant, unit_id=f"u-{number % 2}", sink=f"sink-{number}")
            at = NOON + timedelta(minutes=number)
            metadata.create_run(run(of, run_id=f"r-{number}", created_at=at, plan=plan(of)))
        finish(metadata, metadata.get_run(tenant, RunId("r-3")), RunState.FAILED)
        listed = metadata.list_runs(tenant)
        assert [record.run_id for record in listed] == ["r-4", "r-3", "r-2", "r-1", "r-0"]
        assert all(record.plan is None for record in listed)
        ids = [record.run_id for record in metadata.list_runs(tenant, offset=1, limit=2)]
        assert ids == ["r-3", "r-2"]
        ids = [record.run_id for record in metadata.list_runs(tenant, unit_id=UnitId("u-1"))]
        assert ids == ["r-3", "r-1"]
        failed = metadata.list_runs(tenant, states=[RunState.FAILED, RunState.PAUSED])
        assert [record.run_id for record in failed] == ["r-3"]
        assert len(metadata.list_runs(tenant, endpoint_id=EndpointId("e-1"))) == 5
        assert metadata.list_runs(tenant, endpoint_id=EndpointId("e-2")) == []
        assert metadata.list_runs(new_tenant()) == []

    def test_runs_of_the_same_moment_keep_one_order(self, metadata: MetadataStore) -> None:
        tenant = new_tenant()
        for number in range(6):
            metadata.create_run(run(stream(tenant, sink=f"s-{number}")))
        everything = metadata.list_runs(tenant)
        pages = [metadata.list_runs(tenant, offset=n, limit=2) for n in (0, 2, 4)]
        assert [record for page in pages for record in page] == everything
        assert len({record.run_id for record in everything}) == 6

    def test_sinks_in_use_are_those_that_runs_went_to(self, metadata: MetadataStore) -> None:
        tenant, other = new_tenant(), new_tenant()
        for number, (owner, sink) in enumerate([(tenant, "a"), (tenant, "b"), (other, "b")]):
            metadata.create_run(run(stream(owner, sink=sink), f"{owner}-{number}"))
        used = metadata.find_used_sinks()
        assert [pair for pair in used if pair[0] == tenant] == [(tenant, "a"), (tenant, "b")]
        assert (other, "b") in used
        assert len(set(used)) == len(used)

    def test_orphans_are_active_runs_that_went_silent(self, metadata: MetadataStore) -> None:
        tenant, now = new_tenant(), datetime.now(timezone.utc)

        def orphans(silent_for_s: float) -> set[str]:
            before = now + timedelta(hours=1) - timedelta(seconds=silent_for_s)
            found = metadata.find_orphans(before, limit=1000)
            return {record.run_id for record in found if record.stream.tenant_id == tenant}

        for run_id, state, ago_s in (
            ("silent", RunState.RUNNING, 60),
            ("alive", RunState.RUNNING, 5),
            ("done", RunState.COMPLETED, 60),
            ("paused", RunState.PAUSED, 60),
        ):
            created = metadata.create_run(run(stream(tenant, sink=run_id), run_id))
            owned = metadata.update_run(changed(created, state=RunState.RUNNING, epoch=1))
            if state is not RunState.RUNNING:
                metadata.update_run(changed(owned, state=state))
            at = now + timedelta(hours=1) - timedelta(seconds=ago_s)
            metadata.heartbeat(tenant, created.run_id, 1, at)
        assert orphans(30) == {"silent"}
        assert orphans(0) == {"silent", "alive"}
        assert orphans(120) == set()

    def test_a_queued_run_is_an_orphan_only_after_it_waited(self, metadata: MetadataStore) -> None:
        tenant, start = new_tenant(), datetime.now(timezone.utc)

        def orphans(before: datetime) -> list[RunRecord]:
            found = metadata.find_orphans(before, limit=1000)
            return [record for record in found if record.stream.tenant_id == tenant]

        created = metadata.create_run(run(stream(tenant)))
        assert orphans(start) == []
        assert orphans(datetime.now(timezone.utc) + timedelta(seconds=60)) == [created]
        owned = metadata.update_run(changed(created, state=RunState.RUNNING, epoch=1))
        metadata.heartbeat(tenant, owned.run_id, 1, start - timedelta(days=1))
        assert [record.run_id for record in orphans(start)] == [owned.run_id]
        again = metadata.update_run(changed(owned, state=RunState.QUEUED))
        assert orphans(start) == []
        assert again.state is RunState.QUEUED

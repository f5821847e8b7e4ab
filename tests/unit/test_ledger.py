"""Who may work on a run."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from matih_ray.control.ports import Ports, utc_now
from matih_ray.errors import FencedError
from matih_ray.execution.ledger import LOST_PLANNERS_MAX, take_ownership
from matih_ray.model.checkpoint import StreamKey
from matih_ray.model.ids import EndpointId, RunId, SinkId, TenantId, UnitId
from matih_ray.model.policy import IngestionPolicy
from matih_ray.model.run import RunRecord, RunRequest, RunState
from matih_ray.registry import load_registry
from matih_ray.settings import Settings
from matih_ray.state.factory import open_stores

TENANT, RUN = TenantId("acme"), RunId("r1")


class Nobody:
    """A launcher that launches nothing."""

    def launch(self, tenant_id: TenantId, run_id: RunId) -> None:
        """Leave it to the test."""


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = utc_now()

    def __call__(self):
        return self.now

    def go(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ports(tmp_path: Path, clock: Clock) -> Iterator[Ports]:
    settings = Settings(home=tmp_path)
    stores = open_stores(settings)
    yield Ports(
        settings, load_registry(), stores.metadata, stores.kv, stores.credentials, Nobody(), clock
    )
    stores.close()


@pytest.fixture(autouse=True)
def queued(ports: Ports) -> RunRecord:
    return ports.metadata.create_run(
        RunRecord(
            run_id=RUN,
            stream=StreamKey(
                tenant_id=TENANT,
                vendor="v",
                endpoint_id=EndpointId("e"),
                unit_id=UnitId("u"),
                sink_id=SinkId("iceberg"),
            ),
            state=RunState.QUEUED,
            policy=IngestionPolicy(),
            created_at=ports.clock(),
        )
    )


def test_a_queued_run_has_one_owner(ports: Ports) -> None:
    ledger = take_ownership(ports, TENANT, RUN)
    assert ledger is not None
    assert (ledger.record.state, ledger.record.epoch) == (RunState.RUNNING, 1)
    assert take_ownership(ports, TENANT, RUN) is None


def test_a_silent_owner_is_replaced_and_then_refused(ports: Ports, clock: Clock) -> None:
    first = take_ownership(ports, TENANT, RUN)
    clock.go(ports.settings.orphan_after_s + 1)
    second = take_ownership(ports, TENANT, RUN)
    assert first is not None
    assert second is not None
    assert second.record.epoch == 2
    with pytest.raises(FencedError):
        first.update(rows=1)
    assert second.update(rows=2).rows == 2


def test_a_request_that_comes_between_is_kept(ports: Ports) -> None:
    ledger = take_ownership(ports, TENANT, RUN)
    assert ledger is not None
    ports.metadata.request(TENANT, RUN, RunRequest.PAUSE)
    updated = ledger.update(through=3)
    assert (updated.requested, updated.through) == (RunRequest.PAUSE, 3)


def test_a_run_that_kills_its_planners_fails_in_the_end(ports: Ports, clock: Clock) -> None:
    for _ in range(LOST_PLANNERS_MAX + 1):
        assert take_ownership(ports, TENANT, RUN) is not None
        clock.go(ports.settings.orphan_after_s + 1)
    assert take_ownership(ports, TENANT, RUN) is None
    failed = ports.metadata.get_run(TENANT, RUN)
    assert (failed.state, failed.error and failed.error.code) == (RunState.FAILED, "WORKER_LOST")
    ports.metadata.update_run(failed.model_copy(update={"state": RunState.QUEUED}))
    resumed = take_ownership(ports, TENANT, RUN)
    assert resumed is not None
    assert resumed.record.lost_planners == 0

"""What waits for a source waits for a bounded time and stands in nobody's way."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from matih_ray.api.limits import Limits
from matih_ray.model.ids import EndpointId
from matih_ray.registry import Registry
from matih_ray.testing.fakes import MemorySource, RecordingLauncher, memory_registry
from tests.api.lab import TENANT, Lab, assert_problem, open_lab


class HangingSource(MemorySource):
    """A source that does not answer until the test lets it."""

    type = "HANGING"
    released = threading.Event()
    reached = threading.Semaphore(0)

    def test(self):
        self.wait()
        return super().test()

    def list_units(self, context):
        self.wait()
        return super().list_units(context)

    def plan_incremental_slices(self, *arguments):
        self.wait()
        return super().plan_incremental_slices(*arguments)

    def wait(self) -> None:
        type(self).reached.release()
        assert type(self).released.wait(60)


LIMITS = Limits(test_s=0.3, plan_s=0.3, collect_s=0.3, source_calls=2)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    plugins = memory_registry().plugins
    hanging = {"HANGING": f"{__name__}:HangingSource"}
    registry = Registry({**plugins, "sources": {**plugins["sources"], **hanging}})
    HangingSource.released = threading.Event()
    HangingSource.reached = threading.Semaphore(0)
    for opened in open_lab(tmp_path / "home", RecordingLauncher(), LIMITS, registry):
        yield opened
        HangingSource.released.set()


@pytest.fixture
def endpoint_id(lab: Lab) -> str:
    endpoint_id = lab.endpoint("slow")
    record = lab.ports.metadata.get_endpoint(TENANT, EndpointId(endpoint_id))
    lab.ports.metadata.put_endpoint(record.model_copy(update={"type": HangingSource.type}))
    return endpoint_id


def test_a_connection_test_that_takes_too_long_has_failed(lab: Lab, endpoint_id: str):
    answer = lab.call("POST", f"/endpoints/{endpoint_id}/test")
    assert answer.status_code == 200
    assert (answer.json()["success"], answer.json()["errorCode"]) == (False, "TIMEOUT")


def test_planning_and_collecting_end_at_their_deadline(lab: Lab, endpoint_id: str):
    body = {"endpointId": endpoint_id, "unitId": "public.orders"}
    problem = assert_problem(lab.call("POST", "/plans", json=body), 504, "TIMEOUT")
    assert problem["retryable"] is True
    assert problem["context"] == {"deadlineS": 0.3}
    response = lab.call("POST", f"/endpoints/{endpoint_id}/collect")
    assert_problem(response, 504, "TIMEOUT")


def test_hanging_sources_hold_up_nothing_else(lab: Lab, endpoint_id: str):
    for _ in range(LIMITS.source_calls):
        lab.call("POST", f"/endpoints/{endpoint_id}/test")
    for _ in range(LIMITS.source_calls):
        assert HangingSource.reached.acquire(timeout=60)
    # all threads that may wait for sources do so, and everything else works
    assert lab.call("GET", f"/endpoints/{endpoint_id}/units").status_code == 200
    assert lab.start(endpoint_id).status_code == 201
    # another source call gives up without ever reaching its source
    assert lab.call("POST", f"/endpoints/{endpoint_id}/test").json()["errorCode"] == "TIMEOUT"
    assert not HangingSource.reached.acquire(blocking=False)

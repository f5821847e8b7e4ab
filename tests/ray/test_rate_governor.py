"""One view of a provider's limits for all processes of a tenant: each is a `RayProvider` here."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable

import pytest

from matih_ray.control.ports import Ports
from matih_ray.execution.provider_actor import UNASKED_S, RayProvider
from matih_ray.sources.rate_governor import RateReport
from tests.ray.lab import RUN_TIMEOUT_S, TENANT

WAIT_S = 3000.0


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + RUN_TIMEOUT_S
    while not holds():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(UNASKED_S / 5)


@pytest.fixture
def processes(ports: Ports) -> tuple[RayProvider, RayProvider]:
    provider = f"test-{uuid.uuid4().hex[:8]}"
    here, there = RayProvider(TENANT, provider), RayProvider(TENANT, provider)
    for process in (here, there):
        until(lambda process=process: bool(process.begin(provider)))  # type: ignore[misc]  # bound
        process.end(provider)
    return here, there


def test_a_limit_that_one_process_meets_holds_back_the_others(
    processes: tuple[RayProvider, RayProvider],
) -> None:
    here, there = processes
    assert there.ask("GET a").is_free
    here.report("GET a", RateReport(429, retry_after_s=WAIT_S))
    until(lambda: there.ask("GET a").wait_s > WAIT_S / 2)
    assert there.ask("GET b").wait_s == 0
    assert there.state().refused == 1


def test_a_warning_to_one_process_ends_with_the_answers_to_another(
    processes: tuple[RayProvider, RayProvider],
) -> None:
    here, there = processes
    for _ in range(3):
        here.report("GET a", RateReport(200, near_limit=True))
    until(lambda: not there.ask("GET a").is_free)

    def answered() -> bool:
        there.report("GET a", RateReport(200))
        return there.ask("GET a").is_free

    until(answered)

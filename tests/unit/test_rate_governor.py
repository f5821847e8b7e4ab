"""Rate governors: what holds back whom, and for how long."""

from __future__ import annotations

import random

import pytest

from matih_ray.errors import QuotaSpentError, SourceUnavailableError
from matih_ray.execution.failure_policy import MAX_PAUSES, FailurePolicy, GiveUp, Retry
from matih_ray.sources.provider_services import TURN_S, ProcessTurns
from matih_ray.sources.rate_governor import (
    DEFAULT_WAIT_S,
    FIRST_SPACING_S,
    MAX_SPACING_S,
    MAX_WAIT_S,
    ProcessGovernor,
    RateReport,
    rate_report,
)

QUOTA = "jira-quota-tenant-based"
DATE = "Fri, 20 Nov 2026 12:00:00 GMT"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def governor(clock: Clock) -> ProcessGovernor:
    return ProcessGovernor(clock)


def test_nothing_waits_at_first(governor: ProcessGovernor) -> None:
    assert governor.ask("GET a").wait_s == 0
    assert governor.ask("GET a").wait_s == 0


def test_a_burst_holds_back_its_own_kind_of_call_only(
    governor: ProcessGovernor, clock: Clock
) -> None:
    governor.report("GET a", RateReport(429, retry_after_s=7, reason="jira-burst-based"))
    assert governor.ask("GET a").wait_s == 7
    assert governor.ask("GET a").parked is None
    assert governor.ask("GET b").wait_s == 0
    clock.now += 7
    assert governor.ask("GET a").wait_s == 0


def test_a_spent_quota_parks_all_calls(governor: ProcessGovernor, clock: Clock) -> None:
    governor.report("GET a", RateReport(429, retry_after_s=1800, reason=QUOTA))
    for call in ("GET a", "POST b"):
        assert governor.ask(call).wait_s == 1800
        assert governor.ask(call).parked == QUOTA
    state = governor.state()
    assert (state.parked, state.parked_s, state.refused) == (QUOTA, 1800, 1)
    clock.now += 1801
    assert governor.ask("POST b").wait_s == 0
    assert governor.state().parked is None


def test_a_later_answer_does_not_shorten_a_wait(governor: ProcessGovernor) -> None:
    governor.report("GET a", RateReport(429, retry_after_s=60))
    governor.report("GET a", RateReport(429, retry_after_s=1))
    governor.report("GET a", RateReport(200))
    assert governor.ask("GET a").wait_s == 60


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        (RateReport(429), DEFAULT_WAIT_S),
        (RateReport(429, retry_after_s=10_000_000.0), MAX_WAIT_S),
        (RateReport(429, reset_after_s=90, reason="x-burst"), DEFAULT_WAIT_S),
        (RateReport(429, reset_after_s=90, reason=QUOTA), 90),
        (RateReport(429, retry_after_s=3, reset_after_s=90, reason=QUOTA), 3),
        (RateReport(503, retry_after_s=4), 4),
        (RateReport(503), 0),
        (RateReport(200, remaining=9), 0),
    ],
)
def test_how_long_is_waited(governor: ProcessGovernor, report: RateReport, expected: float) -> None:
    governor.report("GET a", report)
    assert governor.ask("GET a").wait_s == expected


def test_calls_near_a_limit_keep_a_distance_until_they_are_not(
    governor: ProcessGovernor, clock: Clock
) -> None:
    for _ in range(20):
        governor.report("GET a", RateReport(200, near_limit=True))
    assert governor.ask("GET a").wait_s == 0
    assert governor.ask("GET a").wait_s == MAX_SPACING_S
    for _ in range(20):
        governor.report("GET a", RateReport(200))
    clock.now += MAX_SPACING_S
    assert [governor.ask("GET a").wait_s for _ in range(3)] == [0, 0, 0]
    governor.report("GET a", RateReport(200, remaining=0))
    governor.ask("GET a")
    assert governor.ask("GET a").wait_s == pytest.approx(FIRST_SPACING_S)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"retry-after": "5"}, RateReport(429, retry_after_s=5)),
        ({"beta-retry-after": "5"}, RateReport(429, retry_after_s=5)),
        (
            {"retry-after": "Fri, 20 Nov 2026 12:00:30 GMT", "date": DATE},
            RateReport(429, retry_after_s=30),
        ),
        # minutes only, and by the server's clock, whatever ours says
        (
            {"x-ratelimit-reset": "2026-11-20T12:30Z", "date": DATE},
            RateReport(429, reset_after_s=1800),
        ),
        (
            {"x-ratelimit-reset": "2026-11-20T11:00Z", "date": DATE},
            RateReport(429, reset_after_s=0),
        ),
        (
            {"ratelimit-remaining": "12", "ratelimit-reset": "40", "ratelimit-reason": "r"},
            RateReport(429, reset_after_s=40, remaining=12, reason="r"),
        ),
        ({"x-ratelimit-nearlimit": "true"}, RateReport(429, near_limit=True)),
        ({"retry-after": "soon", "x-ratelimit-remaining": "-1"}, RateReport(429)),
    ],
)
def test_headers_are_understood(headers: dict[str, str], expected: RateReport) -> None:
    assert rate_report(429, headers) == expected


def test_turns_come_one_at_a_time_and_end_with_their_holder(clock: Clock) -> None:
    turns = ProcessTurns(clock)
    assert turns.begin("a")
    assert not turns.begin("a")
    assert turns.begin("b")
    turns.end("a")
    assert turns.begin("a")
    clock.now += TURN_S
    assert turns.begin("a")


def test_waiting_for_a_quota_spends_no_retry_and_is_never_shorter_than_told() -> None:
    policy = FailurePolicy(random.Random(7))
    for _ in range(MAX_PAUSES):
        decision = policy.decide("s", QuotaSpentError("later", retry_after_s=900.0))
        assert isinstance(decision, Retry)
        assert decision.after_s >= 900
    assert isinstance(policy.decide("s", SourceUnavailableError("x")), Retry)
    error = QuotaSpentError("later", retry_after_s=900.0)
    assert policy.decide("s", error) == GiveUp(error)

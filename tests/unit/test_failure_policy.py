"""What happens after a slice attempt failed."""

from __future__ import annotations

import random

import pytest

from matih_ray.errors import (
    AuthenticationFailedError,
    CountMismatchError,
    MatihError,
    SinkUnavailableError,
    SourceUnavailableError,
    StorageFullError,
    UnrepresentableValueError,
    WorkerLostError,
)
from matih_ray.execution.failure_policy import (
    BACKOFF_FIRST_S,
    BACKOFF_MAX_S,
    JITTER,
    RETRIES_PER_CAUSE,
    FailurePolicy,
    GiveUp,
    Retry,
    cause_of,
)


def policy() -> FailurePolicy:
    return FailurePolicy(random.Random(7))


@pytest.mark.parametrize(
    "error",
    [
        AuthenticationFailedError("no"),
        UnrepresentableValueError("NaN"),
        StorageFullError("full"),
        MatihError("a bug"),
    ],
)
def test_what_cannot_be_helped_is_not_retried(error: MatihError) -> None:
    assert policy().decide("s", error) == GiveUp(error)


@pytest.mark.parametrize(
    "error",
    [
        SourceUnavailableError("x"),
        WorkerLostError("x"),
        CountMismatchError("x"),
        SinkUnavailableError("x"),
    ],
)
def test_a_budget_ends(error: MatihError) -> None:
    decide = policy().decide
    budget = RETRIES_PER_CAUSE[cause_of(error)]
    decisions = [decide("s", error) for _ in range(budget + 1)]
    assert all(isinstance(decision, Retry) for decision in decisions[:-1])
    assert decisions[-1] == GiveUp(error)


def test_waits_grow_and_are_bounded() -> None:
    decide = policy().decide
    waits = []
    for _ in range(RETRIES_PER_CAUSE["source"]):
        decision = decide("s", SourceUnavailableError("x"))
        assert isinstance(decision, Retry)
        waits.append(decision.after_s)
    for number, wait in enumerate(waits):
        middle = min(BACKOFF_FIRST_S * 2**number, BACKOFF_MAX_S)
        assert middle * JITTER[0] <= wait <= middle * JITTER[1]


def test_causes_and_slices_have_budgets_of_their_own() -> None:
    decide = policy().decide
    for _ in range(RETRIES_PER_CAUSE["worker"]):
        assert isinstance(decide("s", WorkerLostError("x")), Retry)
    assert isinstance(decide("s", SourceUnavailableError("x")), Retry)
    assert isinstance(decide("other", WorkerLostError("x")), Retry)
    assert isinstance(decide("s", WorkerLostError("x")), GiveUp)


def test_a_wait_that_the_source_names_is_kept() -> None:
    decision = policy().decide("s", SourceUnavailableError("busy", retry_after_s=90))
    assert isinstance(decision, Retry)
    assert decision.after_s >= 90 * JITTER[0]

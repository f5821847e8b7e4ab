"""Decides what to do after a slice attempt failed. Pure: no clock, no Ray, no I/O.

Budgets are kept per slice and per cause, so that a node that dies three times does not spend the
attempts that a flaky source is entitled to.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from matih_ray.errors import (
    MatihError,
    QuotaSpentError,
    Recovery,
    SinkError,
    SourceError,
    StagingError,
    StateError,
    WorkerLostError,
)

# Retries per slice and cause. Six waits of 0.5, 1, 2, 4, 8, 16 s outlast a database restart.
RETRIES_PER_CAUSE = {"source": 6, "worker": 6, "staging": 3, "sink": 6, "state": 6, "other": 0}
BACKOFF_FIRST_S = 0.5
BACKOFF_MAX_S = 30.0
# Waits for a provider's quota, which spend no retry: quotas come back within the hour, and a day
# without one is an end.
MAX_PAUSES = 48
# Spread of a wait, so that slices that failed together do not come back together.
JITTER = (0.7, 1.3)


@dataclass(frozen=True)
class Retry:
    """Run the slice again after a wait in seconds."""

    after_s: float


@dataclass(frozen=True)
class GiveUp:
    """Fail the run with this error."""

    error: MatihError


def cause_of(error: MatihError) -> str:
    """The budget that an error spends."""
    if isinstance(error, WorkerLostError):
        return "worker"
    for family, cause in (
        (SourceError, "source"),
        (StagingError, "staging"),
        (SinkError, "sink"),
        (StateError, "state"),
    ):
        if isinstance(error, family):
            return cause
    return "other"


@dataclass
class FailurePolicy:
    """Retry budgets of one run. `random` is injected so that tests are deterministic."""

    random: random.Random = field(default_factory=random.Random)
    _spent: dict[tuple[str, str], int] = field(default_factory=dict)

    def decide(self, slice_key: str, error: MatihError) -> Retry | GiveUp:
        """What to do about one failed attempt of a slice."""
        if error.recovery not in (Recovery.RETRY, Recovery.PAUSE):
            return GiveUp(error)
        if isinstance(error, QuotaSpentError):
            return self._pause(slice_key, error)
        cause = cause_of(error)
        spent = self._spent.get((slice_key, cause), 0)
        if spent >= RETRIES_PER_CAUSE[cause]:
            return GiveUp(error)
        self._spent[slice_key, cause] = spent + 1
        wait_s = min(BACKOFF_FIRST_S * 2**spent, BACKOFF_MAX_S)
        told = error.context.get("retry_after_s")
        if isinstance(told, (int, float)):
            wait_s = max(wait_s, float(told))
        return Retry(wait_s * self.random.uniform(*JITTER))

    def _pause(self, slice_key: str, error: QuotaSpentError) -> Retry | GiveUp:
        """Wait until the quota is there again, and a little more, but never less."""
        paused = self._spent.get((slice_key, "quota"), 0)
        if paused >= MAX_PAUSES:
            return GiveUp(error)
        self._spent[slice_key, "quota"] = paused + 1
        told = error.context.get("retry_after_s")
        wait_s = float(told) if isinstance(told, (int, float)) else BACKOFF_MAX_S
        return Retry(wait_s + self.random.uniform(0, BACKOFF_FIRST_S))

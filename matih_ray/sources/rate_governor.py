"""Rate governors: one view of a provider's limits for all who call it for one tenant.

A source asks before each call and reports each answer. A limit that one task runs into then holds
back all others before they run into it too. Implementations: `ProcessGovernor` here, shared by the
threads of a process, and on a cluster an actor around one, shared by all tasks of a tenant.

Only durations cross this border, never times of day: clocks differ, between machines and from the
provider's. A spent *quota* is not a *burst*: a burst is over in seconds and concerns one kind of
call, a quota may last for the rest of the hour and concerns them all.
"""

from __future__ import annotations

import datetime as dt
import email.utils
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

# Waits beyond it come from a wrong header: quotas are reset at least every hour.
MAX_WAIT_S = 3600.0
# Where the provider names no time: its advice for the first retry.
DEFAULT_WAIT_S = 2.0
# Space between calls of a kind that is near its limit: doubled by each warning up to the greatest,
# halved by each answer without one.
FIRST_SPACING_S = 0.05
MAX_SPACING_S = 2.0
# Kinds of calls that are watched; a source has some twenty.
MAX_CALLS = 1000
# Providers' words in the reason of a refusal that mean a quota of all calls.
_QUOTA_WORDS = ("quota", "cost")


@dataclass(frozen=True)
class Permit:
    """What a governor says to a call: wait so many seconds, then ask again; 0 is go.

    `parked` is the reason of a spent quota; such a wait may be long. `is_free` says that calls of
    this kind need not even keep a distance.
    """

    wait_s: float = 0.0
    parked: str | None = None
    is_free: bool = False


@dataclass(frozen=True)
class RateReport:
    """What an answer told about limits. Times are seconds from now; None is not told."""

    status: int
    retry_after_s: float | None = None
    reset_after_s: float | None = None
    remaining: int | None = None
    reason: str | None = None
    near_limit: bool = False

    @property
    def is_refused(self) -> bool:
        """Too much was asked. A 503 says so with `Retry-After` only."""
        return self.status == 429 or (self.status == 503 and self.retry_after_s is not None)


@dataclass(frozen=True)
class GovernorState:
    """For people: the quota that is spent and for how long, waits by call, and refusals."""

    parked: str | None
    parked_s: float
    waits_s: Mapping[str, float]
    refused: int


class RateGovernor(Protocol):
    """Asked before each call of one (tenant, provider), told about each answer."""

    def ask(self, call: str) -> Permit:
        """May a call be made now? `call` is its kind: method and path without ids."""

    def report(self, call: str, report: RateReport) -> bool:
        """Tell what an answer said; returns whether that was a limit, or the end of one."""

    def state(self) -> GovernorState:
        """What is waited for now."""


@dataclass
class _Call:
    not_before: float = 0.0
    spacing_s: float = 0.0


class ProcessGovernor:
    """A `RateGovernor` for the threads of one process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._calls: dict[str, _Call] = {}
        self._parked_until = 0.0
        self._parked: str | None = None
        self._refused = 0

    def ask(self, call: str) -> Permit:
        """See `RateGovernor`. Calls that must keep a distance are let go one after the other."""
        with self._lock:
            now = self._clock()
            if now < self._parked_until:
                return Permit(self._parked_until - now, self._parked)
            known = self._call(call)
            if now < known.not_before:
                return Permit(known.not_before - now)
            known.not_before = now + known.spacing_s
            return Permit(is_free=known.spacing_s == 0)

    def report(self, call: str, report: RateReport) -> bool:
        """See `RateGovernor`. A longer wait that is known already stays."""
        with self._lock:
            now, known = self._clock(), self._call(call)
            spacing_s = known.spacing_s
            if report.is_refused:
                self._refused += 1
                until = now + _wait_s(report)
                if _is_quota(report.reason):
                    self._parked_until = max(self._parked_until, until)
                    self._parked = report.reason
                else:
                    known.not_before = max(known.not_before, until)
            elif report.near_limit or report.remaining == 0:
                known.spacing_s = min(max(known.spacing_s * 2, FIRST_SPACING_S), MAX_SPACING_S)
            else:
                known.spacing_s = known.spacing_s / 2 if known.spacing_s > FIRST_SPACING_S else 0.0
            return report.is_refused or known.spacing_s > 0 or spacing_s > 0

    def state(self) -> GovernorState:
        """See `RateGovernor`."""
        with self._lock:
            now = self._clock()
            parked_s = max(self._parked_until - now, 0.0)
            waits = {
                name: call.not_before - now
                for name, call in self._calls.items()
                if call.not_before > now
            }
            parked = self._parked if parked_s else None
            return GovernorState(parked, parked_s, waits, self._refused)

    def _call(self, call: str) -> _Call:
        if call not in self._calls and len(self._calls) >= MAX_CALLS:
            self._calls.clear()  # somebody names calls with ids in them; waits are learnt again
        return self._calls.setdefault(call, _Call())


def _wait_s(report: RateReport) -> float:
    told = report.retry_after_s
    # the reset has minutes only and was seen in the past: good for nothing but a quota without more
    if told is None and _is_quota(report.reason):
        told = report.reset_after_s
    return min(max(DEFAULT_WAIT_S if told is None else told, 0.0), MAX_WAIT_S)


def _is_quota(reason: str | None) -> bool:
    return reason is not None and any(word in reason.lower() for word in _QUOTA_WORDS)


def rate_report(status: int, headers: Mapping[str, str]) -> RateReport:
    """What an answer's headers say: those of Atlassian, of Microsoft Graph, and the common ones.

    Args:
        status: The answer's status.
        headers: Its headers; names in lower case.
    """

    def first(*names: str) -> str | None:
        found = (headers.get(name) or headers.get(f"x-{name}") for name in names)
        return next((text.strip() for text in found if text), None)

    date = headers.get("date")
    remaining = first("ratelimit-remaining")
    return RateReport(
        status=status,
        retry_after_s=seconds_until(first("retry-after", "beta-retry-after"), date),
        reset_after_s=seconds_until(first("ratelimit-reset"), date),
        remaining=int(remaining) if remaining and remaining.isdecimal() else None,
        reason=first("ratelimit-reason", "beta-ratelimit-reason"),
        near_limit=(first("ratelimit-nearlimit") or "").lower() == "true",
    )


def seconds_until(text: str | None, date: str | None) -> float | None:
    """Seconds as a header says: a number, a date of HTTP, or ISO 8601; None if it is none of them.

    Args:
        text: The header.
        date: The answer's `Date`: a time is counted from the server's clock, since ours may differ.
    """
    if not text:
        return None
    if text.isascii() and text.isdigit():
        return float(text[:9])
    until = _moment(text)
    if until is None:
        return None
    now = _moment(date) if date else None
    reference = time.time() if now is None else now.timestamp()
    return max(until.timestamp() - reference, 0.0)


def _moment(text: str) -> dt.datetime | None:
    for parse in (email.utils.parsedate_to_datetime, _iso):
        try:
            return parse(text)
        except (ValueError, TypeError):
            continue
    return None


def _iso(text: str) -> dt.datetime:
    moment = dt.datetime.fromisoformat(text.replace("Z", "+00:00"))
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.timezone.utc)

"""One actor for each tenant and provider: the pace and the turns of all its tasks on a cluster.

A limit that one task meets then holds back the others at once. The actor holds no secret and
nothing that matters after it: a new one learns the limits again from the next refusal. Calls that
fail to reach it are let through by a governor of the process, since pace is advice and data is not.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

import ray

from matih_ray.execution.launcher import NAMESPACE
from matih_ray.model.ids import TenantId
from matih_ray.sources.provider_services import ProcessTurns, ProviderServices
from matih_ray.sources.rate_governor import (
    MAX_CALLS,
    GovernorState,
    Permit,
    ProcessGovernor,
    RateReport,
)

T = TypeVar("T")

# An actor that does not answer by then is too busy to be of use.
ANSWER_TIMEOUT_S = 10.0
# Starting one takes seconds, on a busy machine tens of them; calls are not held up by that.
START_PATIENCE_S = 0.5
# But by whose turn it is: a question that is given up could be answered later, to nobody.
START_TIMEOUT_S = 60.0
# A question takes the actor two milliseconds, as long as reading twenty issues. So while nothing is
# held back, a process asks only so often, and learns of others' limits so late.
UNASKED_S = 0.25
# Asked by many tasks at once; each call takes microseconds.
MAX_CONCURRENCY = 32


def provider_actor_name(tenant_id: TenantId, provider: str) -> str:
    """The name of the actor of one tenant and provider."""
    return f"provider-{provider}-{tenant_id}"


class ProviderDesk:
    """What the actor runs."""

    def __init__(self) -> None:
        self._governor, self._turns = ProcessGovernor(), ProcessTurns()

    def ask(self, call: str) -> Permit:
        """See `RateGovernor`."""
        return self._governor.ask(call)

    def report(self, call: str, report: RateReport) -> bool:
        """See `RateGovernor`."""
        return self._governor.report(call, report)

    def state(self) -> GovernorState:
        """See `RateGovernor`."""
        return self._governor.state()

    def begin(self, name: str) -> bool:
        """See `Turns`."""
        return self._turns.begin(name)

    def end(self, name: str) -> None:
        """See `Turns`."""
        self._turns.end(name)


ProviderActor = ray.remote(num_cpus=0, max_restarts=-1, max_concurrency=MAX_CONCURRENCY)(
    ProviderDesk
)


class RayProvider:
    """A `RateGovernor` and `Turns` that ask the actor, and this process if it does not answer."""

    def __init__(self, tenant_id: TenantId, provider: str) -> None:
        self._name = provider_actor_name(tenant_id, provider)
        self._lock = threading.Lock()
        self._actor: Any = None
        self._is_up = False
        self._own = ProviderDesk()
        self._free_until: dict[str, float] = {}

    def ask(self, call: str) -> Permit:
        """See `RateGovernor`. What this process was told itself counts first, and what it was told
        by the actor a moment ago is believed."""
        own = self._own.ask(call)
        if own.wait_s > 0 or time.monotonic() < self._free_until.get(call, 0.0):
            return own
        permit = self._answer(lambda desk: desk.ask.remote(call), lambda: own)
        if not permit.is_free or len(self._free_until) >= MAX_CALLS:
            self._free_until.clear()
        if permit.is_free:
            self._free_until[call] = time.monotonic() + UNASKED_S
        return permit

    def report(self, call: str, report: RateReport) -> bool:
        """See `RateGovernor`; returns at once. An answer without limits tells the actor only what
        it knows, unless it keeps calls of this kind at a distance."""
        told = self._own.report(call, report)
        if told or call not in self._free_until:
            with contextlib.suppress(ray.exceptions.RayError, ValueError):
                self._handle().report.remote(call, report)
        return told

    def state(self) -> GovernorState:
        """See `RateGovernor`."""
        return self._answer(lambda desk: desk.state.remote(), self._own.state)

    def begin(self, name: str) -> bool:
        """See `Turns`. Without an answer it is nobody's turn: two must never renew at once."""
        return self._answer(lambda desk: desk.begin.remote(name), lambda: False, START_TIMEOUT_S)

    def end(self, name: str) -> None:
        """See `Turns`."""
        self._answer(lambda desk: desk.end.remote(name), lambda: None)

    def _answer(
        self,
        call: Callable[[Any], Any],
        otherwise: Callable[[], T],
        patience_s: float = START_PATIENCE_S,
    ) -> T:
        timeout_s = ANSWER_TIMEOUT_S if self._is_up else patience_s
        try:
            answer: T = ray.get(call(self._handle()), timeout=timeout_s)
        except ray.exceptions.GetTimeoutError:
            return otherwise()
        except (ray.exceptions.RayError, ValueError):
            self._actor, self._is_up = None, False
            return otherwise()
        self._is_up = True
        return answer

    def _handle(self) -> Any:
        with self._lock:
            if self._actor is None:
                self._actor = ProviderActor.options(
                    name=self._name, namespace=NAMESPACE, get_if_exists=True, lifetime="detached"
                ).remote()
            return self._actor


@lru_cache(maxsize=1000)
def cluster_services(tenant_id: TenantId, provider: str) -> ProviderServices:
    """Services shared by all processes of the cluster."""
    shared = RayProvider(tenant_id, provider)
    return ProviderServices(governor=shared, turns=shared)

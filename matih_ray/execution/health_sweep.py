"""Health checks of all connectors of a cluster: due ones are tested in batches, in one Ray actor.

One sweep at a time, made by the supervisor, of which a cluster has one. A call is a batch and not a
connector, because a call costs as much as a test; within it threads wait for servers together. A
batch that hangs is killed with its actor, and what it had not tested by then has failed.

An actor and not tasks, because its process may then yield to all others: nobody waits for a health
check, and people wait for answers of the API on the same cores. A task's process would keep its
low priority for the slice that it reads next.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from typing import Any

import ray

from matih_ray.control.connectivity import failed_test, run_test
from matih_ray.control.connector_health import note_test, postpone
from matih_ray.control.ports import Ports
from matih_ray.errors import NotFoundError, SourceTimeoutError
from matih_ray.execution.worker import process_ports
from matih_ray.settings import Settings
from matih_ray.state.base import EndpointRecord

# Connectors of one call: enough to make its own cost small, few enough to be lost together.
BATCH_CONNECTORS = 25
# Threads of the actor: as many servers may be slow before others have to wait for them.
CHECKS_AT_ONCE = 4
# Seven rounds of threads in which every test takes all of its own time-outs.
BATCH_DEADLINE_S = 240.0
# Between the beginnings of two tests: a thousand connectors are tested within a minute, and seldom
# two at the same moment, which would take both of two cores from whoever lists connectors then.
SPACING_S = 0.045
# The lowest priority there is: checks get the time that nobody else wants.
NICENESS = 19


def sweep_connectors(settings: Settings, ports: Ports) -> int:
    """Check connectors until none is due; returns how many there were.

    Raises:
        StateError: The stores cannot be reached.
    """
    found = 0
    checker: Any = None
    try:
        while due := ports.metadata.find_due_connectors(
            ports.registry.names("sources"), ports.clock(), BATCH_CONNECTORS
        ):
            # one batch after the other: a sweep must leave the machine to the loads
            checker = checker or _CheckerActor.remote(settings)
            if not _check(ports, checker, due):
                ray.kill(checker)
                checker = None
            found += len(due)
    finally:
        if checker is not None:
            ray.kill(checker)
    return found


class HealthChecker:
    """Tests connectors in a process of its own and notes the outcomes."""

    def __init__(self, settings: Settings) -> None:
        os.nice(NICENESS)
        self._ports = process_ports(settings)
        self._lock = threading.Lock()
        self._next_at_s = 0.0

    def check(self, records: Sequence[EndpointRecord]) -> None:
        """Test some connectors, several at once."""
        with ThreadPoolExecutor(CHECKS_AT_ONCE, thread_name_prefix="check") as threads:
            list(threads.map(self._check, records))

    def _check(self, record: EndpointRecord) -> None:
        with self._lock:
            now_s = time.monotonic()
            begins_s = max(now_s, self._next_at_s)
            self._next_at_s = begins_s + SPACING_S
        time.sleep(begins_s - now_s)
        _check_one(self._ports, record)


def _check(ports: Ports, checker: Any, batch: Sequence[EndpointRecord]) -> bool:
    """Whether the checker got through the batch; if not, what it left has failed."""
    started = ports.clock()
    try:
        ray.get(checker.check.remote(list(batch)), timeout=BATCH_DEADLINE_S)
    except ray.exceptions.RayError as error:  # a time-out, or its process died
        for record in batch:
            _fail_untested(ports, record, started, type(error).__name__)
        return False
    return True


def _check_one(ports: Ports, record: EndpointRecord) -> None:
    with suppress(NotFoundError):  # deleted meanwhile
        if record.enabled:
            note_test(ports, record, run_test(ports, record))
        else:
            postpone(ports, record)


def _fail_untested(ports: Ports, record: EndpointRecord, since: datetime, cause: str) -> None:
    state = ports.metadata.get_connector_state(record.tenant_id, record.endpoint_id)
    if state is not None and state.last_test is not None and state.last_test.tested_at >= since:
        return
    late = SourceTimeoutError(f"the health check did not end in time ({cause})")
    with suppress(NotFoundError):
        note_test(ports, record, failed_test(ports, record, late))


_CheckerActor = ray.remote(num_cpus=0, max_restarts=0)(HealthChecker)

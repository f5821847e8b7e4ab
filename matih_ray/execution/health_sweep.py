"""Health checks of all connectors of a cluster: due ones are tested in batches, as Ray tasks.

One sweep at a time, made by the supervisor, of which a cluster has one. A batch is a task and not a
connector, because a task costs as much as a test; within it threads wait for servers together. A
batch that hangs is killed, and what it had not tested by then has failed.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime

import ray

from matih_ray.control.connectivity import failed_test, run_test
from matih_ray.control.connector_health import note_test, postpone
from matih_ray.control.ports import Ports
from matih_ray.errors import NotFoundError, SourceTimeoutError
from matih_ray.execution.worker import process_ports
from matih_ray.settings import Settings
from matih_ray.state.base import EndpointRecord

# Connectors of one task: enough to make its own cost small, few enough to be lost together.
BATCH_CONNECTORS = 50
# Threads of a task. Half of a connector's time is waiting, if its server is well.
CHECKS_AT_ONCE = 8
# Seven rounds of threads in which every test takes all of its own time-outs.
BATCH_DEADLINE_S = 240.0
# Connectors that one sweep looks for; the next one follows at once while there are as many.
SWEEP_CONNECTORS = 500


def sweep_connectors(settings: Settings, ports: Ports) -> int:
    """Check connectors that are due; returns how many there were.

    Raises:
        StateError: The stores cannot be reached.
    """
    due = ports.metadata.find_due_connectors(
        ports.registry.names("sources"), ports.clock(), SWEEP_CONNECTORS
    )
    for start in range(0, len(due), BATCH_CONNECTORS):
        # one after the other: a sweep must leave the machine to the loads
        _check(settings, ports, due[start : start + BATCH_CONNECTORS])
    return len(due)


def check_connectors(settings: Settings, records: Sequence[EndpointRecord]) -> None:
    """Test some connectors in this process and note the outcomes."""
    ports = process_ports(settings)
    with ThreadPoolExecutor(CHECKS_AT_ONCE, thread_name_prefix="check") as threads:
        list(threads.map(lambda record: _check_one(ports, record), records))


def _check(settings: Settings, ports: Ports, batch: Sequence[EndpointRecord]) -> None:
    started = ports.clock()
    task = _remote_check.remote(settings, list(batch))
    try:
        ray.get(task, timeout=BATCH_DEADLINE_S)
    except ray.exceptions.RayError as error:  # a time-out, or the worker died
        with suppress(ray.exceptions.RayError):
            ray.cancel(task, force=True)
        for record in batch:
            _fail_untested(ports, record, started, type(error).__name__)


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


_remote_check = ray.remote(num_cpus=0, max_retries=0)(check_connectors)

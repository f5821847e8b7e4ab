"""The planner actor: owns runs and works on many of them at once, each on a thread."""

from __future__ import annotations

import threading
import time
from typing import Any

import ray
import structlog

from matih_ray.errors import MatihError, StateConflictError
from matih_ray.execution.ledger import take_ownership
from matih_ray.execution.run import RunExecution
from matih_ray.execution.sink_pool import SinkPool
from matih_ray.execution.worker import process_ports
from matih_ray.model.ids import RunId, TenantId
from matih_ray.settings import Settings
from matih_ray.telemetry import bind

# A thread of its own for calls that must not wait behind runs.
CONTROL_GROUP = "control"

log = structlog.get_logger(__name__)


class Planner:
    """Executes runs. Its process may die at any time: all that matters is in stores and sinks."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._settings_ref = ray.put(settings)
        self._ports = process_ports(settings)
        self._pool = SinkPool(settings)
        self._lock = threading.Lock()
        self._executions: dict[RunId, RunExecution] = {}
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()

    @ray.method(concurrency_group=CONTROL_GROUP)  # type: ignore[untyped-decorator]  # Ray has no types
    def ping(self) -> str:
        """Tell that the actor is up; answered even while every run's thread is busy."""
        return "pong"

    def execute(self, tenant_id: TenantId, run_id: RunId) -> None:
        """Work on a run until it ends, if it needs an owner."""
        with self._lock:
            if run_id in self._executions:
                return
        bind(tenant=tenant_id, run=run_id)
        try:
            ledger = take_ownership(self._ports, tenant_id, run_id)
        except MatihError as error:
            log.warning("run_not_taken", code=error.code, detail=error.message)
            return
        if ledger is None:
            return
        execution = RunExecution(self._ports, ledger, self._pool, self._settings_ref)
        with self._lock:
            self._executions[run_id] = execution
        try:
            execution.execute()
        finally:
            with self._lock:
                del self._executions[run_id]

    def _beat(self) -> None:
        """Say that every run here is alive, and learn what was asked of it."""
        while True:
            time.sleep(self._settings.heartbeat_s)
            with self._lock:
                executions = list(self._executions.values())
            for execution in executions:
                self._beat_one(execution)

    def _beat_one(self, execution: RunExecution) -> None:
        record = execution.ledger.record
        try:
            fresh = self._ports.metadata.heartbeat(
                record.stream.tenant_id, record.run_id, record.epoch, self._ports.clock()
            )
        except StateConflictError:
            execution.signals.lost = True
        except MatihError as error:
            log.warning("heartbeat_failed", run=record.run_id, code=error.code)
        else:
            execution.signals.requested = fresh.requested


def planner_options(settings: Settings) -> dict[str, Any]:
    """How Ray must start a planner: no CPU of its own, restarted for ever, a thread a run."""
    return {
        "num_cpus": 0,
        "max_restarts": -1,
        "max_task_retries": 0,
        "max_concurrency": settings.runs_per_planner,
        "lifetime": "detached",
        "get_if_exists": True,
    }


PlannerActor = ray.remote(concurrency_groups={CONTROL_GROUP: 1})(Planner)

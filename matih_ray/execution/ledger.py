"""One planner's hold on one run: every write to the run record goes through here."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from matih_ray.control.ports import Ports
from matih_ray.errors import FencedError, StateConflictError, WorkerLostError
from matih_ray.model.ids import RunId, TenantId
from matih_ray.model.run import RunError, RunRecord, RunState

# Conflicts come from users asking to pause or cancel, which happens a few times in a run's life.
UPDATE_ATTEMPTS = 10
# Planners that may die in a row without a commit between. A run that kills every planner would
# take all other runs of each of them down again and again.
LOST_PLANNERS_MAX = 5


class RunLedger:
    """The run record as its owner sees it."""

    def __init__(self, ports: Ports, record: RunRecord) -> None:
        self._ports = ports
        self._epoch = record.epoch
        self.record = record

    def update(self, **changes: Any) -> RunRecord:
        """Change fields of the record, keeping what others changed meanwhile.

        Raises:
            FencedError: Another planner owns the run now.
            StateError: The store cannot be written.
        """
        for _ in range(UPDATE_ATTEMPTS):
            try:
                self.record = self._ports.metadata.update_run(
                    self.record.model_copy(update=changes)
                )
            except StateConflictError:
                plan = self.record.plan
                fresh = self._ports.metadata.get_run(
                    self.record.stream.tenant_id, self.record.run_id
                )
                if fresh.epoch != self._epoch:
                    raise fenced(fresh) from None
                self.record = fresh.model_copy(update={"plan": plan})
            else:
                return self.record
        raise StateConflictError(
            f"run {self.record.run_id} changed {UPDATE_ATTEMPTS} times while it was being written",
            run_id=self.record.run_id,
        )


def take_ownership(ports: Ports, tenant_id: TenantId, run_id: RunId) -> RunLedger | None:
    """Become the owner of a run with a new epoch, or None when it needs no owner or has one."""
    record = ports.metadata.get_run(tenant_id, run_id)
    now = ports.clock()
    if not record.state.is_active:
        return None
    if record.state is RunState.RUNNING and record.heartbeat_at is not None:
        silent = now - record.heartbeat_at
        if silent < timedelta(seconds=ports.settings.orphan_after_s):
            return None
    lost = record.lost_planners + 1 if record.state is RunState.RUNNING else 0
    changes: dict[str, Any] = {
        "state": RunState.RUNNING,
        "epoch": record.epoch + 1,
        "lost_planners": lost,
        "heartbeat_at": now,
        "started_at": record.started_at or now,
        "finished_at": None,
        "error": None,
    }
    if lost > LOST_PLANNERS_MAX:
        error = RunError.of(_too_many_lost(run_id, lost))
        changes |= {"state": RunState.FAILED, "finished_at": now, "error": error}
    try:
        owned = ports.metadata.update_run(record.model_copy(update=changes))
    except StateConflictError:
        return None  # somebody else was faster
    return RunLedger(ports, owned) if owned.state is RunState.RUNNING else None


def _too_many_lost(run_id: RunId, lost: int) -> WorkerLostError:
    return WorkerLostError(
        f"{lost} planners in a row died while they worked on run {run_id}, and nothing was "
        "committed; look for what kills them (memory?), then resume the run",
        run_id=run_id,
        lost=lost,
    )


def fenced(record: RunRecord) -> FencedError:
    """The error of a planner that lost its run."""
    return FencedError(
        f"run {record.run_id} is owned by another planner (epoch {record.epoch})",
        run_id=record.run_id,
        epoch=record.epoch,
    )

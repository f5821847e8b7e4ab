"""The supervisor: finds runs whose planner has died, and hands them to a living one.
It also restarts planners whose process hangs, lets connectors be tested when they are due, and
starts the runs of schedules and sends notifications to webhooks.

One detached actor a cluster, restarted by Ray. It decides nothing about a run: it only launches,
and launching a run that has a living owner does nothing.
"""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import Any

import ray
import structlog

from matih_ray.control.schedules import PASS_SCHEDULES, start_due_runs
from matih_ray.control.webhook_delivery import deliver_due
from matih_ray.errors import MatihError
from matih_ray.execution.health_sweep import sweep_connectors
from matih_ray.execution.housekeeping import keep_house
from matih_ray.execution.launcher import RayLauncher
from matih_ray.execution.worker import process_ports
from matih_ray.settings import Settings

# A planner answers at once unless its process is stopped or its machine is out of memory. Much
# longer than a sweep, since a kill costs all runs of the planner a relaunch.
UNRESPONSIVE_AFTER_S = 60.0

# How often the supervisor looks for schedules that are due.
START_EVERY_S = 1.0
# How often the supervisor looks for notifications to send.
DELIVER_EVERY_S = 5.0
# How often the supervisor looks for connectors whose health check is due.
CHECK_EVERY_S = 10.0

log = structlog.get_logger(__name__)


class Supervisor:
    """Sweeps the run ledger for orphans."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._ports = process_ports(settings)
        self._planners = RayLauncher(settings)
        self._pings: dict[int, tuple[Any, float]] = {}  # planner -> (answer, asked at, s)
        threading.Thread(target=self._sweep_forever, name="sweep", daemon=True).start()
        threading.Thread(target=self._check_forever, name="health", daemon=True).start()
        threading.Thread(target=self._start_forever, name="schedules", daemon=True).start()
        threading.Thread(target=self._deliver_forever, name="webhooks", daemon=True).start()
        if settings.maintenance_s:
            threading.Thread(target=self._maintain_forever, name="upkeep", daemon=True).start()

    def ping(self) -> str:
        """Tell that the actor is up."""
        return "pong"

    def sweep(self) -> int:
        """Launch every orphan once; returns how many there were."""
        cutoff = self._ports.clock() - timedelta(seconds=self._settings.orphan_after_s)
        orphans = self._ports.metadata.find_orphans(cutoff)
        for run in orphans:
            log.info("run_relaunched", tenant=run.stream.tenant_id, run=run.run_id)
            self._ports.launcher.launch(run.stream.tenant_id, run.run_id)
        return len(orphans)

    def restart_hung_planners(self) -> int:
        """Kill planners that have not answered for long; Ray starts them again."""
        killed = 0
        for index in range(self._settings.planner_hosts):
            planner = self._planners.planner(index)
            answer, asked_s = self._pings.pop(index, (None, 0.0))
            if answer is not None and not ray.wait([answer], timeout=0)[0]:
                if time.monotonic() - asked_s < UNRESPONSIVE_AFTER_S:
                    self._pings[index] = (answer, asked_s)
                    continue
                log.warning("planner_restarted", planner=index)
                ray.kill(planner, no_restart=False)
                killed += 1
            self._pings[index] = (planner.ping.remote(), time.monotonic())
        return killed

    def _sweep_forever(self) -> None:
        while True:
            try:
                self.sweep()
                self.restart_hung_planners()
            except (MatihError, ray.exceptions.RayError) as error:
                log.warning("sweep_failed", detail=str(error))
            time.sleep(self._settings.orphan_after_s / 2)

    def _check_forever(self) -> None:
        """Apart from the other sweep: connectors may hang, and lost runs must not wait for them."""
        while True:
            found = 0
            try:
                found = sweep_connectors(self._settings, self._ports)
            except (MatihError, ray.exceptions.RayError) as error:
                log.warning("health_checks_failed", detail=str(error))
            if found == 0:
                time.sleep(min(CHECK_EVERY_S, self._settings.connector_check_s / 10))

    def _start_forever(self) -> None:
        """Apart from the others: what is due must not wait for what hangs."""
        while True:
            found = 0
            try:
                found = start_due_runs(self._ports)
            except (MatihError, ray.exceptions.RayError) as error:
                log.warning("schedules_failed", detail=str(error))
            if found < PASS_SCHEDULES:
                time.sleep(START_EVERY_S)

    def _deliver_forever(self) -> None:
        """Apart from the checks, which may take minutes."""
        while True:
            found = 0
            try:
                found = deliver_due(self._ports)
            except MatihError as error:
                log.warning("webhooks_failed", detail=str(error))
            if found == 0:
                time.sleep(DELIVER_EVERY_S)

    def _maintain_forever(self) -> None:
        """The first pass comes after a whole interval: a supervisor that is started again and again
        must not begin with it."""
        while True:
            time.sleep(self._settings.maintenance_s)
            try:
                keep_house(self._settings, self._ports)
            except (MatihError, ray.exceptions.RayError) as error:
                log.warning("maintenance_failed", detail=str(error))


def supervisor_options() -> dict[str, Any]:
    """How Ray must start the supervisor."""
    return {
        "num_cpus": 0,
        "max_restarts": -1,
        "max_concurrency": 4,
        "lifetime": "detached",
        "get_if_exists": True,
    }


SupervisorActor = ray.remote(Supervisor)

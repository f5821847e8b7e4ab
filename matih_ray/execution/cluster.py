"""Starts the long-lived actors of a cluster. Safe to call from every replica and every job."""

from __future__ import annotations

import ray

from matih_ray.execution.launcher import NAMESPACE, SUPERVISOR_NAME, planner_name
from matih_ray.execution.planner_actor import PlannerActor, planner_options
from matih_ray.execution.supervisor import SupervisorActor, supervisor_options
from matih_ray.settings import Settings

# Starting an actor process takes seconds on a busy machine.
READY_TIMEOUT_S = 120.0


def ensure_actors(settings: Settings) -> None:
    """Start planners and the supervisor unless they exist, and wait until they answer."""
    planners = [
        PlannerActor.options(
            name=planner_name(index), namespace=NAMESPACE, **planner_options(settings)
        ).remote(settings)
        for index in range(settings.planner_hosts)
    ]
    ray.get([planner.ping.remote() for planner in planners], timeout=READY_TIMEOUT_S)
    supervisor = SupervisorActor.options(
        name=SUPERVISOR_NAME, namespace=NAMESPACE, **supervisor_options()
    ).remote(settings)
    ray.get(supervisor.ping.remote(), timeout=READY_TIMEOUT_S)

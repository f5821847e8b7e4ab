"""Starts the long-lived actors of a cluster. Safe to call from every replica and every job."""

from __future__ import annotations

from typing import Any

import ray

from matih_ray.errors import ConfigurationError
from matih_ray.execution.boundary import unwrap
from matih_ray.execution.launcher import NAMESPACE, SUPERVISOR_NAME, planner_name
from matih_ray.execution.planner_actor import PlannerActor, planner_options
from matih_ray.execution.supervisor import SupervisorActor, supervisor_options
from matih_ray.settings import Settings

# Starting an actor process takes seconds on a busy machine.
READY_TIMEOUT_S = 120.0


def ensure_actors(settings: Settings) -> list[Any]:
    """Start planners and the supervisor unless they exist; does not wait for them.

    Returns:
        Their handles, for `wait_for_actors`.
    """
    planners = [
        PlannerActor.options(
            name=planner_name(index), namespace=NAMESPACE, **planner_options(settings)
        ).remote(settings)
        for index in range(settings.planner_hosts)
    ]
    supervisor = SupervisorActor.options(
        name=SUPERVISOR_NAME, namespace=NAMESPACE, **supervisor_options()
    ).remote(settings)
    return [*planners, supervisor]


def wait_for_actors(actors: list[Any]) -> None:
    """Return when all of them answer.

    Raises:
        ConfigurationError: One of them cannot start.
    """
    try:
        ray.get([actor.ping.remote() for actor in actors], timeout=READY_TIMEOUT_S)
    except ray.exceptions.RayError as error:
        raise ConfigurationError(
            f"planners or supervisor do not start: {unwrap(error).message}"
        ) from error

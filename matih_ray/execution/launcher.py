"""Hands runs to planner actors. Planner actors are named, detached and restarted by Ray."""

from __future__ import annotations

import random
from typing import Any

import ray

from matih_ray.model.ids import RunId, TenantId
from matih_ray.settings import Settings

NAMESPACE = "matih"
SUPERVISOR_NAME = "supervisor"


def planner_name(index: int) -> str:
    """The actor name of the n-th planner."""
    return f"planner-{index}"


class RayLauncher:
    """A `RunLauncher`: sends a run to any planner.

    Any, and not the one its id hashes to: a run is launched again when its planner does not move,
    and must then not meet the same one for ever.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._handles: dict[int, Any] = {}

    def launch(self, tenant_id: TenantId, run_id: RunId) -> None:
        """Queue a run at its planner; safe to repeat, since only an owner works on a run."""
        index = random.randrange(self._settings.planner_hosts)  # noqa: S311 balance, not a secret
        self.planner(index).execute.remote(tenant_id, run_id)

    def planner(self, index: int) -> Any:
        """The handle of the n-th planner."""
        handle = self._handles.get(index)
        if handle is None:
            handle = ray.get_actor(planner_name(index), namespace=NAMESPACE)
            self._handles[index] = handle
        return handle

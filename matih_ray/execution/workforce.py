"""The cluster as a workforce: the heavy part of a sink's commit, in tasks of its own.

The tasks reserve no CPU. A planner that commits reads no batches meanwhile, so its slice tasks wait
with their CPUs reserved, and work that waited for a CPU would wait for ever. How many run at a time
is bounded here instead.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray

from matih_ray.control.building import build_sink
from matih_ray.execution.boundary import unwrap
from matih_ray.execution.worker import process_ports
from matih_ray.model.ids import SinkId, TenantId
from matih_ray.settings import Settings
from matih_ray.sinks.base import SupportsWork, WorkItem

# A lost worker costs one item; one that is lost again and again has too little memory.
MAX_RETRIES = 3


def work(settings: Settings, tenant_id: TenantId, sink_id: SinkId, item: WorkItem) -> WorkItem:
    """Do one item of a sink's work."""
    sink = build_sink(process_ports(settings), tenant_id, sink_id)
    try:
        assert isinstance(sink, SupportsWork)  # noqa: S101 - the item came from this sink
        return sink.work(item)
    finally:
        sink.close()


remote_work = ray.remote(num_cpus=0, max_retries=MAX_RETRIES)(work)


@dataclass(frozen=True)
class RayWorkforce:
    """Runs items on the cluster, `parallelism` at a time. See `Workforce`."""

    settings_ref: Any
    tenant_id: TenantId
    sink_id: SinkId
    parallelism: int

    def run(self, items: Sequence[WorkItem]) -> list[WorkItem]:
        """The results, in order. The first error ends all work.

        Raises:
            MatihError: What an item raised, or `WorkerLostError`.
        """
        waiting = deque(enumerate(items))
        running: dict[Any, int] = {}
        results: dict[int, WorkItem] = {}
        try:
            while waiting or running:
                while waiting and len(running) < self.parallelism:
                    number, item = waiting.popleft()
                    running[self._start(item)] = number
                (done,), _ = ray.wait(list(running), num_returns=1)
                results[running.pop(done)] = ray.get(done)
        except ray.exceptions.RayError as error:
            raise unwrap(error) from None
        finally:
            for reference in running:
                ray.cancel(reference, force=False)
        return [results[number] for number in range(len(items))]

    def _start(self, item: WorkItem) -> Any:
        task = remote_work.options(name="merge")
        return task.remote(self.settings_ref, self.tenant_id, self.sink_id, item)

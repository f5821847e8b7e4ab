"""The sink actors of one planner, started when first needed and shared by its runs."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from matih_ray.execution.sink_actor import SinkActor
from matih_ray.settings import Settings


@dataclass(eq=False)
class PooledSink:
    """A sink actor and how many attempts are writing to it."""

    actor: Any
    attempts: int = 0


class SinkPool:
    """Gives each attempt the actor with the least to do. Thread-safe."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._sinks: list[PooledSink] = []

    def acquire(self) -> PooledSink:
        """An actor for one attempt; a new one while the pool is not full and all are busy."""
        with self._lock:
            idle = min(self._sinks, key=lambda sink: sink.attempts, default=None)
            full = len(self._sinks) >= self._settings.sink_actors_per_planner
            if idle is None or (idle.attempts > 0 and not full):
                idle = PooledSink(SinkActor.remote(self._settings))
                self._sinks.append(idle)
            idle.attempts += 1
            return idle

    def release(self, sink: PooledSink) -> None:
        """The attempt is over."""
        with self._lock:
            sink.attempts -= 1

    def discard(self, sink: PooledSink) -> None:
        """The actor is dead; never give it out again."""
        with self._lock:
            if sink in self._sinks:
                self._sinks.remove(sink)

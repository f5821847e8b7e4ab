"""Runs a plan's slices on the cluster: starts tasks, forwards batches to sinks, retries.

One scheduler belongs to one run and one thread. It never looks at rows: it moves references from
slice tasks to sink actors and waits for results.
"""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import ray

from matih_ray.errors import MatihError, WorkerLostError
from matih_ray.execution.boundary import unwrap
from matih_ray.execution.failure_policy import FailurePolicy, GiveUp
from matih_ray.execution.sink_actor import Attempt, SliceResult
from matih_ray.execution.sink_pool import PooledSink, SinkPool
from matih_ray.execution.tasks import SliceTask, remote_read_slice
from matih_ray.model.ids import SinkId
from matih_ray.model.plan import IngestionSlice
from matih_ray.sinks.base import PreparedTarget
from matih_ray.staging.object_store import ObjectStoreSession, ObjectStoreStaging

# Writes under way per slice: one being written while the next is on its way.
WRITES_AHEAD = 2


@dataclass(frozen=True)
class SliceDone:
    """A slice that is written, with the number of attempts it took."""

    slice: IngestionSlice
    result: SliceResult
    attempts: int


@dataclass(frozen=True)
class SliceRetried:
    """A slice whose attempt failed and that will be read again."""

    slice: IngestionSlice
    error: MatihError
    attempts: int


SliceEvent = SliceDone | SliceRetried


@dataclass(eq=False)
class _Running:
    attempt: Attempt
    generator: Any
    sink: PooledSink
    session: ObjectStoreSession
    writes: deque[tuple[Any, Any]] = field(default_factory=deque)  # (result, staged reference)
    drained: bool = False


@dataclass(order=True)
class _Waiting:
    due_s: float
    sequence: int
    slice: IngestionSlice = field(compare=False)


class SliceScheduler:
    """Works through slices in sequence with bounded parallelism.

    Raises from `poll`: the error of a slice whose retries are spent, or that must not be retried.
    """

    def __init__(
        self,
        settings_ref: Any,
        task_of: Callable[[IngestionSlice], SliceTask],
        sink_id: SinkId,
        prepared: PreparedTarget,
        pool: SinkPool,
        parallelism: int,
        slice_cpus: float,
    ) -> None:
        self._settings_ref = settings_ref
        self._task_of = task_of
        self._sink_id = sink_id
        self._prepared = prepared
        self._pool = pool
        self._parallelism = parallelism
        self._remote_read = remote_read_slice.options(name="read_slice", num_cpus=slice_cpus)
        self._policy = FailurePolicy()
        self._attempts: dict[str, int] = {}
        self._pending: deque[IngestionSlice] = deque()
        self._waiting: list[_Waiting] = []
        self._running: list[_Running] = []

    def submit(self, slices: Iterable[IngestionSlice]) -> None:
        """Queue slices, in sequence."""
        self._pending.extend(slices)

    @property
    def idle(self) -> bool:
        """Nothing is queued, waiting or running."""
        return not (self._pending or self._waiting or self._running)

    @property
    def queue_depth(self) -> int:
        """Staged batches that are not written yet."""
        return sum(running.session.depth for running in self._running)

    def poll(self, timeout_s: float, *, start_new: bool = True) -> Iterator[SliceEvent]:
        """Advance by at most one event, waiting up to `timeout_s` seconds for it.

        Without `start_new` only slices that were started before are tried again: what is written
        behind one of them can be committed when it has succeeded, and not before.
        """
        self._start(start_new=start_new)
        watched = self._watched()
        if not watched:
            time.sleep(min(timeout_s, 0.05))
            return
        ready, _ = ray.wait(list(watched), num_returns=1, timeout=timeout_s, fetch_local=False)
        for item in ready:
            running = watched[item]
            try:
                done = self._advance(running, item)
            except (ray.exceptions.RayError, MatihError) as error:
                yield self._failed(running, unwrap(error))
            else:
                if done is not None:
                    yield done

    def cancel(self) -> None:
        """Stop all attempts; what they wrote is dropped."""
        for running in list(self._running):
            self._drop(running)
        self._pending.clear()
        self._waiting.clear()

    def _start(self, *, start_new: bool) -> None:
        now = time.monotonic()
        while len(self._running) < self._parallelism:
            due = min(self._waiting, default=None)
            if due is not None and due.due_s <= now:
                self._waiting.remove(due)
                self._launch(due.slice)
            elif start_new and self._pending:
                self._launch(self._pending.popleft())
            else:
                return

    def _launch(self, slice_: IngestionSlice) -> None:
        self._attempts[slice_.key] = self._attempts.get(slice_.key, 0) + 1
        task = self._task_of(slice_)
        attempt = Attempt(
            attempt_id=uuid.uuid4().hex,
            tenant_id=task.tenant_id,
            run_id=task.run_id,
            sink_id=self._sink_id,
            prepared=self._prepared,
            slice=slice_,
        )
        sink = self._pool.acquire()
        sink.actor.begin.remote(attempt)
        self._running.append(
            _Running(
                attempt=attempt,
                generator=self._remote_read.remote(self._settings_ref, task),
                sink=sink,
                session=ObjectStoreStaging().allocate(slice_.key),
            )
        )

    def _watched(self) -> dict[Any, _Running]:
        """What can move an attempt on: its next batch, or its oldest write."""
        watched: dict[Any, _Running] = {}
        for running in self._running:
            if not running.drained and len(running.writes) < WRITES_AHEAD:
                watched[running.generator] = running
            if running.writes:
                watched[running.writes[0][0]] = running
        return watched

    def _advance(self, running: _Running, item: Any) -> SliceDone | None:
        if item is running.generator:
            self._forward(running)
            return None
        result_reference, staged = running.writes.popleft()
        result: SliceResult | None = ray.get(result_reference)
        running.session.release(staged)
        if result is None:
            return None
        self._end(running)
        slice_ = running.attempt.slice
        return SliceDone(slice_, result, self._attempts[slice_.key])

    def _forward(self, running: _Running) -> None:
        try:
            staged = next(running.generator)
        except StopIteration:
            running.drained = True
            if not running.writes:
                raise WorkerLostError(
                    f"slice {running.attempt.slice.key} ended without its last word"
                ) from None
            return
        running.session.adopt(staged)
        result = running.sink.actor.write.remote(running.attempt.attempt_id, staged)
        running.writes.append((result, staged))

    def _failed(self, running: _Running, error: MatihError) -> SliceRetried:
        slice_ = running.attempt.slice
        if isinstance(error, WorkerLostError) and self._is_dead(running.sink):
            self._pool.discard(running.sink)
        self._drop(running)
        decision = self._policy.decide(slice_.key, error)
        if isinstance(decision, GiveUp):
            raise decision.error
        due_s = time.monotonic() + decision.after_s
        self._waiting.append(_Waiting(due_s, slice_.sequence, slice_))
        return SliceRetried(slice_, error, self._attempts[slice_.key])

    @staticmethod
    def _is_dead(sink: PooledSink) -> bool:
        try:
            ray.get(sink.actor.pid.remote(), timeout=10.0)
        except ray.exceptions.RayError:
            return True
        return False

    def _drop(self, running: _Running) -> None:
        ray.cancel(running.generator, force=False)
        running.sink.actor.drop.remote(running.attempt.attempt_id)
        self._end(running)

    def _end(self, running: _Running) -> None:
        running.session.close()
        self._pool.release(running.sink)
        self._running.remove(running)

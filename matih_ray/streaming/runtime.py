"""Jobs on Ray: an actor for each, and a supervisor that starts them and brings them back.

The record in the metadata store says who works on a job: its epoch. The supervisor takes the next
epoch and starts an actor for it; the actor beats, and one that finds a higher epoch in the record
ends. A process that died stops beating, becomes due and gets a successor, which goes on from the
last checkpoint. Nothing here must be right for rows to be right: two owners of one job are told
apart by the sink.

A job of parallelism 1 reads, aggregates and commits in its actor, with no copy between. One of a
higher parallelism has a worker actor for each share, and its own actor is the only committer; a
worker that dies ends the owner's work, and the successor hires others. Why owners are detached and
not restarted by Ray: a restart that knows nothing of epochs would be an owner like the dead one.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any

import ray
import structlog
from ray.util import metrics

from matih_ray import telemetry
from matih_ray.errors import MatihError, StateConflictError, WorkerLostError
from matih_ray.model.ids import TenantId
from matih_ray.model.sql_session import QueryTask
from matih_ray.model.stream_job import StreamJob, StreamJobState, StreamProgress
from matih_ray.settings import Settings
from matih_ray.state.factory import process_stores
from matih_ray.streaming.owner import StreamJobOwner, ended, now
from matih_ray.streaming.queries import run_query
from matih_ray.streaming.submission import TenantScripts
from matih_ray.streaming.tasks import SourceTask, WindowTask
from matih_ray.telemetry import bind, configure_logging

NAMESPACE = "matih"
SUPERVISOR = "stream-supervisor"
# How often the supervisor looks for jobs to start.
SWEEP_S = 1.0
PASS_JOBS = 100
# A process starts within seconds, on a busy machine within many.
START_GRACE_S = 120.0
# A turn takes seconds at most, the start of a worker on a busy machine minutes.
ANSWER_TIMEOUT_S = 600.0
# The threads of a worker.
_SOURCE, _WINDOWS = "source", "windows"
_LOST = (
    ray.exceptions.RayActorError,
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.NodeDiedError,
    ray.exceptions.ObjectLostError,
    ray.exceptions.LocalRayletDiedError,
    ray.exceptions.OutOfMemoryError,
)

log = structlog.get_logger(__name__)


def actor_name(job: StreamJob) -> str:
    """The name of the actor of a job's current owner."""
    return f"stream-{job.job_id}-{job.epoch}"


def worker_name(job: StreamJob, number: int) -> str:
    """The name of one of the workers of a job's current owner."""
    return f"{actor_name(job)}-worker-{number}"


class StreamSupervisor:
    """Starts jobs that are due: new ones, and those whose owner has stopped beating."""

    def __init__(self, settings: Settings) -> None:
        configure_logging(settings)
        self._settings = settings
        self._metadata = process_stores(settings).metadata
        threading.Thread(target=self._sweep_forever, name="sweep", daemon=True).start()

    def ping(self) -> int:
        """Tell that the actor is up; its process's id."""
        return os.getpid()

    def sweep(self) -> int:
        """Start what is due; how many jobs that were."""
        due = self._metadata.find_due_stream_jobs(now(), PASS_JOBS)
        for job in due:
            with suppress(StateConflictError):  # somebody was faster
                self._start(job)
        return len(due)

    def _start(self, job: StreamJob) -> None:
        self._kill(job)
        if job.cancel_requested:
            self._metadata.put_stream_job(ended(job, StreamJobState.CANCELED))
            return
        lost = job.state is StreamJobState.RUNNING
        taken = self._metadata.put_stream_job(
            job.model_copy(
                update={
                    "epoch": job.epoch + 1,
                    "state": StreamJobState.RESTARTING if job.epoch else StreamJobState.CREATED,
                    "restarts": job.restarts + lost,
                    "due_at": now() + timedelta(seconds=START_GRACE_S),
                }
            )
        )
        log.info("stream_job_started", tenant=job.tenant_id, job=job.job_id, epoch=taken.epoch)
        StreamJobActor.options(name=actor_name(taken), namespace=NAMESPACE, **job_options()).remote(
            self._settings, taken.tenant_id, taken.job_id, taken.epoch
        )

    def _adopt(self) -> None:
        """Start what the supervisor before this one died over: no need to wait for it."""
        soon = now() + timedelta(seconds=START_GRACE_S)
        for job in self._metadata.find_due_stream_jobs(soon, PASS_JOBS):
            if job.state is StreamJobState.RUNNING:
                continue
            try:
                ray.get_actor(actor_name(job), namespace=NAMESPACE)
            except ValueError:
                with suppress(StateConflictError):
                    self._start(job)

    def _kill(self, job: StreamJob) -> None:
        """End the process of an owner that does not beat any more, if there is one."""
        with suppress(ValueError):
            ray.kill(ray.get_actor(actor_name(job), namespace=NAMESPACE))

    def _sweep_forever(self) -> None:
        is_new = True
        while True:
            try:
                if is_new:
                    self._adopt()
                is_new = False
                self.sweep()
            except (MatihError, ray.exceptions.RayError) as error:
                log.warning("stream_sweep_failed", detail=str(error))
            time.sleep(SWEEP_S)


class StreamWorker:
    """One of the processes of a parallel job: a source task and a window task.

    Both in one process, each with a thread of its own: they wait for each other's turns anyway, and
    a process costs more memory than both.
    """

    def __init__(self, settings: Settings, job: StreamJob, number: int) -> None:
        configure_logging(settings)
        bind(tenant=job.tenant_id, job=job.job_id)
        plan = TenantScripts(settings).task_plan(job)
        self._source = SourceTask(plan, number)
        self._windows = WindowTask(plan) if plan.window is not None else None

    def ping(self) -> int:
        """Tell that the actor is up; its process's id."""
        return os.getpid()

    def source(self, method: str, *values: Any) -> Any:
        """See `tasks.SourceTask`."""
        return getattr(self._source, method)(*values)

    def windows(self, method: str, *values: Any) -> Any:
        """See `tasks.WindowTask`."""
        return getattr(self._windows, method)(*values)


class RayCrew:
    """A `parallel.Crew` of actors. They are not detached: they die with whoever hired them."""

    def __init__(self, settings: Settings, job: StreamJob) -> None:
        self._workers = [
            StreamWorkerActor.options(
                name=worker_name(job, number), namespace=NAMESPACE, num_cpus=0, max_restarts=0
            ).remote(settings, job, number)
            for number in range(job.parallelism)
        ]

    def ask_source(self, number: int, method: str, *values: object, returns: int = 1) -> Any:
        """See `Crew`."""
        call = self._workers[number].source.options(num_returns=returns, concurrency_group=_SOURCE)
        return call.remote(method, *values)

    def ask_window(self, number: int, method: str, *values: object) -> Any:
        """See `Crew`."""
        call = self._workers[number].windows.options(concurrency_group=_WINDOWS)
        return call.remote(method, *values)

    def answers(self, promises: Sequence[Any]) -> list[Any]:
        """See `Crew`."""
        try:
            found: list[Any] = ray.get(list(promises), timeout=ANSWER_TIMEOUT_S)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, MatihError):
                raise error.cause from None
            raise
        except ray.exceptions.GetTimeoutError:
            raise WorkerLostError(
                f"a task of the job has not answered for {ANSWER_TIMEOUT_S} s"
            ) from None
        except _LOST as error:
            raise WorkerLostError(f"a process of the job is gone: {type(error).__name__}") from None
        return found

    def close(self) -> None:
        """See `Crew`."""
        for worker in self._workers:
            ray.kill(worker)


class JobMetrics:
    """Gauges of one job, at the metrics endpoint of the node that its owner is on."""

    def __init__(self, tenant_id: TenantId, job_id: str) -> None:
        self._tags = dict(zip(telemetry.STREAM_TAGS, (tenant_id, job_id), strict=True))
        described = dict(telemetry.STREAM_METRICS)
        described["watermark"] = (telemetry.METRIC_STREAM_LAG, "Event time behind the clock")
        self._gauges = {
            field: metrics.Gauge(name, text, tag_keys=telemetry.STREAM_TAGS)
            for field, (name, text) in described.items()
        }

    def report(self, progress: StreamProgress) -> None:
        """Show how the job is doing."""
        for field, gauge in self._gauges.items():
            value = getattr(progress, field)
            if field == "watermark" and value is not None:
                value = (now() - value).total_seconds()
            if value is not None:
                gauge.set(value, tags=self._tags)


class StreamJobProcess(StreamJobOwner):
    """The owner as an actor, which ends with its work."""

    def __init__(self, settings: Settings, tenant_id: TenantId, job_id: str, epoch: int) -> None:
        report = JobMetrics(tenant_id, job_id).report
        super().__init__(settings, tenant_id, job_id, epoch, partial(RayCrew, settings), report)
        # asked by itself, so that it begins though the supervisor dies now
        ray.get_runtime_context().current_actor.run.remote()

    def run(self) -> None:
        """See `StreamJobOwner`."""
        super().run()
        ray.actor.exit_actor()


def job_options() -> dict[str, Any]:
    """How Ray must start a job: detached, so that it outlives the supervisor."""
    return {"num_cpus": 0, "max_restarts": 0, "max_concurrency": 2, "lifetime": "detached"}


def ensure_stream_supervisor(settings: Settings) -> Any:
    """Start the supervisor unless there is one; its handle."""
    return SupervisorActor.options(
        name=SUPERVISOR,
        namespace=NAMESPACE,
        num_cpus=0,
        max_restarts=-1,
        max_concurrency=2,
        lifetime="detached",
        get_if_exists=True,
    ).remote(settings)


def start_query(settings: Settings, task: QueryTask) -> None:
    """Run a query in a worker process, which reserves no CPU: it mostly waits for a source. A
    process that dies is told by the operation's record, which is overdue then."""
    _remote_query.remote(settings, task)


_remote_query = ray.remote(num_cpus=0, max_retries=0)(run_query)
SupervisorActor = ray.remote(StreamSupervisor)
StreamJobActor = ray.remote(StreamJobProcess)
StreamWorkerActor = ray.remote(concurrency_groups={_SOURCE: 1, _WINDOWS: 1})(StreamWorker)

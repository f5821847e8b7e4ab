"""Jobs on Ray: an actor for each, and a supervisor that starts them and brings them back.

The record in the metadata store says who works on a job: its epoch. The supervisor takes the next
epoch and starts an actor for it; the actor beats, and one that finds a higher epoch in the record
ends. A process that died stops beating, becomes due and gets a successor, which goes on from the
last checkpoint. Nothing here must be right for rows to be right: two owners of one job are told
apart by the sink.

Why one actor for a whole job, and not one for each operator: a job reads, aggregates and commits
in one process with no copy between, and that is fast enough for what one process can read. Why
detached and not restarted by Ray: a restart that knows nothing of epochs would be an owner like the
dead one.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import Any

import ray
import structlog

from matih_ray.errors import FencedError, MatihError, Recovery, StateConflictError
from matih_ray.model.ids import TenantId
from matih_ray.model.run import RunError
from matih_ray.model.stream_job import (
    Savepoint,
    SavepointState,
    StreamJob,
    StreamJobState,
    StreamProgress,
)
from matih_ray.settings import Settings
from matih_ray.state.base import MetadataStore
from matih_ray.state.factory import process_stores
from matih_ray.streaming.engine import Command, Engine
from matih_ray.streaming.submission import TenantScripts
from matih_ray.streaming.watermarks import BEGINNING, END
from matih_ray.telemetry import bind, configure_logging

NAMESPACE = "matih"
SUPERVISOR = "stream-supervisor"
# How often the supervisor looks for jobs to start.
SWEEP_S = 1.0
PASS_JOBS = 100
# A process starts within seconds, on a busy machine within many.
START_GRACE_S = 120.0
# Between two attempts of a job that fails for a reason that may pass: doubled up to the longest.
FIRST_BACKOFF_S = 1.0
MAX_BACKOFF_S = 60.0
# Checkpoints after which an owner counts as one that worked, so that the next waits little again.
WELL = 3
# Restarts after which an error that nobody foresaw is taken for one that will not pass.
MAX_UNEXPECTED = 10
# Beats in a row that the store did not take, until a job rather stops than works unseen.
MAX_LOST_BEATS = 30
READY_TIMEOUT_S = 120.0

log = structlog.get_logger(__name__)


def actor_name(job: StreamJob) -> str:
    """The name of the actor of a job's current owner."""
    return f"stream-{job.job_id}-{job.epoch}"


class StreamSupervisor:
    """Starts jobs that are due: new ones, and those whose owner has stopped beating."""

    def __init__(self, settings: Settings) -> None:
        configure_logging(settings)
        self._settings = settings
        self._metadata = process_stores(settings).metadata
        threading.Thread(target=self._sweep_forever, name="sweep", daemon=True).start()

    def ping(self) -> str:
        """Tell that the actor is up."""
        return "pong"

    def sweep(self) -> int:
        """Start what is due; how many jobs that were."""
        due = self._metadata.find_due_stream_jobs(_now(), PASS_JOBS)
        for job in due:
            with suppress(StateConflictError):  # somebody was faster
                self._start(job)
        return len(due)

    def _start(self, job: StreamJob) -> None:
        self._kill(job)
        if job.cancel_requested:
            self._metadata.put_stream_job(_ended(job, StreamJobState.CANCELED))
            return
        lost = job.state is StreamJobState.RUNNING
        taken = self._metadata.put_stream_job(
            job.model_copy(
                update={
                    "epoch": job.epoch + 1,
                    "state": StreamJobState.RESTARTING if job.epoch else StreamJobState.CREATED,
                    "restarts": job.restarts + lost,
                    "due_at": _now() + timedelta(seconds=START_GRACE_S),
                }
            )
        )
        log.info("stream_job_started", tenant=job.tenant_id, job=job.job_id, epoch=taken.epoch)
        actor = StreamJobActor.options(
            name=actor_name(taken), namespace=NAMESPACE, **job_options()
        ).remote(self._settings, taken.tenant_id, taken.job_id, taken.epoch)
        actor.run.remote()

    def _kill(self, job: StreamJob) -> None:
        """End the process of an owner that does not beat any more, if there is one."""
        with suppress(ValueError):
            ray.kill(ray.get_actor(actor_name(job), namespace=NAMESPACE))

    def _sweep_forever(self) -> None:
        while True:
            try:
                self.sweep()
            except (MatihError, ray.exceptions.RayError) as error:
                log.warning("stream_sweep_failed", detail=str(error))
            time.sleep(SWEEP_S)


class StreamJobOwner:
    """Works on one job as one epoch. Its process may die at any time."""

    def __init__(self, settings: Settings, tenant_id: TenantId, job_id: str, epoch: int) -> None:
        configure_logging(settings)
        bind(tenant=tenant_id, job=job_id)
        self._settings = settings
        self._metadata: MetadataStore = process_stores(settings).metadata
        self._key = (tenant_id, job_id)
        self._epoch = epoch
        self._lock = threading.Lock()  # one writer of the record at a time
        self._engine: Engine | None = None
        self._asked: set[str] = set()
        self._over = threading.Event()

    def ping(self) -> int:
        """Tell that the actor is up; its process's id."""
        return os.getpid()

    def run(self) -> None:
        """Work until the job ends, or somebody else owns it."""
        beat = threading.Thread(target=self._beat_forever, name="beat", daemon=True)
        try:
            job = self._change(lambda job: job.model_copy(update={"due_at": self._due()}))
            if job is not None:
                engine = self._engine = TenantScripts(self._settings).engine(job)
                self._change(_started)
                beat.start()
                self._finish(engine.run())
        except FencedError as error:
            log.warning("stream_job_fenced", detail=error.message)
            self._retry(error)
        except MatihError as error:
            self._fail(error)
        except Exception as error:  # the boundary of a job: nobody else would tell
            log.exception("stream_job_broke")
            self._broke(error)
        finally:
            self._over.set()
        ray.actor.exit_actor()

    # --- the end -----------------------------------------------------------------------------

    def _finish(self, ended: bool) -> None:  # noqa: FBT001 - what the engine answered
        canceled = self._engine is not None and self._engine.cancelled
        if canceled and not ended:
            self._change(
                lambda job: _ended(job, StreamJobState.CANCELED) if job.cancel_requested else job
            )
            return
        self._change(lambda job: _ended(self._told(job), StreamJobState.FINISHED))

    def _fail(self, error: MatihError) -> None:
        if error.recovery in (Recovery.RETRY, Recovery.PAUSE, Recovery.RECONCILE):
            self._retry(error)
            return
        log.warning("stream_job_failed", code=error.code, detail=error.message)
        self._change(
            lambda job: _ended(self._told(job), StreamJobState.FAILED).model_copy(
                update={"error": RunError.of(error)}
            )
        )

    def _broke(self, error: Exception) -> None:
        """An error that nobody foresaw: perhaps it passes, and its text may hold anything."""
        told = MatihError(f"unexpected {type(error).__name__}; the log has the details")
        job = self._metadata.get_stream_job(*self._key)
        if job.restarts < MAX_UNEXPECTED and not isinstance(error, AssertionError):
            self._retry(told)
        else:
            self._fail(told)

    def _retry(self, error: MatihError) -> None:
        """Let the supervisor start the job again, later each time."""
        log.warning("stream_job_restarts", code=error.code, detail=error.message)

        def again(job: StreamJob) -> StreamJob:
            went_well = self._engine is not None and self._engine.progress.checkpoints > WELL
            doublings = 0 if went_well else min(job.restarts, 16)
            wait_s = min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2**doublings)
            return job.model_copy(
                update={
                    "state": StreamJobState.RESTARTING,
                    "restarts": job.restarts + 1,
                    "error": RunError.of(error),
                    "due_at": _now() + timedelta(seconds=wait_s),
                }
            )

        self._change(again)

    # --- the record --------------------------------------------------------------------------

    def _beat_forever(self) -> None:
        lost = 0
        while not self._over.wait(self._settings.heartbeat_s):
            try:
                job = self._change(lambda job: self._told(job, beat=True))
                lost = 0
            except MatihError as error:
                lost += 1
                log.warning("heartbeat_failed", code=error.code)
                if lost >= MAX_LOST_BEATS and self._engine is not None:
                    self._engine.cancel()
                continue
            if job is not None:
                self._obey(job)

    def _obey(self, job: StreamJob) -> None:
        """Hand on to the engine what the record asks for."""
        engine = self._engine
        if engine is None:
            return
        if job.cancel_requested:
            engine.cancel()
        for asked in job.savepoints:
            if asked.state is SavepointState.IN_PROGRESS and asked.savepoint_id not in self._asked:
                self._asked.add(asked.savepoint_id)
                engine.commands.put(
                    Command(asked.stop, asked.directory, _Reply(self, asked.savepoint_id))
                )

    def saved(self, savepoint_id: str, path: str | None, error: Exception | None) -> None:
        """Note how a savepoint went."""
        state = SavepointState.FAILED if error else SavepointState.COMPLETED
        update = {"state": state, "path": path, "error": str(error) if error else None}

        def noted(one: Savepoint) -> Savepoint:
            return one.model_copy(update=update) if one.savepoint_id == savepoint_id else one

        self._change(
            lambda job: job.model_copy(
                update={"savepoints": tuple(noted(one) for one in job.savepoints)}
            )
        )

    def _change(self, change: Any) -> StreamJob | None:
        """Change the record, unless another owner has it: then the engine is told to end."""
        with self._lock:
            while True:
                job = self._metadata.get_stream_job(*self._key)
                if job.epoch != self._epoch or not job.state.is_active:
                    if self._engine is not None:
                        self._engine.cancel()
                    return None
                try:
                    return self._metadata.put_stream_job(change(job))
                except StateConflictError:
                    continue  # a request came in between

    def _told(self, job: StreamJob, *, beat: bool = False) -> StreamJob:
        progress = job.progress if self._engine is None else progress_of(self._engine)
        update: dict[str, Any] = {"progress": progress, "heartbeat_at": _now()}
        if beat:
            update["due_at"] = self._due()
        return job.model_copy(update=update)

    def _due(self) -> datetime:
        return _now() + timedelta(seconds=self._settings.orphan_after_s)


class _Reply:
    """What an engine calls when a savepoint is made."""

    def __init__(self, owner: StreamJobOwner, savepoint_id: str) -> None:
        self._owner = owner
        self._savepoint_id = savepoint_id

    def __call__(self, path: str | None, error: Exception | None) -> None:
        self._owner.saved(self._savepoint_id, path, error)


def progress_of(engine: Engine) -> StreamProgress:
    """How an engine is doing."""
    counts, progress = engine.pipeline.counts, engine.progress
    mark = progress.watermark
    known = mark is not None and BEGINNING < mark < END
    return StreamProgress(
        rows_in=counts.read,
        rows_out=progress.rows_out,
        late_rows=counts.late,
        bad_rows=counts.bad,
        watermark=_at(mark) if known and mark is not None else None,
        watermark_holder=progress.holder,
        checkpoints=progress.checkpoints,
        checkpoint_s=round(progress.checkpoint_s, 3),
        state_bytes=progress.state_bytes,
    )


def _at(mark: int) -> datetime | None:
    try:
        return datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(milliseconds=mark)
    except OverflowError:
        return None  # no date that people could read


def _started(job: StreamJob) -> StreamJob:
    return job.model_copy(
        update={"state": StreamJobState.RUNNING, "started_at": job.started_at or _now()}
    )


def _ended(job: StreamJob, state: StreamJobState) -> StreamJob:
    open_ = [one for one in job.savepoints if one.state is SavepointState.IN_PROGRESS]
    failed = {"state": SavepointState.FAILED, "error": "the job has ended"}
    kept = tuple(one.model_copy(update=failed) if one in open_ else one for one in job.savepoints)
    return job.model_copy(
        update={"state": state, "ended_at": _now(), "due_at": None, "savepoints": kept}
    )


def _now() -> datetime:
    return datetime.now(timezone.utc)


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


SupervisorActor = ray.remote(StreamSupervisor)
StreamJobActor = ray.remote(StreamJobOwner)

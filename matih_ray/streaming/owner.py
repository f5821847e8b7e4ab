"""The owner of a streaming job: its engine, its heartbeats, and what becomes of its errors.

The record in the metadata store is all that an owner shares with the rest of the world: what is
asked of the job stands there, and so does how it is doing.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any

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
from matih_ray.streaming.parallel import Crew
from matih_ray.streaming.submission import TenantScripts
from matih_ray.streaming.watermarks import BEGINNING, END
from matih_ray.telemetry import bind, configure_logging

# Between two attempts of a job that fails for a reason that may pass: doubled up to the longest.
FIRST_BACKOFF_S = 1.0
MAX_BACKOFF_S = 60.0
# Checkpoints after which an owner counts as one that worked, so that the next waits little again.
WELL = 3
# Restarts after which an error that nobody foresaw is taken for one that will not pass.
MAX_UNEXPECTED = 10
# Beats in a row that the store did not take, until a job rather stops than works unseen.
MAX_LOST_BEATS = 30

log = structlog.get_logger(__name__)


class StreamJobOwner:
    """Works on one job as one epoch. Its process may die at any time."""

    def __init__(
        self,
        settings: Settings,
        tenant_id: TenantId,
        job_id: str,
        epoch: int,
        hire: Callable[[StreamJob], Crew],
        report: Callable[[StreamProgress], None] = lambda _: None,
    ) -> None:
        configure_logging(settings)
        self._hire = hire
        self._report = report
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
        """Work until the job ends, or somebody else owns it. The process is of no use then."""
        beat = threading.Thread(target=self._beat_forever, name="beat", daemon=True)
        try:
            job = self._change(lambda job: job.model_copy(update={"due_at": self._due()}))
            if job is not None:
                engine = self._engine = TenantScripts(self._settings).engine(
                    job, lambda _plan: self._hire(job)
                )
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

    # --- the end -----------------------------------------------------------------------------

    def _finish(self, has_ended: bool) -> None:  # noqa: FBT001 - what the engine answered
        canceled = self._engine is not None and self._engine.cancelled
        if canceled and not has_ended:
            self._change(
                lambda job: ended(job, StreamJobState.CANCELED) if job.cancel_requested else job
            )
            return
        self._change(lambda job: ended(self._told(job), StreamJobState.FINISHED))

    def _fail(self, error: MatihError) -> None:
        if error.recovery in (Recovery.RETRY, Recovery.PAUSE, Recovery.RECONCILE):
            self._retry(error)
            return
        log.warning("stream_job_failed", code=error.code, detail=error.message)
        self._change(
            lambda job: ended(self._told(job), StreamJobState.FAILED).model_copy(
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
                    "due_at": now() + timedelta(seconds=wait_s),
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
                reply = partial(self.saved, asked.savepoint_id)
                engine.commands.put(Command(asked.stop, asked.directory, reply))

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
        self._report(progress)
        update: dict[str, Any] = {"progress": progress, "heartbeat_at": now()}
        if beat:
            update["due_at"] = self._due()
        return job.model_copy(update=update)

    def _due(self) -> datetime:
        return now() + timedelta(seconds=self._settings.orphan_after_s)


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
        changed_rows=counts.changed,
        rejected_rows=engine.rejected,
        watermark=_at(mark) if known and mark is not None else None,
        watermark_holder=progress.holder,
        checkpoints=progress.checkpoints,
        checkpoint_s=round(progress.checkpoint_s, 3),
        state_bytes=progress.state_bytes,
        state_memory_bytes=progress.size.memory_bytes,
        state_disk_bytes=progress.size.disk_bytes,
        slot_lag_bytes=progress.lag_bytes,
    )


def _at(mark: int) -> datetime | None:
    try:
        return datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(milliseconds=mark)
    except OverflowError:
        return None  # no date that people could read


def _started(job: StreamJob) -> StreamJob:
    return job.model_copy(
        update={"state": StreamJobState.RUNNING, "started_at": job.started_at or now()}
    )


def ended(job: StreamJob, state: StreamJobState) -> StreamJob:
    """The record of a job that is over."""
    open_ = [one for one in job.savepoints if one.state is SavepointState.IN_PROGRESS]
    failed = {"state": SavepointState.FAILED, "error": "the job has ended"}
    kept = tuple(one.model_copy(update=failed) if one in open_ else one for one in job.savepoints)
    return job.model_copy(
        update={"state": state, "ended_at": now(), "due_at": None, "savepoints": kept}
    )


def now() -> datetime:
    """The time, as records have it."""
    return datetime.now(timezone.utc)

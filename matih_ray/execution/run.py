"""One run from ownership to its end. No vendor appears here."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import ray
import structlog

from matih_ray.control.building import build_sink, build_source
from matih_ray.control.knowledge import note_lineage
from matih_ray.control.ports import Ports
from matih_ray.errors import (
    FencedError,
    MatihError,
    QuotaSpentError,
    SourceUnavailableError,
)
from matih_ray.execution.boundary import unwrap
from matih_ray.execution.change_log import confirm_log, opened_log
from matih_ray.execution.checkpoints import StoredCheckpoint, reconcile_previous_run
from matih_ray.execution.committer import Committer
from matih_ray.execution.failure_policy import FailurePolicy, GiveUp
from matih_ray.execution.ledger import RunLedger
from matih_ray.execution.metrics import process_metrics
from matih_ray.execution.prefix import PrefixBuffer
from matih_ray.execution.scheduler import SliceDone, SliceRetried, SliceScheduler
from matih_ray.execution.sink_pool import SinkPool
from matih_ray.execution.snapshots import bound_plan, held_snapshot
from matih_ray.execution.steps import Step, reached
from matih_ray.execution.targets import sink_target
from matih_ray.execution.tasks import SliceTask
from matih_ray.execution.workforce import RayWorkforce
from matih_ray.model.cdm import CDM_MODELS
from matih_ray.model.checkpoint import Checkpoint
from matih_ray.model.plan import IngestionPlan, IngestionSlice
from matih_ray.model.policy import DataMode
from matih_ray.model.run import (
    CHECKPOINT_BEFORE,
    UNREAD,
    RunError,
    RunRecord,
    RunRequest,
    RunState,
    SliceRecord,
    SliceState,
    UnreadPart,
    unread_parts,
)
from matih_ray.model.unit import EndpointUnitDescriptor
from matih_ray.model.value import JsonValue
from matih_ray.planning.planner import make_plan
from matih_ray.sinks.base import SupportsWork
from matih_ray.sources.base import AbstractSnapshot, SourceEndpoint

# How long one step of the loop may wait for the cluster; bounds the delay of pause and cancel.
POLL_S = 0.25
# What waits of planning are counted under, beside the slices' keys.
PLANNING = "planning"
TOO_MANY_REQUESTS = 429

log = structlog.get_logger(__name__)


@dataclass
class Signals:
    """What the planner's heartbeat thread tells a run's thread."""

    requested: RunRequest | None = None
    lost: bool = False


@dataclass
class RunExecution:
    """Executes one owned run on the calling thread."""

    ports: Ports
    ledger: RunLedger
    pool: SinkPool
    settings_ref: Any
    signals: Signals = field(default_factory=Signals)
    _source: SourceEndpoint | None = None
    _snapshot: AbstractSnapshot | None = None

    def execute(self) -> None:
        """Run to an end state, or stop silently if another planner took the run over."""
        record = self.ledger.record
        try:
            reached(self.ports.settings, Step.OWNED, record.run_id)
            self._execute()
        except FencedError as error:
            log.warning("run_fenced", detail=error.message)
        except Exception as raised:  # the boundary: a run that raises has failed
            failure = unwrap(raised)
            log.warning("run_failed", code=failure.code, detail=failure.message, exc_info=raised)
            self._finish(RunState.FAILED, failure)
        finally:
            if self._snapshot is not None:
                self._snapshot.close()
            if self._source is not None:
                self._source.close()

    @property
    def _record(self) -> RunRecord:
        return self.ledger.record

    def _execute(self) -> None:
        ports, stream = self.ports, self._record.stream
        unit = ports.metadata.get_unit(stream.tenant_id, stream.endpoint_id, stream.unit_id)
        self._source = build_source(ports, stream.tenant_id, stream.endpoint_id)
        plan = self._record.plan
        if plan is None:
            reconcile_previous_run(ports, self._record)
            checkpoint = StoredCheckpoint(ports, stream).value
            before = None if checkpoint is None else checkpoint.to_dict()
            checkpoint = opened_log(self._source, unit, checkpoint, self._record)
            plan = self._planned(self._source, unit, checkpoint)
            if plan is None:
                return
            if not plan.slices and checkpoint is not None:
                self._finish(RunState.COMPLETED, plan=plan)
                return
            statistics = {**self._record.statistics, CHECKPOINT_BEFORE: before}
            self.ledger.update(plan=plan, statistics=statistics)
        reached(ports.settings, Step.PLANNED, self._record.run_id)
        self._load(self._source, unit, plan)

    def _planned(
        self, source: SourceEndpoint, unit: EndpointUnitDescriptor, checkpoint: Checkpoint | None
    ) -> IngestionPlan | None:
        """The plan, after the waits that the source's provider asks for, as slices wait for them;
        None if the run was paused or cancelled meanwhile."""
        failures = FailurePolicy()
        while not self._stop_requested():
            try:
                return make_plan(source, unit, checkpoint, self._record.policy)
            except SourceUnavailableError as error:
                if error.context.get("status") != TOO_MANY_REQUESTS and not isinstance(
                    error, QuotaSpentError
                ):
                    raise
                decision = failures.decide(PLANNING, error)
                if isinstance(decision, GiveUp):
                    raise
                log.warning("planning_waits", seconds=decision.after_s, detail=error.message)
                until = time.monotonic() + decision.after_s
                while time.monotonic() < until and not self._stop_requested():
                    time.sleep(POLL_S)
        self._stop()
        return None

    def _load(
        self, source: SourceEndpoint, unit: EndpointUnitDescriptor, plan: IngestionPlan
    ) -> None:
        record = self._record
        sink = build_sink(self.ports, record.stream.tenant_id, record.stream.sink_id)
        if isinstance(sink, SupportsWork):
            stream = record.stream
            sink.hire(
                RayWorkforce(
                    self.settings_ref, stream.tenant_id, stream.sink_id, self._parallelism()
                )
            )
        try:
            endpoint = self.ports.metadata.get_endpoint(
                record.stream.tenant_id, record.stream.endpoint_id
            )
            schema = _written_schema(source, unit, record)
            prepared = sink.prepare(sink_target(record, endpoint.name, unit, schema))
            self.ledger.update(target=prepared.to_dict())
            committer = Committer(self.ports, self.ledger, sink, prepared)
            committer.recover()
            scheduler = SliceScheduler(
                self.settings_ref,
                self._task_of(unit),
                record.stream.sink_id,
                prepared,
                self.pool,
                1 if plan.one_at_a_time else self._parallelism(plan.slice_cpus),
                plan.slice_cpus,
            )
            try:
                self._drive(source, plan, committer, scheduler)
            finally:
                scheduler.cancel()
        finally:
            sink.close()

    def _drive(
        self,
        source: SourceEndpoint,
        plan: IngestionPlan,
        committer: Committer,
        scheduler: SliceScheduler,
    ) -> None:
        """The loop: start slices, collect results, commit prefixes, obey requests."""
        if not plan.resumable and committer.through < len(plan.slices):
            self._snapshot = held_snapshot(source, plan)
            plan = bound_plan(self._snapshot, plan, self.ledger, committer)
        scheduler.submit(plan.slices[committer.through :])
        buffer: PrefixBuffer[SliceDone] = PrefixBuffer(committer.through)
        # Bounds what a lost planner would have to read again and what one commit has to carry. A
        # plan that cannot be resumed commits once, at its end, and must get there.
        uncommitted_max = self.ports.settings.uncommitted_slices_max
        written, last_commit_s = 0, time.monotonic()
        while not scheduler.idle:
            if self._stop_requested():
                break
            behind = committer.through + uncommitted_max
            room = not plan.resumable or buffer.next_sequence + written < behind
            for event in scheduler.poll(POLL_S, start_new=room):
                if isinstance(event, SliceRetried):
                    self._note_retry(event)
                    continue
                buffer.add(event.slice.sequence, event)
                written = len(buffer.rest())
            process_metrics().queue_depth(self._record.stream, scheduler.queue_depth)
            due = time.monotonic() - last_commit_s >= self._record.policy.commit_interval_s
            full = buffer.ready >= uncommitted_max
            if plan.resumable and buffer.ready and (due or full) and not scheduler.idle:
                self._commit(committer, buffer.take(), last=False)
                written, last_commit_s = len(buffer.rest()), time.monotonic()
        self._end(source, plan, committer, buffer)

    def _end(
        self,
        source: SourceEndpoint,
        plan: IngestionPlan,
        committer: Committer,
        buffer: PrefixBuffer[SliceDone],
    ) -> None:
        if self.signals.lost:
            raise self._taken_over()
        done = buffer.take()
        complete = buffer.next_sequence == len(plan.slices)
        if complete:
            if done or not committer.visible:
                self._commit(committer, done, last=True)
            confirm_log(self.ports, source, self._record)
            self._finish(RunState.COMPLETED)
            # not of runs that find nothing: what they would say was said by one that loaded
            self._note_lineage()
            return
        if done and plan.resumable:
            self._commit(committer, done, last=False)
        self._stop()

    def _stop(self) -> None:
        """Be paused or cancelled, as was asked."""
        if self.signals.lost:
            raise self._taken_over()
        paused = self.signals.requested is RunRequest.PAUSE
        self._finish(RunState.PAUSED if paused else RunState.CANCELLED)

    def _taken_over(self) -> FencedError:
        return FencedError(f"run {self._record.run_id} was taken over", run_id=self._record.run_id)

    def _commit(self, committer: Committer, done: list[SliceDone], *, last: bool) -> None:
        started = time.monotonic()
        receipts = [item.result.receipt for item in done]
        self._note_unread(done)  # before the commit, which moves the cursor
        committer.commit(receipts, last=last)
        seconds = time.monotonic() - started
        record = self._record
        self.ports.metadata.put_slices(
            record.stream.tenant_id, record.run_id, [_slice_record(item) for item in done]
        )
        process_metrics().committed(
            record.stream,
            rows=sum(receipt.rows for receipt in receipts),
            bytes_=sum(receipt.bytes for receipt in receipts),
            slices=len(receipts),
            seconds=seconds,
        )
        log.info("committed", through=committer.through, slices=len(done), seconds=seconds)

    def _note_unread(self, done: list[SliceDone]) -> None:
        """Keep what could not be read in the run's record: a partial result says so."""
        found = [
            UnreadPart(
                sequence=item.slice.sequence,
                key=item.slice.key,
                part=item.slice.part,
                error=item.result.problem,
            )
            for item in done
            if item.result.problem is not None
        ]
        if not found:
            return
        kept = {part.sequence: part for part in (*unread_parts(self._record), *found)}
        for part in found:
            log.warning("part_unread", part=part.part, detail=part.error.message)
        listed: list[JsonValue] = [part.to_dict() for part in kept.values()]
        self.ledger.update(statistics={**self._record.statistics, UNREAD: listed})

    def _finish(
        self,
        state: RunState,
        error: MatihError | None = None,
        plan: IngestionPlan | None = None,
    ) -> None:
        changes: dict[str, Any] = {
            "state": state,
            "requested": None,
            "error": None if error is None else RunError.of(error),
            "finished_at": self.ports.clock() if state.is_terminal else None,
        }
        if plan is not None:
            changes["plan"] = plan
        try:
            self.ledger.update(**changes)
        except FencedError as fenced:
            log.warning("run_fenced", detail=fenced.message)

    def _note_lineage(self) -> None:
        """What the knowledge base says of a run must not decide what becomes of it."""
        try:
            note_lineage(self.ports, self._record.stream)
        except MatihError as error:
            log.warning("lineage_not_noted", code=error.code, detail=error.message)

    def _stop_requested(self) -> bool:
        return self.signals.lost or self.signals.requested is not None

    def _note_retry(self, event: SliceRetried) -> None:
        log.warning(
            "slice_retried",
            slice=event.slice.key,
            attempts=event.attempts,
            code=event.error.code,
            detail=event.error.message,
        )
        record = self._record
        self.ports.metadata.put_slices(
            record.stream.tenant_id,
            record.run_id,
            [
                SliceRecord(
                    sequence=event.slice.sequence,
                    key=event.slice.key,
                    state=SliceState.PENDING,
                    attempts=event.attempts,
                    error=RunError.of(event.error),
                )
            ],
        )

    def _parallelism(self, cpus: float = 1.0) -> int:
        """Tasks at a time: the policy's choice, else as many as the cluster has CPUs for."""
        chosen = self._record.policy.max_parallel_slices
        return chosen or max(1, int(ray.cluster_resources().get("CPU", 1) / cpus))

    def _task_of(self, unit: EndpointUnitDescriptor) -> Callable[[IngestionSlice], SliceTask]:
        record = self._record
        return lambda slice_: SliceTask(
            tenant_id=record.stream.tenant_id,
            run_id=record.run_id,
            endpoint_id=record.stream.endpoint_id,
            unit=unit,
            slice=slice_,
            policy=record.policy,
            staging_provider_id=record.staging_provider_id,
            vendor=record.stream.vendor,
        )


def _written_schema(
    source: SourceEndpoint, unit: EndpointUnitDescriptor, record: RunRecord
) -> pa.Schema:
    """The schema of what slice tasks yield: the model's, where they map."""
    if record.policy.mode is DataMode.CDM and unit.cdm_model_id is not None:
        return CDM_MODELS[unit.cdm_model_id].schema
    return source.read_schema(unit, record.policy)


def _slice_record(done: SliceDone) -> SliceRecord:
    receipt = done.result.receipt
    return SliceRecord(
        sequence=done.slice.sequence,
        key=done.slice.key,
        state=SliceState.COMMITTED,
        attempts=done.attempts,
        rows=receipt.rows,
        bytes=receipt.bytes,
        read_s=done.result.read_s,
        write_s=done.result.write_s,
        error=done.result.problem,
    )

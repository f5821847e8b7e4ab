"""One INSERT at work for as long as it takes: turns, checkpoints, commits, recovery.

A checkpoint is, in this order: 1 the sink finishes its files, 2 positions, watermarks, operators'
states and the prepared commit are written as one checkpoint, 3 the commit, 4 the source may forget.
Whoever dies between any two of them is followed by an owner that reads the last checkpoint, commits
what it holds (a sink that has it already says so by its marker) and goes on behind it.

Owners have epochs. A new one begins with a checkpoint and an empty commit of its own epoch: from
then on the sink refuses whatever an earlier owner, which perhaps only was slow, still commits.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from matih_ray.errors import StateConflictError, StateError
from matih_ray.model.receipt import CommitMarker
from matih_ray.model.value import JsonValue
from matih_ray.streaming.checkpoints import (
    CheckpointDirectory,
    Metadata,
    now,
    read_savepoint,
    write_savepoint,
)
from matih_ray.streaming.connectors.catalog_tables import Owner
from matih_ray.streaming.connectors.sinks import TableSink
from matih_ray.streaming.operators import State
from matih_ray.streaming.side_sink import SidedSink
from matih_ray.streaming.steps import Counts, StateSize

# How long a turn waits for rows: what has come by then is one batch.
TURN_S = 0.25

log = structlog.get_logger(__name__)


class Work(Protocol):
    """A plan at work, in this process (`pipeline`) or in many (`parallel`)."""

    @property
    def counts(self) -> Counts:
        """What happened to rows; a restore sets them."""

    @property
    def ended(self) -> bool:
        """Whether all rows there will ever be were pushed to the sink."""

    def restore(self, states: Mapping[str, State]) -> None:
        """Go on from a snapshot; before `open`."""

    def open(self) -> None:
        """Begin."""

    def turn(self, timeout_s: float) -> int:
        """Take what has come; returns how many rows that were."""

    def holds(self) -> bool:
        """Whether something that must stay whole is under way, so that no snapshot may be taken."""

    def snapshot(self, shared: str | None = None) -> dict[str, State]:
        """The states behind everything that the sink has got, which is everything that was read.
        What they have in files is durable below `shared`, unless that is None."""

    def state_size(self) -> StateSize:
        """What open windows take."""

    def lag_bytes(self) -> int | None:
        """What sources keep because it was not acknowledged; None if nobody knows."""

    def acknowledge(self) -> None:
        """What the last snapshot is behind is durable."""

    def behind(self) -> tuple[int, str | None]:
        """The watermark, and the partition that holds it."""

    def close(self) -> None:
        """Release connections and processes."""


@dataclass(frozen=True)
class Command:
    """What an operator asks of a running job. `reply` gets the savepoint's path, or the error."""

    stop: bool = False
    savepoint_directory: str | None = None
    reply: Callable[[str | None, Exception | None], None] = lambda _path, _error: None


@dataclass(frozen=True)
class Restart:
    """Where a job begins if it has no checkpoint of its own: a savepoint's path."""

    savepoint: str | None = None
    allow_other_plan: bool = False


@dataclass
class Progress:
    """How a job is doing; read by other threads."""

    rows_out: int = 0
    checkpoints: int = 0
    checkpoint_s: float = 0.0
    state_bytes: int = 0  # of the last checkpoint
    size: StateSize = field(default_factory=StateSize)
    watermark: int | None = None
    holder: str | None = None
    lag_bytes: int | None = None


@dataclass
class Engine:
    """Runs one pipeline into one sink. `directory` is None where nothing needs to be recovered.

    A step listener for fault tests is told of `steps` by name.
    """

    pipeline: Work
    sink: TableSink
    plan: tuple[str, ...]
    owner: Owner
    directory: CheckpointDirectory | None = None
    interval_s: float = 60.0
    restart: Restart = field(default_factory=Restart)
    commands: queue.SimpleQueue[Command] = field(default_factory=queue.SimpleQueue)
    progress: Progress = field(default_factory=Progress)
    at_step: Callable[[str], None] = lambda _step: None
    _number: int = 0
    _cancelled: bool = False

    @property
    def cancelled(self) -> bool:
        """Whether somebody asked to end without a checkpoint."""
        return self._cancelled

    @property
    def rejected(self) -> int:
        """Rows in the side table, if there is one."""
        return self.sink.rejected if isinstance(self.sink, SidedSink) else 0

    def cancel(self) -> None:
        """End soon, without another checkpoint; may be called by another thread."""
        self._cancelled = True

    def run(self) -> bool:
        """Work until the input ends or somebody asks to stop; whether the input has ended.

        Raises:
            FencedError: Another owner works on the job.
            MatihError: Whatever stops a job; going on from the last checkpoint is right then.
        """
        try:
            self._begin()
            stopped = False
            checkpoint_at_s = time.monotonic() + self.interval_s
            while not (self.pipeline.ended or stopped or self._cancelled):
                self.pipeline.turn(TURN_S)
                self._note()
                self.at_step("turn")
                if self.pipeline.holds():
                    continue
                stopped = self._obey()
                if time.monotonic() >= checkpoint_at_s and not stopped:
                    self._checkpoint()
                    checkpoint_at_s = time.monotonic() + self.interval_s
            if self.pipeline.ended:
                self._checkpoint()
            return self.pipeline.ended
        finally:
            self.sink.abort()
            self.pipeline.close()

    # --- beginning ---------------------------------------------------------------------------

    def _begin(self) -> None:
        recovered = self._recovered()
        if recovered is None and self.restart.savepoint is not None:
            metadata, states = read_savepoint(self.restart.savepoint)
            self._restore(metadata, states)
        self.pipeline.open()
        if self.directory is not None:
            self.at_step("opened")
            self._checkpoint(always=True)

    def _recovered(self) -> Metadata | None:
        """Take up the job's last checkpoint, after committing what it holds."""
        if self.directory is None:
            return None
        carried = self.sink.marker
        for name in self.directory.names():
            metadata = self.directory.metadata(name)
            if metadata is None or not self._follows(metadata, carried):
                continue
            states = self.directory.states(name, metadata)
            self.at_step("recovering")
            self.sink.commit(metadata.commit)
            self.at_step("recovered")
            self._number = max(self._number, metadata.number)
            self._restore(metadata, states)
            log.info("job_recovered", job=self.owner.job_id, checkpoint=name.text)
            return metadata
        if carried is not None:
            raise StateError(
                f"the table carries commit {carried.sequence} of job {self.owner.job_id}, and no "
                f"checkpoint of it is left in {self.directory.uri}; starting over would write rows "
                "twice: restore the directory, or submit the job anew"
            )
        return None

    def _follows(self, metadata: Metadata, carried: CommitMarker | None) -> bool:
        """Whether the sink is where this checkpoint left it, or one commit before."""
        if not self.sink.is_marked:
            return True
        return metadata.marker == carried or (
            metadata.commit is not None and metadata.before == carried
        )

    def _restore(self, metadata: Metadata, states: dict[str, State]) -> None:
        if metadata.plan != self.plan and not self.restart.allow_other_plan:
            raise StateConflictError(
                "the checkpoint is of another query; its state cannot be given to this one"
            )
        if metadata.plan != self.plan:  # tables are read on, what was made of them is another's
            states = {name: one for name, one in states.items() if name.startswith("source-")}
        self.pipeline.restore(states)
        counts = self.pipeline.counts
        counts.read = metadata.counts.get("read", 0)
        counts.bad = metadata.counts.get("bad", 0)
        counts.late = metadata.counts.get("late", 0)
        counts.changed = metadata.counts.get("changed", 0)
        self.progress.rows_out = metadata.counts.get("out", 0)
        if isinstance(self.sink, SidedSink):
            self.sink.rejected = metadata.counts.get("rejected", 0)

    # --- checkpoints -------------------------------------------------------------------------

    def _checkpoint(self, *, always: bool = False) -> tuple[Metadata, dict[str, State]]:
        """Make what was read so far final. See the module's text for the order."""
        started_s = time.monotonic()
        before = self.sink.marker
        self.at_step("preparing")
        shared = self.directory.shared(self.owner.epoch) if self.directory is not None else None
        states = self.pipeline.snapshot(shared)  # first: it brings what is under way to the sink
        prepared = self.sink.prepare(always=always)
        self._number += 1
        metadata = self._metadata(prepared, before)
        if self.directory is not None:
            self.at_step("writing")
            metadata = self.directory.write(metadata, states)
            self.at_step("written")
        self.sink.commit(prepared)
        self.at_step("committed")
        self.pipeline.acknowledge()
        if self.directory is not None:
            self.directory.forget(self.owner.epoch)
        self.progress.checkpoints += 1
        self.progress.state_bytes = metadata.state_bytes
        self.progress.checkpoint_s = time.monotonic() - started_s
        return metadata, states

    def _metadata(self, prepared: JsonValue, before: CommitMarker | None) -> Metadata:
        counts = self.pipeline.counts
        return Metadata(
            job_id=self.owner.job_id,
            epoch=self.owner.epoch,
            number=self._number,
            created_at=now(),
            plan=self.plan,
            commit=prepared,
            marker=self.sink.marker,
            before=before,
            counts={
                "read": counts.read,
                "bad": counts.bad,
                "late": counts.late,
                "changed": counts.changed,
                "out": self.progress.rows_out,
                "rejected": self.rejected,
            },
        )

    # --- in between --------------------------------------------------------------------------

    def _obey(self) -> bool:
        """Do what was asked since the last turn; whether to stop."""
        while not self.commands.empty():
            command = self.commands.get()
            metadata, states = self._checkpoint()
            try:
                path = None
                if command.savepoint_directory is not None:
                    # all is committed: whoever begins from it has nothing to finish
                    whole = metadata.model_copy(update={"commit": None, "before": None})
                    path = write_savepoint(command.savepoint_directory, whole, states)
            except StateError as error:
                command.reply(None, error)
                continue
            command.reply(path, None)
            if command.stop:
                return True
        return False

    def _note(self) -> None:
        """What is told about event time: the source that is behind, and its partition."""
        self.progress.watermark, self.progress.holder = self.pipeline.behind()
        self.progress.lag_bytes = self.pipeline.lag_bytes()
        self.progress.size = self.pipeline.state_size()

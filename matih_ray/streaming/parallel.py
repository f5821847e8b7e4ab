"""A plan at work in many tasks, in turns; `engine` runs it as it runs a pipeline of its own.

A turn begins when every source task has ended the one before: then the watermark that all of them
have reached is known, and each may judge by itself which of its rows are late. While the sources
poll the next turn, the window tasks work on the parcels of this one, which go from task to task
without passing here. So at most two turns are under way, and a source that is faster than the
windows waits: that is all the back-pressure there is.

A checkpoint is a turn after which no other begins until all tasks have told their states. Every
task has then seen the same turns, which is what aligned barriers are for.

Why turns and not free-running tasks with barriers in their channels, as Flink has it: a free task
needs channels, barriers, alignment and a watermark for each channel, to save the time that a fast
source waits for a slow one in a turn, which has a limit of a fraction of a second. Turns also make
lateness a fact of the turn and not of which message came first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from matih_ray.streaming.connectors.shares import Share
from matih_ray.streaming.operators import Chunk, Kinds, State
from matih_ray.streaming.rescaling import merged_sources, merged_windows, window_share
from matih_ray.streaming.steps import Aside, Counts, Push, StateSize
from matih_ray.streaming.tasks import Fired, SourceTask, TaskPlan, Told, WindowTask
from matih_ray.streaming.watermarks import BEGINNING, END, lowest

WINDOW = "window-0"
# How long each turn waits for the rest of what must stay whole.
_HOLD_S = 0.1

Answer = Any  # a promise that only its crew can read


class Crew(Protocol):
    """Whoever has the tasks: `count` of each kind."""

    def ask_source(self, number: int, method: str, *values: object, returns: int = 1) -> Answer:
        """Call a method of a source task; answers in order. With `returns` several promises."""

    def ask_window(self, number: int, method: str, *values: object) -> Answer:
        """Call a method of a window task. Promises among the values are what they promise."""

    def answers(self, promises: Sequence[Answer]) -> list[Any]:
        """Wait for all of them.

        Raises:
            WorkerLostError: A task's process is gone.
            MatihError: Whatever a task raised.
        """

    def close(self) -> None:
        """Release all tasks."""


@dataclass
class _Turn:
    """One turn of the sources that is under way: what each tells, and the parcels of each."""

    told: list[Answer]
    parcels: list[Sequence[Answer]]


@dataclass
class ParallelPipeline:
    """See `engine.Work`. `hire` starts the tasks."""

    plan: TaskPlan
    output: Push
    hire: Callable[[], Crew]
    aside: Aside = field(default_factory=Aside)
    counts: Counts = field(default_factory=Counts)
    ended: bool = False
    _crew: Crew | None = None
    _states: dict[str, State] = field(default_factory=dict)
    _last: list[Told] = field(default_factory=list)
    _empty: frozenset[int] = frozenset()
    _reached: int = BEGINNING
    _polling: _Turn | None = None
    _firing: list[Answer] = field(default_factory=list)
    _size: StateSize = field(default_factory=StateSize)

    def restore(self, states: Mapping[str, State]) -> None:
        """Go on from a snapshot of any number of tasks; before `open`."""
        self._states = dict(states)

    def open(self) -> None:
        """Start the tasks, and let them begin."""
        self._crew = self.hire()
        sources = {name: one for name, one in self._states.items() if name != WINDOW}
        promises = [self._crew.ask_source(one, "open", sources) for one in self._tasks]
        window, state = self.plan.window, self._states.get(WINDOW)
        if window is not None:
            for one in self._tasks:
                mine = {}
                if state is not None:
                    share = Share(one, self.plan.parallelism)
                    mine = {WINDOW: window_share(state, window.keys, share)}
                promises.append(self._crew.ask_window(one, "open", mine))
        if state is not None and isinstance(state.value, dict):
            self._reached = int(str(state.value["watermark"]))
        answers = self._crew.answers(promises)
        self._empty = frozenset(one for one in self._tasks if answers[one])
        self._states = {}

    def turn(self, timeout_s: float) -> int:
        """Take what the sources have read, let them read on; how many rows that were."""
        before = self.counts.read
        self._take_turn(timeout_s)
        if not self.ended:
            self._poll(timeout_s)
        return self.counts.read - before

    def holds(self) -> bool:
        """Whether a source was within something that must stay whole, a turn ago."""
        return any(told.holds for told in self._last)

    def lag_bytes(self) -> int | None:
        """What sources keep because it was not acknowledged; None if nobody knows."""
        known = [told.lag_bytes for told in self._last if told.lag_bytes is not None]
        return sum(known) if known else None

    def state_size(self) -> StateSize:
        """What open windows took a turn ago, in the processes of all window tasks."""
        return self._size

    def snapshot(self, shared: str | None = None) -> dict[str, State]:
        """The states of all tasks, behind the turns that have begun; see `Pipeline.snapshot`."""
        while self._polling is not None or self.holds():
            self._take_turn(_HOLD_S)
        self._take_fired()
        crew = self._hired
        promises = [crew.ask_source(one, "snapshot") for one in self._tasks]
        found = merged_sources(crew.answers(promises))
        if self.plan.window is not None:
            promises = [crew.ask_window(one, "snapshot", shared) for one in self._tasks]
            found[WINDOW] = merged_windows([one[WINDOW] for one in crew.answers(promises)])
        return found

    def acknowledge(self) -> None:
        """What was read until the last snapshot is durable: nothing was read since."""
        self._hired.answers([self._hired.ask_source(one, "acknowledge") for one in self._tasks])

    def behind(self) -> tuple[int, str | None]:
        """The watermark, and the partition that holds it."""
        waiting = [told for told in self._last if not (told.ended or told.idle)]
        held = min(waiting, key=lambda told: told.after, default=None)
        return self._reached, None if held is None else held.holder

    def close(self) -> None:
        """Release all tasks."""
        if self._crew is not None:
            self._crew.close()
            self._crew = None

    # --- turns -------------------------------------------------------------------------------

    @property
    def _tasks(self) -> range:
        return range(self.plan.parallelism)

    @property
    def _hired(self) -> Crew:
        assert self._crew is not None  # noqa: S101 - opened
        return self._crew

    def _poll(self, timeout_s: float) -> None:
        """Let all sources begin a turn."""
        returns = 1 + (self.plan.parallelism if self.plan.window is not None else 1)
        told, parcels = [], []
        for one in self._tasks:
            values = timeout_s, self._reached, self._others(one)
            answer = self._hired.ask_source(one, "turn", *values, returns=returns)
            told.append(answer[0])
            parcels.append(answer[1:])
        self._polling = _Turn(told, parcels)

    def _others(self, task: int) -> int:
        """The lowest watermark of the other tasks that hold time back."""
        if not self._last:
            return END if self._empty.union([task]) >= set(self._tasks) else BEGINNING
        return min((one.after for at, one in enumerate(self._last)
                    if at != task and not one.idle), default=END)  # fmt: skip

    def _take_turn(self, timeout_s: float) -> None:
        """Wait for the sources' turn, and hand its parcels to the window tasks."""
        if self._polling is None:
            self._poll(timeout_s)
        turn, self._polling = self._polling, None
        assert turn is not None  # noqa: S101 - begun right before
        self._last = self._hired.answers(turn.told)
        before = self._reached
        marks = ((told.after, told.idle) for told in self._last)
        self._reached = max(self._reached, lowest(marks)[0])
        self.ended = all(told.ended for told in self._last)
        for told in self._last:
            self._note(told)
        if self.plan.window is None:
            return
        self._take_fired()
        for one in self._tasks:
            mine = [
                parcels[one] if told.sends[one] else None
                for told, parcels in zip(self._last, turn.parcels, strict=True)
            ]
            if self._reached != before or any(part is not None for part in mine):
                self._firing.append(
                    self._hired.ask_window(one, "process", self._reached, *mine)
                )  # fmt: skip
        if self.ended:
            self._take_fired()

    def _note(self, told: Told) -> None:
        self.counts.read += told.counts.read
        self.counts.bad += told.counts.bad
        self.counts.late += told.counts.late
        self._reject(told.rejects)
        for batch, kinds in told.output:
            self._push(batch, kinds)

    def _take_fired(self) -> None:
        """Wait for what the window tasks have of the turn before."""
        firing, self._firing = self._firing, []
        fired: list[Fired] = self._hired.answers(firing) if firing else []
        if fired:
            self._size = sum((one.size for one in fired), StateSize())
        for one in fired:
            self.counts.late += one.late
            self._reject(one.rejects)
            for batch in one.output:
                self._push(batch, None)

    def _push(self, batch: pa.RecordBatch, kinds: Kinds | None) -> None:
        self.output(Chunk(batch, np.full(batch.num_rows, BEGINNING), BEGINNING, kinds))

    def _reject(self, rows: pa.Table | None) -> None:
        if rows is not None and self.aside.rejects is not None:
            self.aside.rejects(rows)


class LocalCrew:
    """All tasks in this process, one after the other: for tests and for looking closely."""

    def __init__(self, plan: TaskPlan) -> None:
        numbers = range(plan.parallelism)
        self._sources = [SourceTask(plan, number) for number in numbers]
        self._windows = [WindowTask(plan) for _ in numbers] if plan.window is not None else []

    def ask_source(self, number: int, method: str, *values: object, returns: int = 1) -> Answer:
        """See `Crew`."""
        del returns
        return getattr(self._sources[number], method)(*values)

    def ask_window(self, number: int, method: str, *values: object) -> Answer:
        """See `Crew`."""
        return getattr(self._windows[number], method)(*values)

    def answers(self, promises: Sequence[Answer]) -> list[Any]:
        """See `Crew`."""
        return list(promises)

    def close(self) -> None:
        """See `Crew`."""
        for source in self._sources:
            source.close()
        for windows in self._windows:
            windows.close()

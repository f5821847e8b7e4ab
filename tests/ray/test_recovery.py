"""Processes die at every step of a run: the table equals the source, and little is re-read."""

from __future__ import annotations

import os
import signal
import time

import pytest

from matih_ray.execution.steps import Step
from matih_ray.model.ids import RunId
from matih_ray.model.policy import IngestionPolicy, RunMode, WriteMode
from matih_ray.model.run import RunRequest, RunState
from matih_ray.testing.faults import STOP
from tests.ray.lab import ROWS, SLICE_ROWS, Lab, create_table

# Commit every prefix at once, so that each run passes each step several times.
EAGER = IngestionPolicy(
    write_mode=WriteMode.APPEND, target_slice_rows=SLICE_ROWS, commit_interval_s=0
)
OVERWRITE = EAGER.model_copy(update={"write_mode": WriteMode.OVERWRITE})
INCREMENTAL = EAGER.model_copy(
    update={"run_mode": RunMode.INCREMENTAL, "write_mode": None, "cursor_column": "id"}
)

# (step, passes before the fault): early, in the middle, and where several commits lie behind.
KILLS = [
    (Step.OWNED, 0),
    (Step.PLANNED, 0),
    (Step.READING, 0),
    (Step.READING, 4),
    (Step.WRITING, 2),
    (Step.WRITTEN, 3),
    (Step.COMMITTING, 2),
    (Step.COMMITTED, 0),
    (Step.COMMITTED, 2),
    (Step.CHECKPOINTED, 2),
    (Step.RECORDED, 2),
]


def assert_nothing_committed_was_read_again(lab: Lab, run_id: str) -> None:
    """In the journal, no slice is read after a commit that covered it."""
    record = lab.ports.metadata.get_run(lab.tenant, RunId(run_id))
    assert record.plan is not None
    sequence_of = {slice_.key: slice_.sequence for slice_ in record.plan.slices}
    through = 0
    for entry in lab.faults.journal(run_id):
        if entry.step is Step.COMMITTED:
            through = max(through, int(entry.detail))
        elif entry.step is Step.READING:
            assert sequence_of[entry.detail] >= through, entry


@pytest.mark.parametrize("policy", [EAGER, INCREMENTAL], ids=["full", "incremental"])
@pytest.mark.parametrize(
    ("step", "after"), KILLS, ids=lambda value: str(getattr(value, "value", value))
)
def test_a_killed_process_costs_only_uncommitted_slices(
    lab: Lab, policy: IngestionPolicy, step: Step, after: int
) -> None:
    create_table(lab.server, lab.database, "t")
    unit_id = lab.unit("t")
    lab.faults.arm(step, after=after)
    run = lab.wait(lab.start(unit_id, policy))
    assert run.state is RunState.COMPLETED, run.error
    assert not lab.faults.is_armed(step), lab.faults.journal(run.run_id)
    assert lab.sink_rows(run) == lab.source_rows("t")
    assert (run.rows, run.through) == (ROWS, run.slices_total)
    assert_nothing_committed_was_read_again(lab, run.run_id)


@pytest.mark.parametrize("step", [Step.WRITTEN, Step.COMMITTED, Step.CHECKPOINTED])
def test_a_killed_overwrite_shows_old_rows_until_all_new_ones_are_there(
    lab: Lab, step: Step
) -> None:
    create_table(lab.server, lab.database, "t")
    unit_id = lab.unit("t")
    first = lab.wait(lab.start(unit_id, OVERWRITE))
    old = lab.source_rows("t")
    assert lab.sink_rows(first) == old
    lab.server.execute("UPDATE t SET note = 'new' WHERE id % 2 = 0", lab.database)
    lab.faults.arm(step, after=2)
    run_id = lab.start(unit_id, OVERWRITE)
    lab.wait_for_fault(step)
    assert lab.sink_rows(first) == old
    run = lab.wait(run_id)
    assert run.state is RunState.COMPLETED, run.error
    assert lab.sink_rows(run) == lab.source_rows("t") != old


@pytest.mark.parametrize("wake", ["before the new owner commits", "after the new owner is done"])
def test_two_planners_of_one_run_end_as_one(lab: Lab, wake: str) -> None:
    create_table(lab.server, lab.database, "t")
    unit_id = lab.unit("t")
    lab.faults.arm(Step.COMMITTING, STOP, after=1)
    run_id = lab.start(unit_id, EAGER)
    lab.wait_for_fault(Step.COMMITTING)
    stopped = [e for e in lab.faults.journal(run_id) if e.step is Step.COMMITTING][-1]
    try:
        if wake.startswith("before"):
            deadline = time.monotonic() + 60
            while lab.ports.metadata.get_run(lab.tenant, run_id).epoch < 2:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        else:
            lab.wait(run_id)
    finally:
        os.kill(stopped.pid, signal.SIGCONT)
    run = lab.wait(run_id)
    assert run.state is RunState.COMPLETED, run.error
    assert run.epoch >= 2
    time.sleep(2 * lab.ports.settings.heartbeat_s)  # let the woken planner do its worst
    assert lab.sink_rows(run) == lab.source_rows("t")


def test_pause_keeps_what_is_committed_and_resume_goes_on(lab: Lab) -> None:
    create_table(lab.server, lab.database, "t")
    unit_id = lab.unit("t")
    lab.faults.arm(Step.COMMITTED, STOP, after=1)
    run_id = lab.start(unit_id, EAGER)
    lab.wait_for_fault(Step.COMMITTED)
    lab.ports.metadata.request(lab.tenant, run_id, RunRequest.PAUSE)
    stopped = [e for e in lab.faults.journal(run_id) if e.step is Step.COMMITTED][-1]
    time.sleep(3 * lab.ports.settings.heartbeat_s)
    os.kill(stopped.pid, signal.SIGCONT)
    paused = lab.wait(run_id)
    assert paused.state is RunState.PAUSED
    assert paused.slices_total is not None
    assert 0 < paused.through < paused.slices_total
    run = lab.resume(run_id)
    assert run.state is RunState.COMPLETED, run.error
    assert lab.sink_rows(run) == lab.source_rows("t")
    assert_nothing_committed_was_read_again(lab, run_id)

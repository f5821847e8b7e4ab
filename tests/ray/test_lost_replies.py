"""The catalog applies a commit and loses the reply, or says no, or answers late."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from matih_ray.execution.steps import Step
from matih_ray.model.policy import IngestionPolicy, WriteMode
from matih_ray.model.run import RunState
from matih_ray.testing.devstack.iceberg_rest import CommitFault, IcebergRestServer
from matih_ray.testing.faults import STOP
from tests.ray.lab import ROWS, SLICE_ROWS, Lab, create_table

POLICY = IngestionPolicy(target_slice_rows=SLICE_ROWS, commit_interval_s=0)


@pytest.fixture(scope="module")
def catalog() -> Iterator[IcebergRestServer]:
    with IcebergRestServer() as server:
        yield server


ANSWERED = [fault for fault in CommitFault if "die" not in fault.value]


@pytest.mark.parametrize("mode", list(WriteMode), ids=lambda mode: str(mode.value))
@pytest.mark.parametrize("fault", ANSWERED, ids=lambda fault: str(fault.value))
def test_an_unknown_commit_is_reconciled_and_never_doubled(
    lab: Lab, catalog: IcebergRestServer, fault: CommitFault, mode: WriteMode
) -> None:
    create_table(lab.server, lab.database, "t")
    sink_id = lab.sink({"catalogType": "rest", "uri": catalog.uri})
    policy = POLICY.model_copy(update={"write_mode": mode})
    catalog.fail_next(fault, times=2)
    run = lab.wait(lab.start(lab.unit("t"), policy, sink_id))
    assert run.state is RunState.COMPLETED, run.error
    assert run.rows == ROWS
    assert lab.sink_rows(run, sink_id) == lab.source_rows("t")


@pytest.mark.parametrize("fault", [CommitFault.DIE, CommitFault.APPLY_THEN_DIE])
def test_a_catalog_that_dies_and_comes_back_delays_a_run(
    lab: Lab, catalog: IcebergRestServer, fault: CommitFault
) -> None:
    create_table(lab.server, lab.database, "t")
    sink_id = lab.sink({"catalogType": "rest", "uri": catalog.uri})
    policy = POLICY.model_copy(update={"write_mode": WriteMode.APPEND})
    lab.faults.arm(Step.COMMITTING, STOP)
    run_id = lab.start(lab.unit("t"), policy, sink_id)
    lab.wait_for_fault(Step.COMMITTING)
    catalog.fail_next(fault)
    (pid,) = {e.pid for e in lab.faults.journal(run_id) if e.step is Step.COMMITTING}
    os.kill(pid, signal.SIGCONT)
    deadline = time.monotonic() + 30
    while catalog.is_running:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    catalog.start()
    run = lab.wait(run_id)
    assert run.state is RunState.COMPLETED, run.error
    assert lab.sink_rows(run, sink_id) == lab.source_rows("t")

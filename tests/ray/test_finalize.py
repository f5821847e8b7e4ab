"""Finalized runs on a cluster: seen as a whole or not at all, whoever dies on the way."""

from __future__ import annotations

import pytest

from matih_ray.execution.steps import Step
from matih_ray.model.finalize import Finalize
from matih_ray.model.ids import SinkId
from matih_ray.model.policy import IngestionPolicy, RunMode
from matih_ray.model.run import RunState
from matih_ray.testing.iceberg import load_table
from tests.ray.lab import TENANT, Lab, create_table

ROWS = 60_000
# each slice is a commit, which readers do not see
POLICY = IngestionPolicy(
    run_mode=RunMode.INCREMENTAL,
    cursor_column="id",
    target_slice_rows=ROWS // 4,
    commit_interval_s=0,
    finalize=Finalize(unique=("id",), not_null=("id",), min_rows=1, tag="audited"),
)


@pytest.mark.parametrize("step", [None, Step.COMMITTING, Step.COMMITTED])
def test_a_finalized_run_is_published_once(lab: Lab, step: Step | None) -> None:
    create_table(lab.server, lab.database, "t", ROWS)
    if step is not None:
        lab.faults.arm(step)
    run = lab.wait(lab.start(lab.unit("t"), POLICY))
    assert run.state is RunState.COMPLETED, run.error
    assert step is None or not lab.faults.is_armed(step), "the fault never happened"
    assert lab.sink_rows(run) == lab.source_rows("t")
    assert run.target is not None
    table = load_table(lab.ports, TENANT, SinkId("iceberg"), run.target)
    assert set(table.metadata.refs) == {"main", "audited"}


def test_a_run_that_fails_its_audit_moves_neither_readers_nor_the_cursor(lab: Lab) -> None:
    create_table(lab.server, lab.database, "t", ROWS)
    unit_id = lab.unit("t")
    first = lab.wait(lab.start(unit_id, POLICY))
    before = lab.sink_rows(first)
    lab.server.execute(
        f"INSERT INTO t SELECT g, 1, 'again' FROM generate_series({ROWS} + 1, {ROWS} + 10) g",
        lab.database,
    )
    strict = POLICY.model_copy(update={"finalize": Finalize(min_rows=11)})
    failed = lab.wait(lab.start(unit_id, strict))
    assert failed.state is RunState.FAILED
    assert failed.error is not None
    assert failed.error.code == "AUDIT_FAILED"
    assert failed.error.context["branch"] in failed.error.message
    assert lab.sink_rows(failed) == before
    again = lab.wait(lab.start(unit_id, POLICY))
    assert again.state is RunState.COMPLETED, again.error
    assert (again.rows, lab.sink_rows(again)) == (10, lab.source_rows("t"))

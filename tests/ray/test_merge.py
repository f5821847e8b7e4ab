"""Merging runs on a cluster: after each of them the table equals the source, changes and all."""

from __future__ import annotations

import pytest

from matih_ray.execution.steps import Step
from matih_ray.model.policy import IngestionPolicy, RunMode, WriteMode
from matih_ray.model.run import RunState
from tests.ray.lab import SLICE_ROWS, Lab

ROWS = 120_000
FULL = IngestionPolicy(
    write_mode=WriteMode.MERGE, target_slice_rows=SLICE_ROWS, cursor_column="changed_at"
)
INCREMENTAL = FULL.model_copy(update={"run_mode": RunMode.INCREMENTAL, "commit_interval_s": 0})


def create_changing_table(lab: Lab) -> None:
    """A keyed table whose rows tell when they have changed, and a region each."""
    lab.server.execute(
        f"""
        CREATE TABLE t (id bigint PRIMARY KEY, amount numeric(12,2), note text,
                        region int NOT NULL, changed_at timestamptz NOT NULL);
        INSERT INTO t SELECT g, g * 1.25, CASE WHEN g % 11 = 0 THEN NULL
            ELSE repeat(md5(g::text), 3) END, g % 3, timestamptz '2026-01-01' + g * interval '1 ms'
          FROM generate_series(1, {ROWS}) g;
        ANALYZE t;
        """,
        lab.database,
    )


def change(lab: Lab) -> None:
    """A third of the rows change, some of them move to another region, and others are new."""
    lab.server.execute(
        f"""
        UPDATE t SET amount = amount + 1, note = 'changed', changed_at = timestamptz '2026-02-01'
            + id * interval '1 ms', region = CASE WHEN id % 2 = 0 THEN (region + 1) % 3
            ELSE region END WHERE id % 3 = 0;
        INSERT INTO t SELECT g, g, 'new', g % 3, timestamptz '2026-02-02' + g * interval '1 ms'
          FROM generate_series({ROWS} + 1, {ROWS} + 20000) g;
        """,
        lab.database,
    )


@pytest.mark.parametrize("partition_by", [(), ("region",)], ids=["plain", "partitioned"])
def test_changed_rows_replace_the_ones_before_them(lab: Lab, partition_by: tuple[str, ...]) -> None:
    create_changing_table(lab)
    unit_id = lab.unit("t")
    update = {"partition_by": partition_by}
    first = lab.wait(lab.start(unit_id, FULL.model_copy(update=update)))
    assert first.state is RunState.COMPLETED, first.error
    assert lab.sink_rows(first) == lab.source_rows("t")
    change(lab)
    run = lab.wait(lab.start(unit_id, INCREMENTAL.model_copy(update=update)))
    assert run.state is RunState.COMPLETED, run.error
    assert run.rows == ROWS // 3 + 20_000
    assert lab.sink_rows(run) == lab.source_rows("t")


def test_a_full_merge_updates_what_is_there(lab: Lab) -> None:
    create_changing_table(lab)
    unit_id = lab.unit("t")
    lab.wait(lab.start(unit_id, FULL))
    change(lab)
    run = lab.wait(lab.start(unit_id, FULL))
    assert run.state is RunState.COMPLETED, run.error
    assert lab.sink_rows(run) == lab.source_rows("t")


@pytest.mark.parametrize(
    "step", [Step.WRITTEN, Step.COMMITTING, Step.COMMITTED, Step.CHECKPOINTED, Step.RECORDED]
)
def test_a_process_killed_in_a_merge_costs_nothing_but_time(lab: Lab, step: Step) -> None:
    create_changing_table(lab)
    unit_id = lab.unit("t")
    lab.wait(lab.start(unit_id, FULL))
    change(lab)
    lab.faults.arm(step)
    run = lab.wait(lab.start(unit_id, INCREMENTAL))
    assert run.state is RunState.COMPLETED, run.error
    assert not lab.faults.is_armed(step), "the fault never happened"
    assert lab.sink_rows(run) == lab.source_rows("t")


def test_a_merge_without_a_key_says_so(lab: Lab) -> None:
    lab.server.execute("CREATE TABLE t (id bigint, amount numeric(12,2), note text)", lab.database)
    run = lab.wait(lab.start(lab.unit("t"), FULL.model_copy(update={"cursor_column": "id"})))
    assert run.error is not None
    assert run.error.code == "PLAN_INVALID"
    assert "keyColumns" in run.error.message


def test_a_null_in_the_key_is_refused_by_name(lab: Lab) -> None:
    lab.server.execute(
        "CREATE TABLE t (id bigint, amount numeric(12,2), note text);"
        "INSERT INTO t VALUES (1, 1, 'a'), (NULL, 2, 'b')",
        lab.database,
    )
    policy = FULL.model_copy(update={"cursor_column": None, "key_columns": ("id",)})
    run = lab.wait(lab.start(lab.unit("t"), policy))
    assert run.error is not None
    assert run.error.code == "NULL_KEY"
    assert run.error.context["column"] == "id"

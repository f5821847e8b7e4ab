"""Maintenance on a cluster: by the supervisor's pass, and by a job beside a run that goes on."""

from __future__ import annotations

import json

import pytest
import ray

from jobs.housekeeping import housekeeping
from matih_ray.execution.housekeeping import keep_house
from matih_ray.model.ids import SinkId
from matih_ray.model.maintenance import MaintenancePolicy
from matih_ray.model.policy import IngestionPolicy, RunMode
from matih_ray.model.run import RunRecord, RunState
from matih_ray.testing.iceberg import load_table
from tests.ray.lab import TENANT, Lab, create_table

ROWS = 60_000
# each slice is a commit, and a file
MANY_FILES = IngestionPolicy(
    run_mode=RunMode.INCREMENTAL,
    cursor_column="id",
    target_slice_rows=ROWS // 6,
    commit_interval_s=0,
)


def loaded(lab: Lab) -> RunRecord:
    create_table(lab.server, lab.database, "t", ROWS)
    run = lab.wait(lab.start(lab.unit("t"), MANY_FILES))
    assert run.state is RunState.COMPLETED, run.error
    return run


def files(lab: Lab, run: RunRecord) -> int:
    assert run.target is not None
    table = load_table(lab.ports, TENANT, SinkId("iceberg"), run.target)
    return len(list(table.scan().plan_files()))


def test_a_pass_of_the_supervisor_maintains_what_runs_have_loaded(lab: Lab) -> None:
    run = loaded(lab)
    before = files(lab, run)
    assert before > 3
    assert keep_house(lab.ports.settings, lab.ports) >= 1
    assert files(lab, run) < before
    assert lab.sink_rows(run) == lab.source_rows("t")


def test_a_job_maintains_tables_beside_a_run(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    loaded(lab)
    lab.server.execute(
        f"INSERT INTO t SELECT g, g * 1.25, 'more' FROM generate_series({ROWS} + 1, {2 * ROWS}) g",
        lab.database,
    )
    following = lab.start(lab.unit("t"), MANY_FILES)
    assert ray.is_initialized()
    policy = MaintenancePolicy(min_files=2, snapshot_age_s=0, keep_snapshots=1)
    table = f"{lab.database}.public.t"
    assert housekeeping(
        lab.ports.settings, TENANT, SinkId("iceberg"), policy, [table], dry_run=False
    )
    ended = lab.wait(following)
    assert ended.state is RunState.COMPLETED, ended.error
    assert lab.sink_rows(ended) == lab.source_rows("t")
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (report["table"], report["error"]) == (table, None)
    assert report["compaction"]["filesBefore"] >= 4

"""What an operator of a running cluster relies on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request

import pytest
import ray

from matih_ray.execution.tasks import STAGED_BYTES
from matih_ray.model.policy import IngestionPolicy, RunMode, Verify, WriteMode
from matih_ray.model.run import RunState, SliceState
from tests.ray.lab import ROWS, SLICE_ROWS, TENANT, Lab, create_table

POLICY = IngestionPolicy(write_mode=WriteMode.APPEND, target_slice_rows=SLICE_ROWS)


@pytest.mark.parametrize("staging", ["object_store", "filesystem"])
def test_every_staging_provider_carries_a_run(lab: Lab, staging: str) -> None:
    create_table(lab.server, lab.database, "t")
    policy = POLICY.model_copy(update={"verify": Verify.CHECKSUM})
    run = lab.wait(lab.start(lab.unit("t"), policy, staging=staging))
    assert run.state is RunState.COMPLETED, run.error
    assert lab.sink_rows(run) == lab.source_rows("t")
    directory = lab.ports.settings.home / "staging"
    assert not directory.exists() or list(directory.iterdir()) == []


def test_a_slice_of_several_objects_arrives_whole(lab: Lab) -> None:
    rows = 2 * ROWS
    create_table(lab.server, lab.database, "t", rows=rows)
    (size,) = lab.server.execute("SELECT sum(length(note)) FROM t", lab.database)[0]
    assert size > 3 * STAGED_BYTES
    policy = POLICY.model_copy(update={"target_slice_rows": rows, "verify": Verify.CHECKSUM})
    run = lab.wait(lab.start(lab.unit("t"), policy))
    assert (run.state, run.slices_total) == (RunState.COMPLETED, 1), run.error
    assert lab.sink_rows(run) == lab.source_rows("t")


def test_slices_report_what_they_did(lab: Lab) -> None:
    create_table(lab.server, lab.database, "t")
    run = lab.wait(lab.start(lab.unit("t"), POLICY))
    slices = lab.ports.metadata.list_slices(TENANT, run.run_id)
    assert len(slices) == run.slices_total
    assert sum(item.rows for item in slices) == run.rows == ROWS
    assert {(item.state, item.attempts) for item in slices} == {(SliceState.COMMITTED, 1)}
    assert all(item.read_s > 0 and item.bytes > 0 for item in slices)


def test_an_incremental_run_adds_what_is_new_and_then_nothing(lab: Lab) -> None:
    create_table(lab.server, lab.database, "t", rows=50_000)
    unit_id = lab.unit("t")
    policy = IngestionPolicy(run_mode=RunMode.INCREMENTAL, cursor_column="id")
    first = lab.wait(lab.start(unit_id, policy))
    assert first.state is RunState.COMPLETED, first.error
    lab.server.execute(
        "INSERT INTO t SELECT g, 1, 'new' FROM generate_series(50001, 50007) g", lab.database
    )
    second = lab.wait(lab.start(unit_id, policy))
    third = lab.wait(lab.start(unit_id, policy))
    assert (first.rows, second.rows, third.rows) == (50_000, 7, 0)
    assert third.state is RunState.COMPLETED, third.error
    assert lab.sink_rows(second) == lab.source_rows("t")


def test_a_full_load_with_a_cursor_is_continued_by_incremental_runs(lab: Lab) -> None:
    create_table(lab.server, lab.database, "t", rows=60_000)
    unit_id = lab.unit("t")
    full = IngestionPolicy(cursor_column="id", target_slice_rows=10_000)
    lab.wait(lab.start(unit_id, full))
    reloaded = lab.wait(lab.start(unit_id, full))
    assert reloaded.state is RunState.COMPLETED, reloaded.error
    lab.server.execute("INSERT INTO t VALUES (60001, 1, 'new')", lab.database)
    policy = IngestionPolicy(run_mode=RunMode.INCREMENTAL, cursor_column="id")
    run = lab.wait(lab.start(unit_id, policy))
    assert (run.state, run.rows) == (RunState.COMPLETED, 1), run.error
    assert lab.sink_rows(run) == lab.source_rows("t")


def test_a_table_without_a_key_is_read_in_one_snapshot(lab: Lab) -> None:
    create_table(lab.server, lab.database, "t")
    lab.server.execute("ALTER TABLE t DROP CONSTRAINT t_pkey", lab.database)
    run = lab.wait(lab.start(lab.unit("t"), POLICY))
    assert run.state is RunState.COMPLETED, run.error
    assert run.plan is not None
    assert (run.plan.strategy, run.plan.resumable) == ("jdbc-ctid", False)
    assert len(run.plan.slices) > 3
    assert lab.sink_rows(run) == lab.source_rows("t")


def test_an_empty_table_arrives_as_an_empty_table(lab: Lab) -> None:
    create_table(lab.server, lab.database, "t", rows=0)
    run = lab.wait(lab.start(lab.unit("t"), POLICY))
    assert run.state is RunState.COMPLETED, run.error
    assert lab.sink_rows(run)[0] == 0


def test_metrics_are_at_the_nodes_metrics_endpoint(lab: Lab) -> None:
    create_table(lab.server, lab.database, "t", rows=1000)
    run = lab.wait(lab.start(lab.unit("t"), POLICY))
    port = ray.nodes()[0]["MetricsExportPort"]
    wanted = [
        f'endpoint="{lab.endpoint_id}"',
        "ray_matih_rows",
        "ray_matih_commit_seconds",
        "ray_matih_queue_depth",
    ]
    deadline = time.monotonic() + 60
    while True:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        if all(name in text for name in wanted):
            break
        assert time.monotonic() < deadline, f"{wanted} not in the metrics of run {run.run_id}"
        time.sleep(0.5)


def test_a_unit_can_be_ingested_by_a_ray_job(lab: Lab) -> None:
    create_table(lab.server, lab.database, "t", rows=1000)
    unit_id = lab.unit("t")
    environment = {
        **os.environ,
        "MATIH_HOME": str(lab.ports.settings.home),
        "RAY_ADDRESS": ray.get_runtime_context().gcs_address,
        "MATIH_PLANNER_HOSTS": str(lab.ports.settings.planner_hosts),
    }
    result = subprocess.run(
        [
            sys.executable, "-m", "jobs.ingest", "--tenant", TENANT,
            "--endpoint", lab.endpoint_id, "--unit", unit_id, "--policy", '{"runMode": "full"}',
        ],
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    run = json.loads(result.stdout.splitlines()[-1])
    assert (run["state"], run["rows"]) == ("COMPLETED", 1000)

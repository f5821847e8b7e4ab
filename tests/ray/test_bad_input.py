"""What goes wrong around a run gets a typed error, and neither rows nor the stream are lost."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from matih_ray.execution.steps import Step
from matih_ray.model.ids import RunId
from matih_ray.model.policy import IngestionPolicy, WriteMode
from matih_ray.model.run import RunState
from matih_ray.testing.devstack.ports import free_port
from matih_ray.testing.devstack.postgres import PostgresServer
from matih_ray.testing.faults import STOP
from tests.ray.lab import SLICE_ROWS, Lab, create_table

POLICY = IngestionPolicy(
    write_mode=WriteMode.APPEND,
    target_slice_rows=SLICE_ROWS,
    commit_interval_s=0,
    max_parallel_slices=1,
)


def stop_at(lab: Lab, step: Step, *, after: int = 0) -> tuple[RunId, int]:
    """Start a run of table t and stop one of its processes at a step; returns its pid."""
    unit_id = lab.unit("t")
    lab.faults.arm(step, STOP, after=after)
    run_id = lab.start(unit_id, POLICY)
    lab.wait_for_fault(step)
    pid = [entry for entry in lab.faults.journal(run_id) if entry.step is step][-1].pid
    time.sleep(0.2)
    return run_id, pid


CHANGES_BEFORE_READING = [
    ("ALTER TABLE t DROP COLUMN note", "SOURCE_CHANGED"),
    ("DROP TABLE t", "SOURCE_CHANGED"),
    ("ALTER TABLE t ALTER amount TYPE text", "SOURCE_CHANGED"),
    ("ALTER TABLE t RENAME COLUMN note TO remark", "SOURCE_CHANGED"),
]


@pytest.mark.parametrize(("change", "code"), CHANGES_BEFORE_READING, ids=lambda value: value[:24])
def test_a_source_that_changed_after_planning_fails_the_run(
    lab: Lab, change: str, code: str
) -> None:
    create_table(lab.server, lab.database, "t")
    run_id, pid = stop_at(lab, Step.PLANNED)
    lab.server.execute(change, lab.database)
    os.kill(pid, signal.SIGCONT)
    run = lab.wait(run_id)
    assert (run.state, run.error and run.error.code) == (RunState.FAILED, code)
    assert run.error is not None
    assert "t" in run.error.message
    assert run.through == 0


def test_a_permission_revoked_in_the_middle_keeps_the_committed_prefix_and_resumes(
    lab: Lab,
) -> None:
    create_table(lab.server, lab.database, "t")
    lab.server.execute(
        "DO $$ BEGIN CREATE ROLE reader LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;"
        "GRANT SELECT ON t TO reader",
        lab.database,
    )
    lab.log_in_as("reader")
    run_id, pid = stop_at(lab, Step.COMMITTED, after=1)
    lab.server.execute("REVOKE SELECT ON t FROM reader", lab.database)
    os.kill(pid, signal.SIGCONT)
    run = lab.wait(run_id)
    assert (run.state, run.error and run.error.code) == (RunState.FAILED, "PERMISSION_DENIED")
    assert run.slices_total is not None
    assert 2 <= run.through < run.slices_total
    lab.server.execute("GRANT SELECT ON t TO reader", lab.database)
    run = lab.resume(run_id)
    assert run.state is RunState.COMPLETED, run.error
    assert lab.sink_rows(run) == lab.source_rows("t")


def test_a_server_restart_in_the_middle_of_a_slice_is_survived(lab: Lab) -> None:
    create_table(lab.server, lab.database, "t")
    run_id, pid = stop_at(lab, Step.READING, after=2)
    lab.server.stop()
    os.kill(pid, signal.SIGCONT)
    time.sleep(1)
    lab.server.start()
    run = lab.wait(run_id)
    assert run.state is RunState.COMPLETED, run.error
    assert lab.sink_rows(run) == lab.source_rows("t")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A warehouse directory on a filesystem of 3 MB."""
    directory = tmp_path / "small"
    directory.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(directory)],
        check=True,
    )
    try:
        yield directory
    finally:
        subprocess.run(["umount", str(directory)], check=True)


def test_a_full_warehouse_fails_the_run_and_more_space_lets_it_finish(
    lab: Lab, small_disk: Path, tmp_path: Path
) -> None:
    create_table(lab.server, lab.database, "t")
    sink_id = lab.sink(
        {"catalogType": "sql", "uri": f"sqlite:///{tmp_path}/c.db", "warehouse": str(small_disk)}
    )
    run = lab.wait(lab.start(lab.unit("t"), POLICY, sink_id))
    assert (run.state, run.error and run.error.code) == (RunState.FAILED, "STORAGE_FULL")
    subprocess.run(["mount", "-o", "remount,size=200m", str(small_disk)], check=True)
    run = lab.resume(run.run_id)
    assert run.state is RunState.COMPLETED, run.error
    assert lab.sink_rows(run, sink_id) == lab.source_rows("t")


def test_a_wrong_catalog_address_fails_with_a_remedy(lab: Lab) -> None:
    create_table(lab.server, lab.database, "t", rows=100)
    sink_id = lab.sink(
        {"catalogType": "rest", "uri": f"http://127.0.0.1:{free_port()}", "warehouse": "w"}
    )
    run = lab.wait(lab.start(lab.unit("t"), POLICY, sink_id))
    assert (run.state, run.error and run.error.code) == (RunState.FAILED, "SINK_UNAVAILABLE")


def test_a_source_that_is_down_fails_the_run_with_its_code(lab: Lab, tmp_path: Path) -> None:
    server = PostgresServer().start()
    try:
        other = Lab.open(lab.ports, server)
        create_table(other.server, other.database, "t", rows=100)
        unit_id = other.unit("t")
        server.stop()
        run = other.wait(other.start(unit_id, POLICY))
        assert (run.state, run.error and run.error.code) == (RunState.FAILED, "CONNECTION_REFUSED")
        server.start()
        run = other.resume(run.run_id)
        assert run.state is RunState.COMPLETED, run.error
    finally:
        server.remove()

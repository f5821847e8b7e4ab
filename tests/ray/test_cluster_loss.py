"""The whole cluster dies and comes back: the run goes on from its last commit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from matih_ray.control.ports import Ports
from matih_ray.execution.steps import Step
from matih_ray.model.policy import IngestionPolicy, WriteMode
from matih_ray.model.run import RunState
from matih_ray.registry import load_registry
from matih_ray.settings import Settings
from matih_ray.state.factory import open_stores
from matih_ray.testing.devstack.ports import free_port
from matih_ray.testing.devstack.postgres import PostgresServer
from matih_ray.testing.faults import LISTENER, STOP
from tests.ray.lab import SLICE_ROWS, Lab, create_table

POLICY = IngestionPolicy(
    write_mode=WriteMode.APPEND, target_slice_rows=SLICE_ROWS, commit_interval_s=0
)


class NoLauncher:
    """Runs are only found by the supervisor of the cluster under test."""

    def launch(self, tenant_id: str, run_id: str) -> None:
        """Leave the run in the queue."""


def start_cluster(settings: Settings) -> subprocess.Popen[str]:
    """A runtime in processes of its own; returns once it serves."""
    environment = {
        **os.environ,
        "MATIH_HOME": str(settings.home),
        "MATIH_HTTP_PORT": str(settings.http_port),
        "MATIH_HEARTBEAT_S": str(settings.heartbeat_s),
        "MATIH_ORPHAN_AFTER_S": str(settings.orphan_after_s),
        "MATIH_STEP_LISTENER": LISTENER,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "serve_apps.local"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("http://"), "the cluster did not start"
    return process


def kill_cluster(process: subprocess.Popen[str]) -> None:
    """SIGKILL to every process of the cluster, all at once."""
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for member in family:
        os.kill(member.pid, signal.SIGKILL)
    psutil.wait_procs(family, timeout=30)
    process.wait()


def test_a_run_survives_the_loss_of_the_whole_cluster(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    settings = Settings(
        home=tmp_path, http_port=free_port(), heartbeat_s=0.5, orphan_after_s=2, log_level="WARNING"
    )
    stores = open_stores(settings)
    ports = Ports(
        settings, load_registry(), stores.metadata, stores.kv, stores.credentials, NoLauncher()
    )
    lab = Lab.open(ports, postgres)
    create_table(lab.server, lab.database, "t")
    unit_id = lab.unit("t")
    lab.faults.arm(Step.COMMITTED, STOP, after=2)
    run_id = lab.start(unit_id, POLICY)
    cluster = start_cluster(settings)
    try:
        lab.wait_for_fault(Step.COMMITTED)
        kill_cluster(cluster)
        before = lab.faults.journal(run_id)
        cluster = start_cluster(settings)
        run = lab.wait(run_id)
    finally:
        if cluster.poll() is None:
            kill_cluster(cluster)
    assert run.state is RunState.COMPLETED, run.error
    assert lab.sink_rows(run) == lab.source_rows("t")
    again = lab.faults.journal(run_id)[len(before) :]
    assert run.plan is not None
    committed = {slice_.key for slice_ in run.plan.slices[:3]}
    assert not committed & {entry.detail for entry in again if entry.step is Step.READING}

"""The whole cluster dies and comes back: runs and streaming jobs go on from their last commit."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from matih_ray.control.ports import Ports
from matih_ray.execution.steps import Step
from matih_ray.model.policy import IngestionPolicy, WriteMode
from matih_ray.model.run import RunState
from matih_ray.registry import load_registry
from matih_ray.settings import Settings
from matih_ray.state.factory import open_stores
from matih_ray.testing.devstack.kafka import KafkaServer
from matih_ray.testing.devstack.postgres import PostgresServer
from matih_ray.testing.devstack.runtime import START_TIMEOUT_S, RuntimeProcess
from matih_ray.testing.faults import LISTENER, STOP
from tests.ray.lab import RUN_TIMEOUT_S, SLICE_ROWS, Lab, create_table
from tests.ray.test_connectors import client_of
from tests.ray.test_stream_jobs import Killed, until

# One slice at a time, so that each is a commit of its own: beside a first slice that waits for its
# worker to start, another worker may read all the rest, and then one commit carries everything.
POLICY = IngestionPolicy(
    write_mode=WriteMode.APPEND,
    target_slice_rows=SLICE_ROWS,
    commit_interval_s=0,
    max_parallel_slices=1,
)


class NoLauncher:
    """Runs are only found by the supervisor of the cluster under test."""

    def launch(self, tenant_id: str, run_id: str) -> None:
        """Leave the run in the queue."""


@pytest.mark.timeout(2 * (START_TIMEOUT_S + RUN_TIMEOUT_S))
def test_a_run_survives_the_loss_of_the_whole_cluster(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    settings = Settings(home=tmp_path, log_level="WARNING")
    stores = open_stores(settings)
    ports = Ports(
        settings, load_registry(), stores.metadata, stores.kv, stores.credentials, NoLauncher()
    )
    lab = Lab.open(ports, postgres)
    create_table(lab.server, lab.database, "t")
    unit_id = lab.unit("t")
    lab.faults.arm(Step.COMMITTED, STOP, after=2)
    run_id = lab.start(unit_id, POLICY)
    cluster = RuntimeProcess(
        tmp_path,
        settings={"heartbeat_s": "0.5", "orphan_after_s": "2", "step_listener": LISTENER},
    )
    with cluster:
        lab.wait_for_fault(Step.COMMITTED)
        cluster.kill()
        before = lab.faults.journal(run_id)
        cluster.start()
        run = lab.wait(run_id)
    assert run.state is RunState.COMPLETED, run.error
    assert lab.sink_rows(run) == lab.source_rows("t")
    again = lab.faults.journal(run_id)[len(before) :]
    assert run.plan is not None
    committed = {slice_.key for slice_ in run.plan.slices[:3]}
    assert not committed & {entry.detail for entry in again if entry.step is Step.READING}


# STREAM_SEEDS=50 tries as many losses at random points.
@pytest.mark.timeout(2 * (START_TIMEOUT_S + RUN_TIMEOUT_S))
@pytest.mark.parametrize("seed", range(int(os.environ.get("STREAM_SEEDS", "1"))))
def test_a_streaming_job_survives_the_loss_of_the_whole_cluster(tmp_path: Path, seed: int) -> None:
    settings = Settings(home=tmp_path, log_level="WARNING")
    chance = random.Random(seed)
    cluster = RuntimeProcess(tmp_path)
    with KafkaServer() as kafka, cluster:
        with client_of(settings, cluster.url) as http:
            job = Killed(http, settings, kafka, chance, "lost")
            job.produce(0, 30)
            written = chance.randrange(30)
            until(lambda: len({row[0] for row in job.rows()}) >= written, f"{written} minutes")
        cluster.kill()
        job.produce(30, 52)
        cluster.start()
        with client_of(settings, cluster.url) as job.http:
            expected = job.expected(51)
            until(lambda: len(job.rows()) >= len(expected), "all windows", job.shown)
            until(lambda: job.shown()["progress"]["rejectedRows"] == job.bad, "what is left out")
            assert job.rows() == expected
            assert job.shown()["progress"]["rowsIn"] == len(job.events)

"""Jobs that are killed, fenced, restored: the table has every window once, and nothing else.

Each test runs a job in one process, or with tasks that share it.
"""

from __future__ import annotations

import random
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from matih_ray.errors import FencedError, StateConflictError, StateError
from matih_ray.streaming.connectors.catalog_tables import CatalogSink
from matih_ray.streaming.engine import Engine
from matih_ray.testing.devstack.kafka import KafkaServer
from tests.integration.stream_lab import PARTITIONS, SEEDS, WINDOWS, Job, steps_to_die_at
from tests.integration.stream_process import engine_of

WAIT_S = 120


@pytest.fixture(scope="module")
def server() -> Iterator[KafkaServer]:
    with KafkaServer() as server:
        yield server


@pytest.fixture
def job(
    server: KafkaServer,
    processes: subprocess.Popen[str],
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> Job:
    name = request.node.name.translate(str.maketrans("[]", "--"))
    return Job(server, processes, name, tmp_path)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("parallelism", [None, 3])
@pytest.mark.parametrize("kind", WINDOWS)
def test_a_job_that_is_killed_anywhere_writes_every_window_once(
    job: Job, kind: str, seed: int, parallelism: int | None
):
    chance = random.Random(f"{kind} {seed} {parallelism}")
    job.kind, job.parallelism, job.side = kind, parallelism, seed % 2 == 1
    state_bytes = 1_000 if seed % 2 else None  # so little that state is in files
    kills, in_files = 0, False
    for turn, die_at in enumerate(steps_to_die_at(chance, runs=3, most=14)):
        job.produce_some(chance, turn * 40_000)
        ended = job.start(die_at=die_at, state_bytes=state_bytes)
        print(f"seed {seed}, turn {turn}, died at {die_at}: {ended['code']}")
        assert ended["code"] in (0, -signal.SIGKILL), ended
        kills += ended["code"] != 0
        in_files |= any(job.home.glob("checkpoints-*/shared-*/*.arrow"))
    job.finish(400_000)
    assert job.complete(state_bytes=state_bytes)["late"] == 0
    assert kills > 0
    print(f"state in files: {in_files}")
    assert state_bytes is not None or not in_files
    assert job.rows() == job.expected()


@pytest.mark.parametrize(
    "step", ["opened", "preparing", "writing", "written", "committed", "recovering", "recovered"]
)
def test_a_job_that_is_killed_at_a_step_goes_on(job: Job, step: str):
    job.produce_some(random.Random(step), 0)
    if step.startswith("recover"):
        job.start(die_at=6, die_in="written")
    # the second time: there is something in the files, and not only the beginning
    die_at = 0 if step in ("opened", "recovering", "recovered") else 6
    assert job.start(die_at=die_at, die_in=step)["code"] == -signal.SIGKILL
    job.finish(400_000)
    job.complete()
    assert job.rows() == job.expected()


def test_a_closed_window_stays_closed_after_a_restore(job: Job):
    for partition in range(PARTITIONS):
        job.produce([(1_000, "a", 1), (30_000, "a", 2)], partition)
    assert job.complete()["late"] == 0
    before = job.rows()
    assert len(before) == 1
    job.produce([(2_000, "a", 5)], 0)  # of the window that is closed
    job.events.pop()
    assert job.complete()["late"] == 1
    assert job.rows() == before


@pytest.mark.parametrize("seed", SEEDS)
def test_a_zombie_is_fenced_and_leaves_nothing(job: Job, seed: int):
    """An owner that was only slow goes on when another one has begun."""
    chance = random.Random(seed)
    job.produce_some(chance, 0)
    step = chance.choice(["preparing", "writing", "written"])
    rows = chance.randrange(1, len(job.events) // 2)
    print(f"seed {seed}: sleeps before {step} with {rows} rows")
    arrived, go_on = threading.Event(), threading.Event()
    zombie = engine_of(job.told())
    failed: list[Exception] = []

    def at_step(name: str) -> None:
        if name == step and zombie.pipeline.counts.read >= rows:
            arrived.set()
            go_on.wait(WAIT_S)

    def work() -> None:
        try:
            zombie.run()
        except FencedError as error:
            failed.append(error)

    zombie.at_step = at_step
    thread = threading.Thread(target=work)
    thread.start()
    assert arrived.wait(WAIT_S)
    job.complete()
    go_on.set()
    thread.join(WAIT_S)
    assert len(failed) == 1
    job.finish(400_000)
    job.complete()
    assert job.rows() == job.expected()


def test_a_savepoint_starts_another_job_behind_it(job: Job):
    job.produce_some(random.Random(1), 0)
    saved = job.complete(savepoints=str(job.home / "savepoints"))["saved"]
    job.produce_some(random.Random(2), 40_000)
    job.finish(400_000)
    job.job = "job-2"
    job.complete(savepoint=saved[0])
    assert job.rows() == job.expected()


def test_state_of_another_query_is_refused(job: Job):
    job.produce_some(random.Random(1), 0)
    job.complete()
    told = job.told()
    told["sql"] = told["sql"].replace("SUM(v)", "MAX(v)")
    with pytest.raises(StateConflictError, match="another query"):
        engine_of(told).run()


@pytest.mark.parametrize("parallelism", [None, 2])
def test_another_query_goes_on_behind_a_savepoint_with_empty_windows(
    job: Job, parallelism: int | None
):
    job.produce_some(random.Random(1), 0)
    saved = job.complete(savepoints=str(job.home / "savepoints"))["saved"]
    before, job.events = job.rows(), []
    job.parallelism, job.job = parallelism, "job-2"
    job.produce_some(random.Random(2), 60_000)
    job.finish(400_000)
    job.complete(savepoint=saved[0], allow=True, sql=job.sql.replace("SUM(v)", "SUM(v + 0)"))
    assert job.rows() == sorted(before + job.expected(), key=repr)


def test_a_job_without_its_checkpoints_does_not_start_over(job: Job):
    job.produce_some(random.Random(1), 0)
    job.complete()
    told = job.told(checkpoints=str(job.home / "elsewhere"))
    with pytest.raises(StateError, match="no checkpoint of it is left"):
        engine_of(told).run()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_lost_commit_reply_does_not_write_twice(
    job: Job, monkeypatch: pytest.MonkeyPatch, seed: int
):
    """The commit was applied, and its answer never came."""
    chance = random.Random(seed)
    commit = CatalogSink.commit
    for turn in range(3):
        before = len(job.events)
        job.produce_some(chance, turn * 40_000)
        rows = chance.randrange(before + 1, (before + len(job.events)) // 2)
        engine = engine_of(job.told())

        def losing(sink: CatalogSink, prepared, engine: Engine = engine, rows: int = rows) -> None:
            commit(sink, prepared)
            if engine.pipeline.counts.read >= rows:
                raise ConnectionResetError("the answer is lost")

        monkeypatch.setattr(CatalogSink, "commit", losing)
        with pytest.raises(ConnectionResetError):
            engine.run()
        monkeypatch.setattr(CatalogSink, "commit", commit)
    job.finish(400_000)
    job.complete()
    assert job.rows() == job.expected()


def test_the_last_checkpoints_are_kept_and_older_ones_removed(job: Job):
    job.produce_some(random.Random(1), 0)
    for _ in range(3):
        job.complete()
    engine: Engine = engine_of(job.told())
    assert engine.directory is not None
    names = engine.directory.names()
    assert len(names) == 3
    metadata = engine.directory.metadata(names[0])
    assert metadata is not None
    assert metadata.epoch == 3
    assert metadata.counts["read"] == 600
    assert metadata.marker is not None

"""State backends: what is kept in files gives the rows that memory gives, whatever happens."""

from __future__ import annotations

import ast
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from matih_ray.errors import SqlNotSupportedError, StateError
from matih_ray.settings import Settings
from matih_ray.streaming.aggregates import Aggregate, finish_kept
from matih_ray.streaming.backends import disk, runs
from matih_ray.streaming.backends.base import Layout
from matih_ray.streaming.backends.directory import StateDirectory
from matih_ray.streaming.backends.disk import DiskState
from matih_ray.streaming.backends.opening import StateBackend
from matih_ray.streaming.backends.percentiles import large_percentiles
from matih_ray.streaming.checkpoints import (
    CheckpointDirectory,
    Metadata,
    now,
    read_savepoint,
    write_savepoint,
)
from matih_ray.streaming.connectors.shares import Share
from matih_ray.streaming.key_groups import key_groups, owners
from matih_ray.streaming.operators import TIME, Chunk, State, WindowOperator
from matih_ray.streaming.rescaling import merged_windows, window_share
from matih_ray.streaming.sql.types import FlinkType
from matih_ray.streaming.watermarks import BEGINNING, END
from matih_ray.streaming.windows import WindowSpec

# More of them for a longer look: STATE_SEEDS=20.
SEEDS = range(int(os.environ.get("STATE_SEEDS", "1")))
SPECS = {
    "TUMBLE": WindowSpec("TUMBLE", 10_000),
    "HOP": WindowSpec("HOP", 10_000, 4_000),
    "CUMULATE": WindowSpec("CUMULATE", 12_000, 4_000),
    "SESSION": WindowSpec("SESSION", 700),
}
KEYS = ("k", "n")
TYPES = pa.schema([("k", pa.string()), ("n", pa.int64())])
BIGINT, DOUBLE, STRING = FlinkType("BIGINT"), FlinkType("DOUBLE"), FlinkType("STRING")
AGGREGATES = (
    Aggregate("COUNT_ALL", "", "rows", BIGINT),
    Aggregate("SUM", "v", "total", BIGINT),
    Aggregate("AVG", "v", "mean", BIGINT),
    Aggregate("MIN", "u", "first", STRING),
    Aggregate("MAX", "x", "high", DOUBLE),
    Aggregate("COUNT_DISTINCT", "u", "users", STRING),
    Aggregate("COUNT_DISTINCT", "v", "values", BIGINT),
    Aggregate("PERCENTILE", "x", "middle", DOUBLE, 0.5),
    Aggregate("PERCENTILE", "v", "most", BIGINT, 0.95),
)


def chunks(seed: int, count: int = 16, rows: int = 80) -> Iterator[Chunk]:
    """Rows out of order, some late, with NULLs; the watermark follows, then comes the end."""
    chance = random.Random(seed)
    mark, at = BEGINNING, 0
    for number in range(count + 1):
        rows_here = rows if number < count else 0
        times = [at + chance.randrange(6_000) for _ in range(rows_here)]
        if number % 5 == 4:  # far behind
            times = [max(0, time - chance.choice([0, 25_000])) for time in times]
        batch = pa.record_batch(
            {
                "k": pa.array([chance.choice(["a", "b", "c", None]) for _ in times], pa.string()),
                "n": pa.array([chance.choice([None, *range(9)]) for _ in times], pa.int64()),
                "v": pa.array([chance.choice([None, *range(50)]) for _ in times], pa.int64()),
                "x": pa.array([chance.choice([None, *range(64)]) for _ in times], pa.float64()),
                "u": pa.array(
                    [chance.choice([None, f"u{chance.randrange(300)}"]) for _ in times], pa.string()
                ),
                TIME: pa.array(times, pa.int64()),
            }
        )
        at += chance.choice([500, 3_000, 6_000])
        after = max(mark, at - 2_000) if number < count else END
        yield Chunk(batch, np.full(len(times), mark, np.int64), after)
        mark = after


@dataclass
class Run:
    """An operator of any backend, and what it gave."""

    spec: WindowSpec
    backend: StateBackend
    rows: list[tuple] = field(default_factory=list)
    late: int = 0
    spilled: int = 0
    operator: WindowOperator = field(init=False)

    def __post_init__(self) -> None:
        self.operator = WindowOperator(self.spec, KEYS, AGGREGATES, self.backend.open)

    def take(self, chunk: Chunk) -> None:
        closed = self.operator.process(chunk)
        self.late += len(closed.late)
        for windows in closed.windows:
            self.rows += [tuple(row.values()) for row in windows.to_pylist()]
        self.spilled = max(self.spilled, self.operator.state.disk_bytes)

    def state(self, shared: str | None = None) -> State:
        if shared is not None:
            self.operator.state.persist(shared)
        return self.operator.snapshot(TYPES)

    def successor(self, state: State, backend: StateBackend | None = None) -> Run:
        """Another operator that goes on from a state; the first is gone."""
        self.operator.state.close()
        made = Run(self.spec, backend or self.backend, self.rows, self.late, self.spilled)
        made.operator.restore(state)
        return made


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StateBackend:
    """So little memory that nearly everything is in files, in many batches, merged often."""
    monkeypatch.setattr(runs, "BATCH_ROWS", 8)
    monkeypatch.setattr(disk, "FAN_IN", 3)
    return StateBackend("disk", tmp_path / "state", 96_000)


@pytest.fixture
def checkpoints(tmp_path: Path) -> CheckpointDirectory:
    return CheckpointDirectory(str(tmp_path / "checkpoints"))


def metadata(number: int, epoch: int = 1) -> Metadata:
    return Metadata(job_id="job-12345", epoch=epoch, number=number, created_at=now(), plan=())


def expected(kind: str, seed: int) -> Run:
    run = Run(SPECS[kind], StateBackend())
    for chunk in chunks(seed):
        run.take(chunk)
    assert run.late > 0
    return run


def check(found: Run, kind: str, seed: int) -> None:
    wanted = expected(kind, seed)
    assert found.spilled > 0
    assert len(wanted.rows) > 100
    assert sorted(found.rows, key=repr) == sorted(wanted.rows, key=repr)
    assert found.late == wanted.late


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize("seed", SEEDS)
def test_files_give_the_rows_of_memory(kind: str, seed: int, tiny: StateBackend):
    run = Run(SPECS[kind], tiny)
    for chunk in chunks(seed):
        run.take(chunk)
    check(run, kind, seed)
    # at the end nothing is open, and no file is left
    assert run.operator.state.disk_bytes == 0
    assert list(tiny.directory.rglob("*.arrow")) == []


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_job_goes_on_from_checkpoints_with_any_backend(
    kind: str, seed: int, tiny: StateBackend, checkpoints: CheckpointDirectory
):
    chance = random.Random(seed)
    run = Run(SPECS[kind], tiny)
    for number, chunk in enumerate(chunks(seed)):
        if chance.random() < 0.3:
            state = run.state(checkpoints.shared(1))
            written = checkpoints.write(metadata(number), {"w": state})
            assert written.state_bytes > 0
            checkpoints.forget(1)
            found = checkpoints.metadata(checkpoints.names()[0])
            assert found == written
            state = checkpoints.states(checkpoints.names()[0], found)["w"]
            run = run.successor(state, chance.choice([tiny, tiny, StateBackend()]))
        run.take(chunk)
    check(run, kind, seed)


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize("seed", SEEDS)
def test_state_in_files_is_shared_among_any_number_of_operators(
    kind: str, seed: int, tiny: StateBackend, checkpoints: CheckpointDirectory
):
    chance = random.Random(seed)
    these = [Run(SPECS[kind], tiny)]
    for number, chunk in enumerate(chunks(seed)):
        if number % 6 == 3:
            state = merged_windows([one.state(checkpoints.shared(1)) for one in these])
            checkpoints.write(metadata(number), {"w": state})
            (name, *_) = checkpoints.names()
            state = checkpoints.states(name, checkpoints.metadata(name))["w"]
            rows = [row for one in these for row in one.rows]
            late = sum(one.late for one in these)
            spilled = max(one.spilled for one in these)
            for one in these:
                one.operator.state.close()
            count = chance.choice([1, 2, 3, 5])
            these = [Run(SPECS[kind], tiny) for _ in range(count)]
            these[0].rows, these[0].late, these[0].spilled = rows, late, spilled
            for index, one in enumerate(these):
                one.operator.restore(window_share(state, KEYS, Share(index, count)))
        owner = owners(key_groups(chunk.batch, KEYS), len(these))
        for index, one in enumerate(these):
            mine = np.flatnonzero(owner == index)
            one.take(Chunk(chunk.batch.take(pa.array(mine)), chunk.met[mine], chunk.after))
    whole = Run(SPECS[kind], tiny)
    whole.rows = [row for one in these for row in one.rows]
    whole.late = sum(one.late for one in these)
    whole.spilled = max(one.spilled for one in these)
    check(whole, kind, seed)


def test_a_checkpoint_writes_only_the_runs_that_are_new(
    tiny: StateBackend, checkpoints: CheckpointDirectory
):
    run = Run(WindowSpec("TUMBLE", 10**9), tiny)
    shared = Path(checkpoints.shared(1))
    seen: dict[str, float] = {}
    for number, chunk in enumerate(chunks(0)):
        if chunk.after == END:
            break
        run.take(chunk)
        state = run.state(str(shared))
        checkpoints.write(metadata(number), {"w": state})
        checkpoints.forget(1)
        there = {path.name: path.stat().st_mtime_ns for path in shared.glob("*")}
        assert {one.name for one in state.runs} <= set(there)
        assert all(there[name] == at for name, at in seen.items() if name in there)
        seen = there
        # what is in memory is all that goes through the process
        in_memory = sum(table.nbytes for table in state.tables.values())
        assert in_memory <= tiny.memory_bytes
    kept = [checkpoints.metadata(name) for name in checkpoints.names()]
    assert len(kept) == 3
    assert set(seen) == {Path(file).name for one in kept if one for file in one.runs}


def test_another_owner_keeps_what_a_later_one_has_put_there(
    tiny: StateBackend, checkpoints: CheckpointDirectory
):
    later = Path(checkpoints.shared(2)) / "new.arrow"
    later.parent.mkdir(parents=True)
    later.touch()
    left = Path(checkpoints.shared(1)) / "left.arrow"
    left.parent.mkdir(parents=True)
    left.touch()
    checkpoints.write(metadata(1), {})
    checkpoints.forget(1)
    assert later.exists()
    assert not left.exists()


def test_a_savepoint_has_its_own_files_and_may_be_moved(
    tiny: StateBackend, checkpoints: CheckpointDirectory, tmp_path: Path
):
    run = Run(SPECS["TUMBLE"], tiny)
    for number, chunk in enumerate(chunks(30)):
        if number == 10:
            state = run.state(checkpoints.shared(1))
            assert state.runs
            where = Path(write_savepoint(str(tmp_path / "saved"), metadata(1), {"w": state}))
            moved = where.rename(tmp_path / "moved")
            for path in Path(checkpoints.shared(1)).iterdir():
                path.unlink()
            _, states = read_savepoint(str(moved))
            run = run.successor(states["w"])
            again = run.state(checkpoints.shared(1))  # it may be removed: the job has it all
            assert {one.name for one in again.runs} <= {
                path.name for path in Path(checkpoints.shared(1)).iterdir()
            }
        run.take(chunk)
    check(run, "TUMBLE", 30)


def test_a_checkpoint_can_be_begun_from_by_its_path(
    tiny: StateBackend, checkpoints: CheckpointDirectory
):
    run = Run(SPECS["TUMBLE"], tiny)
    for chunk in list(chunks(31))[:12]:
        run.take(chunk)
    state = run.state(checkpoints.shared(1))
    checkpoints.write(metadata(1), {"w": state})
    _, states = read_savepoint(f"{checkpoints.uri}/{checkpoints.names()[0].text}")
    assert [one.file for one in states["w"].runs] == [one.file for one in state.runs]
    assert all(Path(one.file).exists() for one in states["w"].runs)


def test_a_run_that_is_gone_is_an_error_and_no_empty_window(
    tiny: StateBackend, checkpoints: CheckpointDirectory
):
    run = Run(SPECS["TUMBLE"], tiny)
    for chunk in list(chunks(32))[:12]:
        run.take(chunk)
    state = run.state(checkpoints.shared(1))
    Path(state.runs[0].file).unlink()
    with pytest.raises(StateError, match="cannot copy"):
        run.successor(state)


FULL = """
import resource, sys
from pathlib import Path
from matih_ray.errors import StateDiskFullError
from matih_ray.streaming.backends.opening import StateBackend
from matih_ray.streaming.backends.percentiles import large_percentiles
from tests.unit.test_streaming_state import SPECS, Run, chunks

backend = StateBackend("disk", Path(sys.argv[1]), 64_000)
run = Run(SPECS["TUMBLE"], backend)
given = list(chunks(0))
for chunk in given[:3]:
    run.take(chunk)
before = set(Path(sys.argv[1]).rglob("*.arrow"))
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, resource.RLIM_INFINITY))
full = 0
for chunk in given[3:8]:
    try:
        run.take(chunk)
    except StateDiskFullError as error:
        full += 1
        assert "free space" in error.message
        assert set(Path(sys.argv[1]).rglob("*.arrow")) == before
assert full > 0
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
for chunk in given[8:]:
    run.take(chunk)
print(run.rows)
"""


def test_a_disk_that_is_full_is_told_and_leaves_no_part_of_a_file(tmp_path: Path):
    """A real write that fails: the process may not make files larger than a kilobyte."""
    ended = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)],
        check=False, capture_output=True, text=True, timeout=100, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    # the job would begin again from its checkpoint; but even so nothing is lost of what came
    wanted = sorted(expected("TUMBLE", 0).rows, key=repr)
    assert sorted(ast.literal_eval(ended.stdout), key=repr) == wanted


def test_what_a_killed_process_has_left_is_removed_by_the_next(tmp_path: Path):
    code = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from matih_ray.streaming.backends.directory import StateDirectory\n"
        "made = StateDirectory(Path(sys.argv[1]))\n"
        "(made.path / 'a.arrow').touch()\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], timeout=60, check=False)
    assert len(list(tmp_path.glob("state-*"))) == 1
    first, second = StateDirectory(tmp_path), StateDirectory(tmp_path)
    assert {first.path, second.path} == set(tmp_path.glob("state-*"))
    first.close()
    assert set(tmp_path.glob("state-*")) == {second.path}
    second.close()


@pytest.mark.parametrize(
    ("name", "kind"),
    [("hashmap", "memory"), ("memory", "memory"), ("ROCKSDB", "disk"), ("disk", "disk")],
)
def test_backends_have_flinks_names_too(name: str, kind: str, tmp_path: Path):
    settings = Settings(home=tmp_path)
    assert StateBackend.of(settings).kind == "memory"
    assert StateBackend.of(settings).named(name).kind == kind
    state = StateBackend.of(settings).named(name).open(Layout(KEYS, AGGREGATES), None)
    assert isinstance(state, DiskState) == (kind == "disk")


def test_a_backend_that_is_none_is_refused(tmp_path: Path):
    with pytest.raises(SqlNotSupportedError, match="rocksdb"):
        StateBackend.of(Settings(home=tmp_path)).named("forst")


def pieces_of(table: pa.Table) -> Iterator[pa.Table]:
    return (table.slice(at, 300) for at in range(0, table.num_rows, 300))


@pytest.mark.parametrize("seed", range(3))
def test_percentiles_of_more_values_than_fit_are_exact(seed: int):
    chance = np.random.default_rng(seed)
    numbers = np.sort(chance.choice(8, 4_000, p=[0.6, 0.2, 0.1, 0.04, 0.03, 0.02, 0.01, 0]))
    values = chance.choice(
        [chance.normal(size=4_000), chance.integers(-3, 3, 4_000).astype(float) * 1e-300]
    )
    values[chance.random(4_000) < 0.01] = chance.choice([np.inf, -np.inf, 0.0])
    groups = pa.table({"k": np.arange(8)})
    table = pa.table({"k": numbers, "v": values}).take(pa.array(chance.permutation(4_000)))
    for fraction in (0.0, 0.37, 0.5, 0.95, 1.0):
        one = Aggregate("PERCENTILE", "v", "p", DOUBLE, fraction)
        with np.errstate(invalid="ignore"):  # between two infinities there is no number
            found = large_percentiles(lambda: pieces_of(table), groups, ["k"], one, 150)
            wanted = finish_kept(table, groups, ["k"], one)
        assert found.null_count == 1
        assert [*map(repr, found.to_pylist())] == [*map(repr, wanted.to_pylist())]


@pytest.mark.parametrize("kind", ["TUMBLE", "SESSION"])
def test_one_group_with_most_values_is_merged_in_parts(kind: str, tiny: StateBackend):
    """Without keys: all distinct values and all values of percentiles are of one group."""
    chance = random.Random(kind)
    found = []
    for backend in (StateBackend(), tiny):
        chance.seed(kind)
        run = WindowOperator(SPECS[kind], (), AGGREGATES, backend.open)
        rows, spilled = [], 0
        for number in range(30):
            count = 400 if number < 29 else 0
            times = sorted(chance.randrange(9_000) for _ in range(count))
            batch = pa.record_batch(
                {
                    "v": pa.array([chance.randrange(10**6) for _ in times], pa.int64()),
                    "x": pa.array([chance.random() for _ in times], pa.float64()),
                    "u": pa.array([f"u{chance.randrange(10**5)}" for _ in times], pa.string()),
                    TIME: pa.array(times, pa.int64()),
                }
            )
            met = np.full(count, BEGINNING, np.int64)
            closed = run.process(Chunk(batch, met, BEGINNING if count else END))
            rows += [row for table in closed.windows for row in table.to_pylist()]
            spilled = max(spilled, run.state.disk_bytes)
        assert len(rows) == 1
        assert (spilled > 4 * tiny.memory_bytes) == (backend is tiny)
        found.append(rows)
    assert found[0] == found[1]

"""Jobs of several tasks: their rows are those of one task, and their number may change."""

from __future__ import annotations

import io
import random
import signal
import subprocess
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from matih_ray.errors import SourceChangedError, SqlNotSupportedError, StreamRowError
from matih_ray.settings import Settings
from matih_ray.streaming import pipeline
from matih_ray.streaming.checkpoints import CheckpointDirectory
from matih_ray.streaming.connectors.catalog_tables import Owner
from matih_ray.streaming.connectors.shares import Share
from matih_ray.streaming.engine import Command, Engine, Restart
from matih_ray.streaming.job import Script
from matih_ray.streaming.key_groups import KEY_GROUPS, key_groups, owners
from matih_ray.streaming.parallel import LocalCrew
from matih_ray.streaming.sql.script import parse_script
from matih_ray.testing.devstack.kafka import KafkaServer
from tests.integration.stream_lab import WINDOWS, Job
from tests.integration.stream_process import engine_of
from tests.integration.test_streaming_jobs import (
    DELAY_MS,
    Event,
    events_of,
    millis,
    reference,
    results_of,
    session_reference,
    windowed,
    write,
)

KINDS = ["TUMBLE", "HOP", "CUMULATE", "SESSION"]


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
    return Job(server, processes, name, tmp_path, parallelism=2, side=True)


def engine(text: str, home: Path, parallelism: int, *, side: bool = False) -> Engine:
    script = Script(Settings(home=home), {}, io.StringIO())
    (insert,) = script.prepare(parse_script(text, {}))
    script.create_tables()
    return script.engine(
        insert, Owner(job_id="job"), hire=LocalCrew, parallelism=parallelism, side_table=side
    )


def rows_of(directory: Path) -> dict:
    rows = [row for path in directory.glob("*.parquet") for row in _read(path)]
    found = {
        (row["k"], millis(row["ws"]), millis(row["we"])): tuple(list(row.values())[3:])
        for row in rows
    }
    assert len(found) == len(rows)
    return found


def _read(path: Path) -> list[dict]:
    return pyarrow.parquet.read_table(path).to_pylist()


def expected(kind: str, events: list[Event]) -> tuple[dict, int]:
    found, late = session_reference(events, 2_000) if kind == "SESSION" else reference(kind, events)
    return {key: results_of(group) for key, group in found.items()}, late


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("seed", "parallelism"), [(0, 1), (1, 2), (2, 3), (3, 7)])
def test_one_file_gives_the_rows_and_late_rows_of_the_reference(
    kind: str, seed: int, parallelism: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    events = events_of(seed)
    monkeypatch.setattr(pipeline, "CHUNK_ROWS", [9, 7, 64, 1000][seed])
    (tmp_path / "in").mkdir()
    bad = write(tmp_path / "in" / "events.json", events, seed)
    made = engine(windowed(kind, tmp_path), tmp_path, parallelism, side=True)
    made.run()
    found, late = expected(kind, events)
    assert rows_of(tmp_path / "out") == found
    counts = made.pipeline.counts
    assert (counts.read, counts.late, counts.bad) == (len(events), late, bad)
    rejects = [row for path in (tmp_path / "out_rejected").glob("*") for row in _read(path)]
    assert late > 0
    assert sorted(row["reason"] for row in rejects) == ["LATE"] * late + ["UNREADABLE"] * bad


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("seed", "parallelism"), [(10, 2), (11, 4)])
def test_many_files_are_shared_by_tasks(
    kind: str, seed: int, parallelism: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pipeline, "CHUNK_ROWS", 50)
    events = many_files(tmp_path, seed)
    made = engine(windowed(kind, tmp_path), tmp_path, parallelism)
    made.run()
    assert made.pipeline.counts.late == 0
    assert rows_of(tmp_path / "out") == expected(kind, in_order(events))[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_job_of_files_goes_on_with_another_number_of_tasks(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pipeline, "CHUNK_ROWS", 20)
    events = many_files(tmp_path, 20)
    saved: list[str | None] = []
    for parallelism in (2, 5, 3, 2):
        made = engine(windowed(kind, tmp_path), tmp_path, parallelism)
        made.directory = CheckpointDirectory(str(tmp_path / f"checkpoints-{len(saved)}"))
        made.restart = Restart(saved[-1] if saved else None)
        if len(saved) < 3:
            stop_after(made, 4, str(tmp_path / "savepoints"), saved)
        assert made.run() == (len(saved) == 3 and parallelism == 2)
    assert made.pipeline.counts.read == len(events)
    assert rows_of(tmp_path / "out") == expected(kind, in_order(events))[0]


def stop_after(made: Engine, turns: int, directory: str, saved: list[str | None]) -> None:
    left = turns

    def at_step(name: str) -> None:
        nonlocal left
        left -= name == "turn"
        if left == 0 and name == "turn":
            made.commands.put(Command(True, directory, lambda path, _: saved.append(path)))

    made.at_step = at_step


def many_files(home: Path, seed: int) -> list[Event]:
    """Seven files whose rows are out of order by less than the delay."""
    chance = random.Random(seed)
    (home / "in").mkdir()
    events = []
    for number in range(7):
        mine = [
            event
            for event in events_of(seed + number, 200)
            if event.ts % 7 == number or chance.random() < 0.8
        ]
        high, kept = 0, []
        for event in mine:
            high = max(high, event.ts)
            if event.ts > high - DELAY_MS:
                kept.append(event)
        write(home / "in" / f"{number}.json", kept, number)
        events += kept
    return events


def in_order(events: list[Event]) -> list[Event]:
    return sorted(events, key=lambda event: event.ts)


def test_rows_of_all_files_as_one_cannot_be_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pipeline, "CHUNK_ROWS", 20)
    many_files(tmp_path, 0)
    text = windowed("TUMBLE", tmp_path)
    script = Script(Settings(home=tmp_path), {}, io.StringIO())
    (insert,) = script.prepare(parse_script(text, {}))
    alone = script.engine(insert, Owner(job_id="job"))
    alone.directory = CheckpointDirectory(str(tmp_path / "checkpoints"))
    saved: list[str | None] = []
    stop_after(alone, 2, str(tmp_path / "savepoints"), saved)
    alone.run()
    made = engine(text, tmp_path, 2)
    made.restart = Restart(saved[0])
    with pytest.raises(SourceChangedError, match="keep parallelism 1"):
        made.run()


def test_rows_without_windows_are_shared_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pipeline, "CHUNK_ROWS", 50)
    events = many_files(tmp_path, 1)
    text = windowed("TUMBLE", tmp_path).partition("CREATE TABLE o")[0] + (
        "CREATE TABLE o (k STRING, v INT) WITH ('connector' = 'filesystem', 'format' = 'parquet', "
        f"'path' = '{tmp_path}/out'); INSERT INTO o SELECT k, v FROM t WHERE v > 0 "
        "UNION ALL SELECT UPPER(k), v FROM t WHERE v < 0"
    )
    engine(text, tmp_path, 3).run()
    rows = [tuple(row.values()) for path in (tmp_path / "out").glob("*") for row in _read(path)]
    positive = [(one.k, one.v) for one in events if one.v is not None and one.v > 0]
    negative = [
        (one.k.upper() if one.k else None, one.v)
        for one in events
        if one.v is not None and one.v < 0
    ]
    assert sorted(rows, key=repr) == sorted(positive + negative, key=repr)


def test_two_aggregations_in_one_insert_need_one_task(tmp_path: Path):
    text = windowed("TUMBLE", tmp_path)
    select = text.rpartition("INSERT INTO o ")[2].rstrip(";")
    made = f"{text.rstrip(';')} UNION ALL {select}"
    with pytest.raises(SqlNotSupportedError, match="parallelism 1"):
        engine(made, tmp_path, 2).run()


# --- key groups ------------------------------------------------------------------------------


def test_the_groups_of_keys_never_change():
    """Checkpoints are shared out by them: another hash would give state to the wrong task."""
    table = pa.table(
        {
            "text": ["a", "tenant-1", "", None],
            "number": pa.array([0, 1, -1, None], pa.int32()),
            "long": pa.array([0, 1, -1, None], pa.int64()),
            "time": pa.array([0, 1, 1_767_225_600_000, None], pa.timestamp("ms")),
            "day": pa.array([0, 1, 20_454, None], pa.date32()),
            "truth": [True, False, None, True],
            "price": [Decimal("1.50"), Decimal("-2.25"), None, Decimal("0.00")],
        }
    )
    found = {name: key_groups(table, [name]).tolist() for name in table.column_names}
    found["all"] = key_groups(table, table.column_names).tolist()
    assert found["number"] == found["long"]
    assert found == GOLDEN
    assert key_groups(table, []).tolist() == [0] * 4


GOLDEN = {
    "text": [45, 125, 0, 47],
    "number": [0, 125, 100, 47],
    "long": [0, 125, 100, 47],
    "time": [0, 125, 28, 47],
    "day": [42, 51, 69, 47],
    "truth": [108, 83, 47, 108],
    "price": [92, 113, 47, 26],
    "all": [12, 55, 61, 4],
}


@pytest.mark.parametrize("count", [1, 2, 3, 7, 100, 128])
def test_every_key_group_and_every_partition_has_one_owner(count: int):
    import numpy as np

    found = owners(np.arange(KEY_GROUPS), count)
    assert sorted(set(found.tolist())) == list(range(count))
    assert (np.diff(found) >= 0).all()
    sizes = np.bincount(found)
    assert sizes.max() - sizes.min() <= 1
    for topic in ("a", "matih.ai.llm-ops"):
        takers = [
            [number for number in range(200) if Share(index, count).has(topic, number)]
            for index in range(count)
        ]
        assert sorted(number for mine in takers for number in mine) == list(range(200))
        assert max(map(len, takers)) - min(map(len, takers)) <= 1


# --- Kafka -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", WINDOWS)
def test_a_job_is_rescaled_through_savepoints(job: Job, kind: str):
    chance = random.Random(kind)
    job.kind, saved = kind, None
    for turn, parallelism in enumerate([None, 4, 2]):
        job.parallelism, job.job = parallelism, f"job-{turn}"
        job.produce_some(chance, turn * 40_000)
        ended = job.complete(savepoint=saved, savepoints=str(job.home / "savepoints"))
        (saved,) = ended["saved"]
    job.job, job.parallelism = "job-3", 3
    job.finish(400_000)
    ended = job.complete(savepoint=saved)
    assert ended["read"] == len(job.events)
    assert ended["late"] == 0
    assert job.rows() == job.expected()


def test_a_job_that_comes_back_may_have_another_number_of_tasks(job: Job):
    chance = random.Random(5)
    for turn, parallelism in enumerate([3, 1, 4]):
        job.parallelism = parallelism
        job.produce_some(chance, turn * 40_000)
        assert job.start(die_at=9 + turn)["code"] == -signal.SIGKILL
    job.finish(400_000)
    job.complete()
    assert job.rows() == job.expected()


def test_rows_that_are_left_out_are_in_the_side_table_once(job: Job):
    chance = random.Random(7)
    bad = [b"{oops", b'{"k": "a", "v": "x"}', b"\xff\xfe", b"[1]", b'{"k": "a"}']
    late = [(500, "a", number) for number in range(20)]
    job.produce_some(chance, 0, 400)
    job.complete()
    for partition in job.ends:
        job.produce([(200_000, "a", 1)], partition)
    job.complete()
    for turn in range(3):
        job.parallelism = [2, None, 3][turn]
        job.produce(late[turn::3], turn)
        job.produce_raw(bad[turn::3], turn)
        job.produce_some(chance, 200_000 + turn * 40_000)
        ended = job.start(die_at=4 + 3 * turn)
        assert ended["code"] == -signal.SIGKILL, ended
    job.finish(600_000)
    ended = job.complete()
    for event in late:
        job.events.remove(event)
    assert job.rows() == job.expected()
    rejected = job.rejected()
    assert (ended["late"], ended["bad"]) == (len(late), len(bad))
    assert ended["rejected"] == len(rejected) == len(late) + len(bad)
    assert {row["topic"] for row in rejected} == {job.topic}
    assert len({(row["partition"], row["offset"]) for row in rejected}) == len(rejected)
    found = [row for row in rejected if row["reason"] == "UNREADABLE"]
    raw = [row["payload_bytes"] or row["payload"].encode() for row in found]
    assert sorted(raw) == sorted(bad)
    assert {row["detail"] for row in found} == {
        "it is no JSON object", "field v is no BIGINT", "ts is NULL"
    }  # fmt: skip
    values = [row["payload"] for row in rejected if row["reason"] == "LATE"]
    assert sorted(values) == sorted(job.raw(event).decode() for event in late)


def test_flinks_way_is_an_option(job: Job):
    job.more = ", 'scan.rejected-rows' = 'drop'"
    job.produce_some(random.Random(8), 0, 100)
    for partition in job.ends:
        job.produce([(200_000, "a", 1)], partition)
    job.complete()
    job.produce([(500, "a", 1)], 0)
    job.events.pop()
    ended = job.complete()
    assert (ended["late"], ended["rejected"]) == (1, 0)
    job.produce_raw([b"{oops"], 0)
    with pytest.raises(StreamRowError, match="goes on"):
        engine_of(job.told()).run()


def test_a_task_whose_partitions_are_idle_holds_nobody_back(job: Job):
    job.more, job.parallelism = ", 'scan.watermark.idle-timeout' = '1 ms'", 3
    job.produce([(1_000, "a", 1), (2_000, "b", 2), (60_000, "end", 3)], 0)
    made = engine_of(job.told())

    def at_step(name: str) -> None:
        if name == "turn" and made.progress.rows_out == 2:
            made.cancel()

    made.at_step = at_step
    made.run()  # ends, because the windows fire
    assert job.rows() == job.expected()


def test_partitions_that_are_added_are_found_by_one_task(job: Job):
    job.more = ", 'scan.topic-partition-discovery.interval' = '1 ms'"
    chance = random.Random(3)
    job.produce_some(chance, 0)
    job.complete()
    job.server.add_partitions(job.topic, 5)
    job.ends |= {3: 0, 4: 0}
    job.parallelism = 4
    job.produce_some(chance, 40_000)
    ended = job.complete()
    assert ended["read"] == len(job.events)
    job.finish(400_000)
    job.complete()
    assert job.rows() == job.expected()

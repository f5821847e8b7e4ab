"""Whole jobs whose windows are in files: rows, tasks, savepoints and restarts are as in memory."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from matih_ray.errors import SqlNotSupportedError
from matih_ray.settings import Settings
from matih_ray.streaming import pipeline
from matih_ray.streaming.backends import disk
from matih_ray.streaming.checkpoints import CheckpointDirectory, read_savepoint
from matih_ray.streaming.engine import Restart
from matih_ray.streaming.job import Script
from matih_ray.streaming.parallel import WINDOW
from matih_ray.streaming.sql.script import parse_script
from tests.integration.test_streaming_jobs import windowed
from tests.integration.test_streaming_parallel import (
    engine,
    expected,
    in_order,
    many_files,
    rows_of,
    stop_after,
)

IN_FILES = "SET 'state.backend.type' = 'rocksdb';"


@pytest.fixture(autouse=True)
def little_memory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MATIH_STREAM_STATE_MEMORY_BYTES", "65536")
    monkeypatch.setattr(disk, "RECENT_SHARE", 40)
    monkeypatch.setattr(disk, "FAN_IN", 3)
    monkeypatch.setattr(pipeline, "CHUNK_ROWS", 20)


@pytest.mark.parametrize("kind", ["CUMULATE", "SESSION"])
def test_a_job_with_state_in_files_goes_on_with_another_number_of_tasks(kind: str, tmp_path: Path):
    events = many_files(tmp_path, 20)
    saved: list[str | None] = []
    for parallelism in (2, 5, 3, 2):
        made = engine(IN_FILES + windowed(kind, tmp_path), tmp_path, parallelism)
        made.directory = CheckpointDirectory(str(tmp_path / f"checkpoints-{len(saved)}"))
        made.restart = Restart(saved[-1] if saved else None)
        if len(saved) < 3:
            stop_after(made, 4, str(tmp_path / "savepoints"), saved)
        made.run()
    assert made.pipeline.counts.read == len(events)
    assert rows_of(tmp_path / "out") == expected(kind, in_order(events))[0]
    for path in saved:
        assert path is not None
        assert read_savepoint(path)[1][WINDOW].runs
    # what the jobs had on this machine is gone with them
    assert list((tmp_path / "stream-state").rglob("*.arrow")) == []


def test_a_job_goes_from_memory_to_files_and_back(tmp_path: Path):
    events = many_files(tmp_path, 21)
    saved: list[str | None] = []
    for text in ("", IN_FILES, "SET 'state.backend.type' = 'hashmap';", IN_FILES):
        made = engine(text + windowed("HOP", tmp_path), tmp_path, 2)
        made.directory = CheckpointDirectory(str(tmp_path / f"checkpoints-{len(saved)}"))
        made.restart = Restart(saved[-1] if saved else None)
        if len(saved) < 3:
            stop_after(made, 4, str(tmp_path / "savepoints"), saved)
        made.run()
    assert rows_of(tmp_path / "out") == expected("HOP", in_order(events))[0]
    runs = [read_savepoint(str(path))[1][WINDOW].runs for path in saved]
    assert [bool(one) for one in runs] == [False, True, False]


def test_the_setting_decides_unless_the_script_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def kind(text: str) -> str:
        script = Script(Settings(home=tmp_path), {}, io.StringIO())
        script.prepare(parse_script(text, {}))
        return script.backend.kind

    assert (kind(""), kind(IN_FILES)) == ("memory", "disk")
    monkeypatch.setenv("MATIH_STREAM_STATE_BACKEND", "disk")
    assert (kind(""), kind("SET 'state.backend.type' = 'hashmap'")) == ("disk", "memory")
    with pytest.raises(SqlNotSupportedError, match="rocksdb"):
        kind("SET 'state.backend.type' = 'forst'")

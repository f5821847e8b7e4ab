"""Streaming jobs in processes that die at a chosen step: a line of JSON on stdin for each.

Not a test: started by `stream_lab.job_processes`. Each job is a fork, which saves the seconds that
imports take; it is answered by a line with its exit code and what it did.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import traceback
from pathlib import Path

from matih_ray.settings import Settings
from matih_ray.sources.postgres.changes.messages import lsn_of
from matih_ray.streaming.backends.opening import StateBackend
from matih_ray.streaming.checkpoints import CheckpointDirectory
from matih_ray.streaming.connectors.catalog_tables import Owner
from matih_ray.streaming.engine import Command, Engine, Restart
from matih_ray.streaming.job import Script
from matih_ray.streaming.parallel import LocalCrew
from matih_ray.streaming.sql.script import parse_script


def engine_of(told: dict) -> Engine:
    """The one INSERT of a script, with checkpoints at every turn."""
    script = Script(Settings(home=Path(told["home"])), told.get("options", {}), sys.stderr)
    (insert,) = script.prepare(parse_script(told["sql"], told.get("variables", {})))
    if told.get("state_bytes"):
        script.backend = StateBackend("disk", Path(told["home"]) / "state", told["state_bytes"])
    directory = CheckpointDirectory(told["checkpoints"])
    owner = Owner(job_id=told["job"], epoch=directory.claim())
    engine = script.engine(
        insert,
        owner,
        hire=LocalCrew if told.get("parallelism") else None,
        parallelism=told.get("parallelism") or 1,
        side_table=bool(told.get("side")),
    )
    engine.directory = directory
    engine.interval_s = 0
    engine.restart = Restart(told.get("savepoint"), bool(told.get("allow")))
    return engine


def run(told: dict) -> dict:
    """Run until `until` (rows, or a place in the log) was read, or until the step to die at."""
    engine = engine_of(told)
    left = told.get("die_at")

    def at_step(name: str) -> None:
        nonlocal left
        if left is not None:
            left -= 1
            if left < 0 and (told.get("die_in") in (None, name)):
                os.kill(os.getpid(), signal.SIGKILL)
        if name == "turn" and has_read(engine, told["until"]):
            directory = told.get("savepoints")
            engine.commands.put(Command(True, directory, on_saved))

    saved: list[str | None] = []

    def on_saved(path: str | None, error: Exception | None) -> None:
        assert error is None, error
        saved.append(path)

    engine.at_step = at_step
    engine.run()
    counts = engine.pipeline.counts
    return {
        "read": counts.read,
        "late": counts.late,
        "bad": counts.bad,
        "changed": counts.changed,
        "rejected": engine.rejected,
        "saved": saved,
    }


def has_read(engine: Engine, until: int | str) -> bool:
    """Whether as many rows were read, or PostgreSQL's log up to this place."""
    if isinstance(until, int):
        return engine.pipeline.counts.read + engine.pipeline.counts.bad == until
    (source,) = engine.pipeline.sources  # type: ignore[attr-defined]
    (place,) = source.reader.positions().values()
    return lsn_of(place["lsn"] or "0/0") >= lsn_of(until)


def main() -> None:
    """Serve until stdin ends."""
    for line in sys.stdin:
        with tempfile.TemporaryFile("w+") as answer:
            pid = os.fork()
            if pid == 0:
                os.dup2(2, 1)  # what is logged is no answer
                try:
                    json.dump(run(json.loads(line)), answer)
                    answer.flush()
                    os._exit(0)
                except BaseException:  # noqa: BLE001 - the answer is all that is left
                    json.dump({"error": traceback.format_exc()}, answer)
                    answer.flush()
                    os._exit(1)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            answer.seek(0)
            print(json.dumps({"code": code, **json.loads(answer.read() or "{}")}), flush=True)


if __name__ == "__main__":
    main()

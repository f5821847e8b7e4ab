"""The job of `state-transition-cdc.sql` in processes that die: a line of JSON on stdin for each.

Not a test: run by `test_streaming_cdc.py`. See `stream_process.py` for how.
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
from matih_ray.streaming.checkpoints import CheckpointDirectory
from matih_ray.streaming.connectors.catalog_tables import Owner
from matih_ray.streaming.engine import Command, Engine
from matih_ray.streaming.job import Script
from matih_ray.streaming.sql.script import parse_script


def engine_of(told: dict) -> Engine:
    """The one INSERT of a script, with checkpoints at every turn."""
    script = Script(Settings(home=Path(told["home"])), told["options"], sys.stderr)
    (insert,) = script.prepare(parse_script(told["sql"], told["variables"]))
    directory = CheckpointDirectory(told["checkpoints"])
    owner = Owner(job_id=told["job"], epoch=directory.claim())
    engine = script.engine(insert, owner, side_table=told["side_table"])
    engine.directory = directory
    engine.interval_s = 0
    return engine


def run(told: dict) -> dict:
    """Run until the log was read up to `until`, or until the step to die at."""
    engine = engine_of(told)
    left = told.get("die_at")

    def at_step(name: str) -> None:
        nonlocal left
        if left is not None:
            left -= 1
            if left < 0 and (told.get("die_in") in (None, name)):
                os.kill(os.getpid(), signal.SIGKILL)
        if name == "turn" and reached(engine) >= lsn_of(told["until"]):
            engine.commands.put(Command(stop=True))

    engine.at_step = at_step
    engine.run()
    counts = engine.pipeline.counts
    return {"read": counts.read, "changed": counts.changed, "rejected": engine.rejected}


def reached(engine: Engine) -> int:
    """Up to where the log was read."""
    (source,) = engine.pipeline.sources  # type: ignore[attr-defined]
    (place,) = source.reader.positions().values()
    return lsn_of(place["lsn"] or "0/0")


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

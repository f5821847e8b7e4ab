"""A process that dies at a chosen moment of a commit: `python iceberg_crash.py HOME JSON MOMENT`.

Not a test: run by `test_iceberg_commits.py`.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from sqlalchemy import event
from sqlalchemy.orm import Session

from matih_ray.settings import Settings
from matih_ray.sinks.base import PreparedTarget
from matih_ray.sinks.iceberg import IcebergSink
from matih_ray.testing.contracts.sink_lab import TENANT, batch, marker, slice_


def die(_session: object = None) -> None:
    """End as the machine would: no clean-up, no exception."""
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Write and commit one slice and die on the way."""
    home, prepared_json, moment = sys.argv[1:]
    sink = IcebergSink.from_settings(Settings(home=Path(home)), TENANT)
    prepared = PreparedTarget.from_json(prepared_json)
    writer = sink.writer(prepared, slice_())
    writer.write(batch())
    if moment == "writing":
        die()
    receipt = writer.close()
    if moment == "written":
        die()
    event.listen(Session, moment, die)
    sink.commit(prepared, [receipt], marker(1))


if __name__ == "__main__":
    main()

"""A process that dies at a chosen moment of a commit: `python cdm_crash.py URL JSON MOMENT`.

Not a test: run by `test_cdm_postgres_commits.py`.
"""

from __future__ import annotations

import os
import signal
import sys

from matih_ray.settings import Settings
from matih_ray.sinks.base import PreparedTarget
from matih_ray.sinks.cdm_postgres import CdmPostgresSink
from matih_ray.sinks.cdm_postgres.session import Session
from matih_ray.testing.contracts.sink_lab import TENANT, batch, marker, slice_
from tests.integration.cdm_lab import ContractSink


def die() -> None:
    """End as the machine would: no clean-up, no exception."""
    os.kill(os.getpid(), signal.SIGKILL)


class DyingSession:
    """Kills this process before or after the COMMIT that follows the marker."""

    def __init__(self, moment: str) -> None:
        self._moment = moment
        self._rows = Session.rows
        self._marked = False

    def rows(self, session: Session, statement: object, values: object = None) -> object:
        text = statement if isinstance(statement, str) else statement.as_string(session.connection)
        self._marked = self._marked or "SET marker = " in text
        commits = self._marked and text == "COMMIT"
        if commits and self._moment == "before_commit":
            die()
        answer = self._rows(session, statement, values)
        if commits and self._moment == "after_commit":
            die()
        return answer


def main() -> None:
    """Write and commit one slice and die on the way."""
    url, prepared_json, moment = sys.argv[1:]
    sink = ContractSink(CdmPostgresSink.from_settings(Settings(cdm_database_url=url), TENANT))
    prepared = PreparedTarget.from_json(prepared_json)
    writer = sink.writer(prepared, slice_())
    writer.write(batch())
    if moment == "writing":
        die()
    receipt = writer.close()
    if moment == "written":
        die()
    dying = DyingSession(moment)
    Session.rows = lambda session, statement, values=None: dying.rows(session, statement, values)
    sink.commit(prepared, [receipt], marker(1))


if __name__ == "__main__":
    main()

"""Who is measured: ours, the peer and the floor. Each loads one table and says what it took."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from pathlib import Path

from matih_ray.model.ids import EndpointId, TenantId, UnitId
from matih_ray.model.policy import IngestionPolicy
from matih_ray.settings import Settings
from matih_ray.testing.client import ControlClient, issue_token
from matih_ray.testing.devstack.postgres import PostgresServer, find_binaries
from matih_ray.testing.devstack.runtime import RuntimeProcess
from tests.benchmarks.measure import Meter, Usage

TENANT = TenantId("bench")
DATABASE = "postgres"
IDLE_S = 1.0
PEER_PYTHON = Path(".bench-venv/bin/python")


def postmaster(server: PostgresServer) -> int:
    """The process id of the server, parent of all its backends."""
    return int((server.data / "postmaster.pid").read_text().splitlines()[0])


class Ours:
    """A running local runtime, driven over HTTP as any client would."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self.runtime = RuntimeProcess().start()
        token = issue_token(Settings(home=self.runtime.home), TENANT)
        self.client = ControlClient(self.runtime.url, token, TENANT)

    def connect(self, database: str = DATABASE) -> EndpointId:
        """An endpoint for a database of the server, with its catalog collected."""
        endpoint_id = self.client.create_endpoint(database, self._server, database).endpoint_id
        self.client.collect(endpoint_id)
        return endpoint_id

    def idle(self) -> Usage:
        """What the runtime takes while it has nothing to do."""
        with Meter(postmaster(self._server), self.runtime.pid) as meter:
            time.sleep(IDLE_S)
        return meter.usage

    def load(self, endpoint_id: EndpointId, table: str, rows: int) -> Usage:
        """A full run with default policy, from POST to COMPLETED; replaces the table."""
        unit_id = UnitId(f"public.{table}")
        with Meter(postmaster(self._server), self.runtime.pid) as meter:
            run = self.client.start_run(endpoint_id, unit_id, IngestionPolicy())
            done = self.client.finish(run)
        if done.rows != rows:
            raise RuntimeError(f"we loaded {done.rows} of {rows} rows")
        return meter.usage

    def close(self) -> None:
        """Stop the runtime and remove its files."""
        self.client.close()
        self.runtime.stop()
        shutil.rmtree(self.runtime.home, ignore_errors=True)


def floor(server: PostgresServer, table: str) -> Usage:
    """What PostgreSQL itself takes to send the table, to a client that throws it away."""
    psql = [str(find_binaries() / "psql"), "--no-psqlrc", "--quiet", server.dsn()]
    copy = rf"\copy (select * from {table}) to '/dev/null' (format binary)"
    with Meter(postmaster(server)) as meter:
        meter.run([*psql, "-c", copy])
    return meter.usage


def dlt(server: PostgresServer, table: str, rows: int) -> Usage:
    """dlt with its connectorx backend into an Iceberg table on the local disk."""
    directory = tempfile.mkdtemp(prefix="matih-dlt-")
    url = f"postgresql+psycopg2://{server.user}@{server.host}:{server.port}/{DATABASE}"
    script = str(Path(__file__).with_name("peer_dlt.py"))
    try:
        with Meter(postmaster(server)) as meter:
            output = meter.run(
                [str(PEER_PYTHON.absolute()), script, url, table, directory],
                env={**os.environ, "RUNTIME__LOG_LEVEL": "ERROR", "PYTHONWARNINGS": "ignore"},
            )
        loaded = json.loads(output.splitlines()[-1])["rows"]
        if loaded != rows:
            raise RuntimeError(f"dlt loaded {loaded} of {rows} rows")
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return meter.usage

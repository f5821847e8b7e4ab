"""What the demo starts, all below one directory, and how it is stopped again, even later."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

import psutil

from matih_ray.model.ids import TenantId
from matih_ray.settings import Settings
from matih_ray.testing.client import ControlClient, issue_token
from matih_ray.testing.devstack.postgres import PostgresServer
from matih_ray.testing.devstack.runtime import RuntimeProcess, stop_tree

TENANT = TenantId("demo")
DATABASE = "tpch"
STATE_FILE = "demo.json"


class Services:
    """A PostgreSQL server and a runtime of the demo's own."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="matih-demo-"))
        # PostgreSQL runs as another account when we are root, and must get through
        self.directory.chmod(0o755)
        self.postgres = PostgresServer(self.directory / "postgres")
        self.runtime = RuntimeProcess(self.directory / "home")

    def client(self) -> ControlClient:
        """The demo tenant's view of the runtime."""
        return ControlClient(self.runtime.url, self.token(), TENANT)

    def token(self) -> str:
        """A bearer token for the demo tenant."""
        return issue_token(Settings(home=self.runtime.home), TENANT)

    def leave(self) -> list[str]:
        """Write down what is running, for `stop`; returns the addresses for people."""
        state = {"runtimePid": self.runtime.pid}
        (self.directory / STATE_FILE).write_text(json.dumps(state))
        return [
            f"control API   {self.runtime.url}/api/v1/tenants/{TENANT}",
            f"token         {self.token()}",
            f"PostgreSQL    {self.postgres.dsn(DATABASE)}",
            f"Iceberg       {self.runtime.home / 'iceberg'}",
            f"log           {self.runtime.log}",
            f"stop it all   {sys.executable} -m demo stop {self.directory}",
        ]

    def stop(self) -> None:
        """Stop what was started and remove its files."""
        self.runtime.stop()
        self.postgres.stop()
        shutil.rmtree(self.directory, ignore_errors=True)


def stop_left(directory: Path) -> None:
    """Stop a demo that was left running, and remove its files.

    Raises:
        FileNotFoundError: No demo was left in this directory.
    """
    pid = json.loads((directory / STATE_FILE).read_text())["runtimePid"]
    # the number may belong to somebody else by now
    if psutil.pid_exists(pid) and "serve_apps.local" in psutil.Process(pid).cmdline():
        stop_tree(pid)
    PostgresServer(directory / "postgres").stop()
    shutil.rmtree(directory, ignore_errors=True)

"""A lab per test on the session's runtime."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from matih_ray.control.ports import Ports
from matih_ray.execution.worker import process_ports
from matih_ray.testing.devstack.postgres import PostgresServer
from serve_apps.local import LocalRuntime
from tests.ray.lab import Lab

# The runtime's processes find what stands for drivers whose servers nobody can have.
DRIVERS = str(Path(__file__).parent / "drivers")
os.environ["PYTHONPATH"] = os.pathsep.join([DRIVERS, *filter(None, [os.environ.get("PYTHONPATH")])])


@pytest.fixture(scope="session")
def ports(runtime: LocalRuntime) -> Ports:
    """The runtime's stores and launcher."""
    return process_ports(runtime.settings)


@pytest.fixture
def lab(ports: Ports, postgres: PostgresServer) -> Iterator[Lab]:
    """A fresh source database and endpoint; no faults are armed before or after."""
    opened = Lab.open(ports, postgres)
    opened.faults.clear()
    yield opened
    opened.faults.clear()

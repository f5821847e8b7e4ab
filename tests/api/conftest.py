"""One application per test: its stores are files in the test's own directory."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from matih_ray.streaming.queries import run_query
from matih_ray.streaming.submission import TenantScripts
from matih_ray.testing.fakes import InlineLauncher, RecordingLauncher
from tests.api.lab import TENANT, Lab, open_lab


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """Runs are recorded and stay QUEUED."""
    yield from open_lab(tmp_path / "home", RecordingLauncher())


@pytest.fixture
def running_lab(tmp_path: Path) -> Iterator[Lab]:
    """Runs are executed while they are being started."""
    yield from open_lab(tmp_path / "home", InlineLauncher())


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The SQL gateway with files of the tenant; jobs are recorded, queries run at once."""
    home: Path = tmp_path_factory.mktemp("gateway")
    files = home / "files"
    (files / TENANT).mkdir(parents=True)
    yield from open_lab(
        home,
        RecordingLauncher(),
        scripts=partial(TenantScripts, start=run_query),
        stream_files=str(files),
    )

"""One application per test: its stores are files in the test's own directory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from matih_ray.testing.fakes import InlineLauncher, RecordingLauncher
from tests.api.lab import Lab, open_lab


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """Runs are recorded and stay QUEUED."""
    yield from open_lab(tmp_path / "home", RecordingLauncher())


@pytest.fixture
def running_lab(tmp_path: Path) -> Iterator[Lab]:
    """Runs are executed while they are being started."""
    yield from open_lab(tmp_path / "home", InlineLauncher())

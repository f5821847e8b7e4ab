"""What tests of streaming jobs that die have in common."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.integration.stream_lab import job_processes


@pytest.fixture(scope="module")
def processes() -> Iterator[subprocess.Popen[str]]:
    """What starts the processes of a module's jobs."""
    with job_processes() as process:
        yield process

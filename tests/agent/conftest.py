"""One application per test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent.lab import AgentLab, open_agent_lab


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[AgentLab]:
    yield from open_agent_lab(tmp_path / "home")

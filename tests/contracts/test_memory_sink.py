"""The in-memory sink keeps the sink contract."""

from __future__ import annotations

import pyarrow as pa
import pytest

from matih_ray.sinks.base import PreparedTarget
from matih_ray.sinks.memory import MemorySink, MemoryStore
from matih_ray.testing.contracts.sink import SinkContract


class MemoryLab:
    def __init__(self) -> None:
        self.store = MemoryStore()

    def sink(self) -> MemorySink:
        return MemorySink(store=self.store)

    def read(self, prepared: PreparedTarget) -> pa.Table:
        return self.sink().read(prepared)


class TestMemory(SinkContract):
    @pytest.fixture
    def lab(self) -> MemoryLab:
        return MemoryLab()

"""All staging providers keep one contract."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from matih_ray.staging.base import StagingProvider
from matih_ray.staging.filesystem import FilesystemStaging
from matih_ray.staging.memory import MemoryStaging
from matih_ray.testing.contracts.staging import StagingContract, batch


class TestMemory(StagingContract):
    @pytest.fixture
    def provider(self) -> StagingProvider:
        return MemoryStaging()


class TestFilesystem(StagingContract):
    @pytest.fixture
    def location(self, tmp_path: Path) -> Path:
        return tmp_path / "staging"

    @pytest.fixture
    def provider(self, location: Path) -> StagingProvider:
        return FilesystemStaging(location.as_uri())

    def test_nothing_is_left_behind(self, provider: StagingProvider, location: Path) -> None:
        finished, abandoned = provider.allocate("a"), provider.allocate("b")
        finished.writer().write_batch(batch())
        assert finished.handle.rows
        abandoned.writer().write_batch(batch())
        finished.close()
        abandoned.close()
        assert list(location.iterdir()) == []

    def test_a_handle_opens_in_another_provider_object(
        self, provider: StagingProvider, location: Path
    ) -> None:
        session = provider.allocate("a")
        session.writer().write_batch(batch())
        other = FilesystemStaging(location.as_uri())
        seen: list[int] = []

        def read() -> None:
            seen.extend(b.num_rows for b in other.open(session.handle).reader().iter_batches())

        thread = threading.Thread(target=read)
        thread.start()
        thread.join()
        assert sum(seen) == batch().num_rows


class TestObjectStore(StagingContract):
    @pytest.fixture
    def provider(self, runtime: object) -> Iterator[StagingProvider]:
        from matih_ray.staging.object_store import ObjectStoreStaging

        return ObjectStoreStaging()

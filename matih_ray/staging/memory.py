"""Staging in this process's memory: for tests and for previews that never leave the process."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import ClassVar

import pyarrow as pa

from matih_ray.errors import StagingLostError
from matih_ray.staging.base import StagingHandle


class MemoryStaging:
    """Sessions that live in one provider object and die with it."""

    provider_id: ClassVar[str] = "memory"

    def __init__(self) -> None:
        self._batches: dict[str, list[pa.RecordBatch]] = {}

    def allocate(self, slice_key: str) -> MemorySession:
        """A new, empty session."""
        session_id = f"{slice_key}-{uuid.uuid4().hex}"
        self._batches[session_id] = []
        return MemorySession(self._batches, session_id)

    def open(self, handle: StagingHandle) -> MemorySession:
        """The session behind a handle of this same provider object."""
        return MemorySession(self._batches, handle.session_id)


class MemorySession:
    """Writer, reader and session in one: there is nothing to keep apart."""

    def __init__(self, batches: dict[str, list[pa.RecordBatch]], session_id: str) -> None:
        self._all = batches
        self._session_id = session_id

    @property
    def handle(self) -> StagingHandle:
        """The handle as of now."""
        batches = self._all.get(self._session_id, [])
        return StagingHandle(
            provider_id=MemoryStaging.provider_id,
            session_id=self._session_id,
            rows=sum(batch.num_rows for batch in batches),
            bytes=sum(batch.nbytes for batch in batches),
        )

    def writer(self) -> MemorySession:
        """This session."""
        return self

    def reader(self) -> MemorySession:
        """This session."""
        return self

    def write_batch(self, batch: pa.RecordBatch) -> None:
        """Keep a reference to the batch."""
        self._batches().append(batch)

    def iter_batches(self) -> Iterator[pa.RecordBatch]:
        """The batches in order."""
        yield from self._batches()

    def close(self) -> None:
        """Forget the batches."""
        self._all.pop(self._session_id, None)

    def _batches(self) -> list[pa.RecordBatch]:
        try:
            return self._all[self._session_id]
        except KeyError:
            raise StagingLostError(
                f"staging session {self._session_id} is closed or belongs to another process",
                session_id=self._session_id,
            ) from None

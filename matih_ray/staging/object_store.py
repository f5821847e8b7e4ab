"""Staging in Ray's object store: shared memory on the node, spilled to disk by Ray when full.

Who owns a batch decides whether it survives. A batch that a task *returns or yields* is owned by
the caller (the planner) and outlives the task's process; a `ray.put` inside a task dies with it.
So slice tasks yield batches, the planner `adopt`s the references, and losing the planner means
reading uncommitted slices again, by design. `write_batch` (a `ray.put` by the session's own
process) is for the same process that will hold the session.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any, ClassVar

import pyarrow as pa
import ray

from matih_ray.errors import StagingLostError
from matih_ray.staging.base import StagingHandle

# A reader waits this long for one batch; a lost object that Ray cannot recover fails sooner.
READ_TIMEOUT_S = 120.0


class ObjectStoreStaging:
    """Sessions of object references; the allocating process owns them."""

    provider_id: ClassVar[str] = "object_store"

    def allocate(self, slice_key: str) -> ObjectStoreSession:
        """A new, empty session."""
        return ObjectStoreSession(f"{slice_key}-{uuid.uuid4().hex}")

    def open(self, handle: StagingHandle) -> ObjectStoreSession:
        """A session that borrows the handle's references."""
        return ObjectStoreSession(handle.session_id, handle)


class ObjectStoreSession:
    """References of one slice's batches, in order."""

    def __init__(self, session_id: str, handle: StagingHandle | None = None) -> None:
        self._session_id = session_id
        self._references: list[Any] = list(handle.parts) if handle else []
        self._rows = handle.rows if handle else 0
        self._bytes = handle.bytes if handle else 0
        self._closed = False

    @property
    def handle(self) -> StagingHandle:
        """The handle as of now; references inside it stay owned by this process."""
        return StagingHandle(
            provider_id=ObjectStoreStaging.provider_id,
            session_id=self._session_id,
            rows=self._rows,
            bytes=self._bytes,
            parts=tuple(self._references),
        )

    def adopt(self, reference: Any) -> None:
        """Take over a reference that a task returned; its rows are counted where it is written."""
        self._references.append(reference)

    def release(self, reference: Any) -> None:
        """Let go of one reference, so that Ray may free its memory."""
        self._references.remove(reference)

    @property
    def depth(self) -> int:
        """Number of batches staged and not released."""
        return len(self._references)

    def writer(self) -> ObjectStoreSession:
        """This session."""
        return self

    def reader(self) -> ObjectStoreSession:
        """This session."""
        return self

    def write_batch(self, batch: pa.RecordBatch) -> None:
        """Put a batch into the object store, owned by this process."""
        self._references.append(ray.put(batch))
        self._rows += batch.num_rows
        self._bytes += batch.nbytes

    def iter_batches(self) -> Iterator[pa.RecordBatch]:
        """The batches in order, zero-copy on the node that holds them."""
        if self._closed:
            raise StagingLostError(
                f"staging session {self._session_id} is closed", session_id=self._session_id
            )
        for reference in self._references:
            try:
                yield ray.get(reference, timeout=READ_TIMEOUT_S)
            except (ray.exceptions.ObjectLostError, ray.exceptions.GetTimeoutError) as error:
                raise StagingLostError(
                    f"a staged batch of session {self._session_id} is gone: {type(error).__name__}",
                    session_id=self._session_id,
                ) from None

    def close(self) -> None:
        """Drop all references."""
        self._references.clear()
        self._closed = True

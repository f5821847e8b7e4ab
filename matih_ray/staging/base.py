"""The staging contract.

Only handles travel; batches stay where the provider keeps them. What every provider must keep (see
`matih_ray.testing.contracts`): batches come back in the order and with the schema they were
written; a handle opened elsewhere reads the same rows; reading what is gone is a
`StagingLostError`; closing twice is harmless; after `close` nothing is left behind.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Protocol

import pyarrow as pa


@dataclass(frozen=True)
class StagingHandle:
    """An opaque pointer to the staged batches of one slice.

    `parts` belong to the provider: object references, paths or keys.
    """

    provider_id: str
    session_id: str
    rows: int
    bytes: int
    parts: tuple[object, ...] = ()


class StagingWriter(Protocol):
    """Appends batches to a session."""

    def write_batch(self, batch: pa.RecordBatch) -> None:
        """Stage one batch.

        Raises:
            StagingError: The provider has no room or cannot be reached.
        """


class StagingReader(Protocol):
    """Reads a session's batches."""

    def iter_batches(self) -> Iterator[pa.RecordBatch]:
        """Batches in the order they were written.

        Raises:
            StagingLostError: Some of them are gone.
        """


class StagingSession(Protocol):
    """The lifetime of one slice's staged batches."""

    @property
    def handle(self) -> StagingHandle:
        """The handle as of now; grows until writing ends."""

    def writer(self) -> StagingWriter: ...

    def reader(self) -> StagingReader: ...

    def close(self) -> None:
        """Release all batches."""


class StagingProvider(Protocol):
    """Allocates sessions and opens handles made by another process."""

    provider_id: ClassVar[str]

    def allocate(self, slice_key: str) -> StagingSession: ...

    def open(self, handle: StagingHandle) -> StagingSession: ...

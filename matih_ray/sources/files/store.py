"""What the three stores have in common, and how a stored file is read.

A store lists, looks at one file and gives a range of its bytes, *if the file is still the version
that was listed*: that condition is part of the request, so an overwritten file is never read as a
mixture of both. That is why the vendors' clients are used and not Arrow's file systems, which know
neither versions nor conditions, and report errors as text.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Protocol

import pyarrow as pa

from matih_ray.errors import SourceChangedError

# Read at a time from files that are read from the front: requests are few, memory is small.
AHEAD_BYTES = 8 << 20
_COMPRESSION = {"gz": "gzip", "zst": "zstd"}


@dataclass(frozen=True, order=True)
class StoredFile:
    """One file. `path` is relative to the bucket; `modified_s` whole seconds since 1970, because
    S3 and Azure report no more; `version` changes with every write (ETag or generation)."""

    modified_s: int
    path: str
    size: int
    version: str

    @property
    def modified_at(self) -> datetime:
        """When the store got it."""
        return datetime.fromtimestamp(self.modified_s, tz=timezone.utc)


class ObjectStore(Protocol):
    """One bucket (or container) behind its vendor's client. Safe to use from several threads.

    Every method raises `SourceError`s with stable codes, and `HostNotAllowedError`.
    """

    def list_files(self, prefix: str, limit: int | None = None) -> Iterator[StoredFile]:
        """Files whose path begins with the prefix, page by page; `limit` bounds the page's size."""

    def stat(self, path: str) -> StoredFile | None:
        """One file as it is now, None if it is gone."""

    def read(self, file: StoredFile, start: int, size: int) -> bytes:
        """Bytes of the file as it was listed; `start + size` is at most its size.

        Raises:
            SourceChangedError: It is gone or another.
        """

    def close(self) -> None:
        """Close connections. Safe to call twice."""


def changed(path: str) -> SourceChangedError:
    """The error for a file that is gone or another."""
    return SourceChangedError(
        f"{path} was changed or removed since planning; start a new run", file=path
    )


def check_unchanged(store: ObjectStore, planned: StoredFile) -> None:
    """Compare a file with what was planned. Reads are conditional too, but not every emulator and
    gateway keeps conditions.

    Raises:
        SourceChangedError: The file is gone or another.
    """
    if store.stat(planned.path) != planned:
        raise changed(planned.path)


def open_file(store: ObjectStore, file: StoredFile) -> pa.NativeFile:
    """A file for reading anywhere in it, each read one request."""
    return pa.PythonFile(_StoredBytes(store, file), mode="r")


def open_stream(
    store: ObjectStore, file: StoredFile, ahead_bytes: int = AHEAD_BYTES
) -> pa.NativeFile:
    """A file from its front, decompressed as its name says, read `ahead_bytes` at a time."""
    compression = _COMPRESSION.get(file.path.rpartition(".")[2].lower())
    return pa.input_stream(
        _StoredBytes(store, file, ahead_bytes), compression=compression, buffer_size=None
    )


class _StoredBytes(io.RawIOBase):
    """Python's view of a stored file, which Arrow takes. Keeps the last `ahead_bytes` it got."""

    def __init__(self, store: ObjectStore, file: StoredFile, ahead_bytes: int = 0) -> None:
        super().__init__()
        self._store = store
        self._file = file
        self._ahead_bytes = ahead_bytes
        self._position = 0
        self._held, self._held_from = b"", 0
        self._lock = threading.Lock()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._file.size}
        self._position = max(0, base[whence] + offset)
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        with self._lock:
            left = max(0, self._file.size - self._position)
            wanted = left if size is None or size < 0 else min(size, left)
            found = self._bytes(wanted) if wanted else b""
            self._position += len(found)
            return found

    def _bytes(self, size: int) -> bytes:
        start = self._position - self._held_from
        if not 0 <= start < len(self._held):
            self._held_from, start = self._position, 0
            ahead = max(size, self._ahead_bytes)
            ahead = min(ahead, self._file.size - self._position)
            self._held = self._store.read(self._file, self._position, ahead)
        found = self._held[start : start + size]
        if self._ahead_bytes == 0:
            self._held = b""
        return found

"""Staging as Arrow IPC files on any pyarrow filesystem: survives its writer, costs disk writes.

Useful where nodes are lost often and re-reading the source is dear. One file per session, written
under a temporary name and renamed by `handle`, so that a reader never sees half a file.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any, ClassVar

import pyarrow as pa
from pyarrow import fs

from matih_ray.errors import StagingError, StagingLostError
from matih_ray.staging.base import StagingHandle

# LZ4 costs a tenth of what it saves in writing; anything stronger costs more than the disk.
IPC_OPTIONS = pa.ipc.IpcWriteOptions(compression="lz4")


class FilesystemStaging:
    """Sessions under one directory, named by URI (`file:///…`, `s3://…`)."""

    provider_id: ClassVar[str] = "filesystem"

    def __init__(self, location: str) -> None:
        """Open the directory at `location`, creating it if needed."""
        self._filesystem, self._root = fs.FileSystem.from_uri(location)
        self._filesystem.create_dir(self._root, recursive=True)

    def allocate(self, slice_key: str) -> FilesystemSession:
        """A new, empty session."""
        del slice_key  # keys may hold any character, so file names do not use them
        return FilesystemSession(self._filesystem, self._root, uuid.uuid4().hex)

    def open(self, handle: StagingHandle) -> FilesystemSession:
        """The session behind a handle made by any process that sees the same directory."""
        return FilesystemSession(self._filesystem, self._root, handle.session_id, handle)


class FilesystemSession:
    """One IPC stream file."""

    def __init__(
        self,
        filesystem: fs.FileSystem,
        root: str,
        session_id: str,
        handle: StagingHandle | None = None,
    ) -> None:
        self._filesystem = filesystem
        self._session_id = session_id
        self._path = f"{root}/{session_id}.arrows"
        self._finished = handle
        self._stream: Any = None
        self._writer: Any = None
        self._rows = 0
        self._bytes = 0

    @property
    def handle(self) -> StagingHandle:
        """The handle; asking for it ends writing."""
        if self._finished is None:
            self._finish()
            self._finished = StagingHandle(
                provider_id=FilesystemStaging.provider_id,
                session_id=self._session_id,
                rows=self._rows,
                bytes=self._bytes,
                parts=(self._path,) if self._rows or self._bytes else (),
            )
        return self._finished

    def writer(self) -> FilesystemSession:
        """This session."""
        return self

    def reader(self) -> FilesystemSession:
        """This session."""
        return self

    def write_batch(self, batch: pa.RecordBatch) -> None:
        """Append a batch to the file."""
        if self._finished is not None:
            raise StagingError(
                f"staging session {self._session_id} is finished", session_id=self._session_id
            )
        try:
            if self._writer is None:
                self._stream = self._filesystem.open_output_stream(self._path + ".part")
                self._writer = pa.ipc.new_stream(self._stream, batch.schema, options=IPC_OPTIONS)
            self._writer.write_batch(batch)
        except OSError as error:
            raise StagingError(
                f"cannot write staging file {self._path}: {error}", session_id=self._session_id
            ) from error
        self._rows += batch.num_rows
        self._bytes += batch.nbytes

    def iter_batches(self) -> Iterator[pa.RecordBatch]:
        """The batches in order, memory-mapped where the filesystem allows."""
        if not self.handle.parts:
            return
        try:
            source = self._filesystem.open_input_file(self._path)
        except FileNotFoundError:
            raise StagingLostError(
                f"staging file {self._path} is gone", session_id=self._session_id
            ) from None
        with source, pa.ipc.open_stream(source) as stream:
            yield from stream

    def close(self) -> None:
        """Delete the file."""
        if self._writer is not None:
            self._writer.close()
            self._stream.close()
            self._writer = None
        for path in (self._path, self._path + ".part"):
            if self._filesystem.get_file_info(path).type is not fs.FileType.NotFound:
                self._filesystem.delete_file(path)

    def _finish(self) -> None:
        if self._writer is None:
            return
        try:
            self._writer.close()
            self._stream.close()
            self._filesystem.move(self._path + ".part", self._path)
        except OSError as error:
            raise StagingError(
                f"cannot finish staging file {self._path}: {error}", session_id=self._session_id
            ) from error
        self._writer = None

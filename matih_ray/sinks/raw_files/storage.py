"""Storage: a pyarrow filesystem below one directory, and the creation of a file that is not there.

pyarrow's filesystems have no exclusive creation. Each kind of storage has its own, and those that
have none cannot be used: two committers would overwrite each other.
"""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
from pyarrow import fs

from matih_ray.errors import SinkError, SinkUnavailableError, StorageFullError

# A foreign message is evidence for a person, not a document.
MAX_DETAIL_CHARS = 300
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
# What pyarrow's message says when a store has understood and refused.
_REFUSALS = ("ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH", "NO_SUCH_BUCKET")


class ExclusiveCreation(Protocol):
    """Creates files that must not be there yet, whole or not at all."""

    def create(self, path: str, data: bytes) -> bool:
        """False if there is one already. What raises leaves open whether it was created."""


class LocalCreation:
    """By a hard link, which fails where a name is taken, and whose content is there at once."""

    def create(self, path: str, data: bytes) -> bool:
        """See `ExclusiveCreation`."""
        place = Path(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        draft = place.with_name(f".{place.name}.{uuid.uuid4().hex}")
        try:
            with draft.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.link(draft, place)
        except FileExistsError:
            return False
        finally:
            with contextlib.suppress(FileNotFoundError):
                draft.unlink()
        return True


@dataclass(frozen=True)
class HdfsCreation:
    """By a rename, which HDFS refuses where a name is taken."""

    filesystem: fs.FileSystem

    def create(self, path: str, data: bytes) -> bool:
        """See `ExclusiveCreation`."""
        parent, _, name = path.rpartition("/")
        self.filesystem.create_dir(parent, recursive=True)
        draft = f"{parent}/.{name}.{uuid.uuid4().hex}"
        with self.filesystem.open_output_stream(draft) as stream:
            stream.write(data)
        try:
            self.filesystem.move(draft, path)
        except OSError:
            if self.filesystem.get_file_info(path).type is fs.FileType.NotFound:
                raise
            self.filesystem.delete_file(draft)
            return False
        return True


@dataclass(frozen=True)
class Storage:
    """Files below `root`; all paths given are relative to it.

    `renames` tells that a directory can be renamed in one step.
    """

    filesystem: fs.FileSystem
    root: str
    creation: ExclusiveCreation
    renames: bool

    def full(self, path: str) -> str:
        """The path as the filesystem knows it."""
        return f"{self.root}/{path}"

    def create(self, path: str, data: bytes) -> bool:
        """Create a file; False if there is one already."""
        return self.creation.create(self.full(path), data)

    def open_output(self, path: str) -> Any:
        """A stream into a new file."""
        if self.renames:
            parent = self.full(path).rpartition("/")[0]
            self.filesystem.create_dir(parent, recursive=True)
        return self.filesystem.open_output_stream(self.full(path))

    def write(self, path: str, data: bytes) -> None:
        """Write a small file, in place of another perhaps."""
        with self.open_output(path) as stream:
            stream.write(data)

    def read(self, path: str) -> bytes | None:
        """A small file, None if it is not there."""
        try:
            with self.filesystem.open_input_file(self.full(path)) as file:
                return bytes(file.read())
        except FileNotFoundError:
            return None

    def exists(self, path: str) -> bool:
        """Whether a file or a directory has this name."""
        return self.filesystem.get_file_info(self.full(path)).type is not fs.FileType.NotFound

    def names(self, path: str) -> list[str]:
        """What is directly below a directory, nothing if it is not there."""
        selector = fs.FileSelector(self.full(path), allow_not_found=True)
        return sorted(found.base_name for found in self.filesystem.get_file_info(selector))

    def move(self, path: str, to: str) -> bool:
        """Move a file or, where `renames`, a directory; False if it is not there (any more)."""
        if self.renames:
            self.filesystem.create_dir(self.full(to).rpartition("/")[0], recursive=True)
        try:
            self.filesystem.move(self.full(path), self.full(to))
        except OSError:  # of which object stores have one kind for everything
            if self.exists(path):
                raise
            return False
        return True

    def delete_file(self, path: str) -> None:
        """Delete a file; it may be gone."""
        with contextlib.suppress(FileNotFoundError):
            self.filesystem.delete_file(self.full(path))

    def delete_dir(self, path: str) -> None:
        """Delete a directory with everything in it; it may be gone."""
        with contextlib.suppress(FileNotFoundError):
            self.filesystem.delete_dir(self.full(path))


@contextmanager
def mapped(what: str) -> Iterator[None]:
    """Turn a storage's exceptions into ours; `what` completes 'cannot …'.

    Raises:
        StorageFullError: No space left.
        SinkUnavailableError: It does not answer.
        SinkError: Any other failure.
    """
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise _translated(what, error) from None


def _translated(what: str, error: Exception) -> SinkError:
    detail = str(error).strip().partition("\n")[0][:MAX_DETAIL_CHARS]
    number = getattr(error, "errno", None)
    if number in _FULL:
        return StorageFullError(f"cannot {what}: no space left; free some, then resume")
    refused = any(word in detail for word in _REFUSALS)
    if isinstance(error, OSError) and number is None and not refused:
        return SinkUnavailableError(f"cannot {what}: the storage does not answer ({detail})")
    return SinkError(f"cannot {what}: {type(error).__name__}: {detail}")

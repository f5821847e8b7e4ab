"""Filesystems that checkpoints are on, by URI or local path."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.fs

from matih_ray.errors import ConfigurationError, StateDiskFullError, StateError

# What a copy between filesystems holds in memory.
COPY_BYTES = 4 << 20
# Quotas and limits of file sizes are walls of the same kind.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def filesystem_of(uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """The filesystem of a URI, or of a local path, and the path in it.

    Raises:
        ConfigurationError: Not a URI that can be used.
    """
    try:
        if "://" in uri:
            files, path = pyarrow.fs.FileSystem.from_uri(uri)
            return files, str(path)
        return pyarrow.fs.LocalFileSystem(), str(Path(uri).absolute())
    except (pa.ArrowInvalid, OSError) as error:
        raise ConfigurationError(f"checkpoints cannot be in {uri!r}: {error}") from None


@contextmanager
def mapped(doing: str) -> Iterator[None]:
    """Let a filesystem's errors leave as ours.

    Raises:
        StateDiskFullError: There is no space left.
        StateError: Anything else.
    """
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        if isinstance(error, OSError) and error.errno in _FULL:
            raise StateDiskFullError(
                f"cannot {doing}: {os.strerror(error.errno)}; free space, and the job goes on "
                "from its last checkpoint"
            ) from None
        raise StateError(f"cannot {doing}: {error}") from None


def transfer(source: str, target: str) -> None:
    """Put a file that never changes to another place too: linked where that can be, else copied.

    Raises:
        StateError: It cannot be read or written.
    """
    files, path = filesystem_of(source)
    there, place = filesystem_of(target)
    with mapped(f"copy {source} to {target}"):
        there.create_dir(place.rpartition("/")[0], recursive=True)
        if isinstance(files, pyarrow.fs.LocalFileSystem) and isinstance(there, type(files)):
            try:
                os.link(path, place)
            except FileExistsError:
                return
            except OSError:  # another device, or no links there
                shutil.copyfile(path, place)
            return
        pyarrow.fs.copy_files(
            path,
            place,
            source_filesystem=files,
            destination_filesystem=there,
            chunk_size=COPY_BYTES,
        )

"""Files that several processes share: taking turns, and replacing one as a whole."""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from matih_ray.errors import StateError

# A holder keeps the lock for milliseconds; half a minute means that it hangs.
LOCK_TIMEOUT_S = 30.0
# Asking again costs a microsecond; asking seldom would let whoever comes later go first.
RETRY_S = 0.001


@contextmanager
def exclusive(lock_file: Path) -> Iterator[None]:
    """Hold the lock of a file, against other processes and other threads.

    The lock is on a file of its own, since the file it protects is replaced by another one. The
    system releases it when its holder dies; the lock file stays and is empty.

    Raises:
        StateError: Somebody holds it for longer than `LOCK_TIMEOUT_S`, or it cannot be made.
    """
    try:
        lock_file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StateError(
            f"cannot use the lock file {lock_file}: {error.strerror}", path=str(lock_file)
        ) from None
    try:
        _wait_for_lock(descriptor, lock_file)
        yield
    finally:
        os.close(descriptor)


def _wait_for_lock(descriptor: int, lock_file: Path) -> None:
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        if time.monotonic() > deadline:
            raise StateError(
                f"{lock_file} has been locked for {LOCK_TIMEOUT_S:.0f} s; "
                "find the process that holds it",
                path=str(lock_file),
            )
        time.sleep(RETRY_S)


def replace_file(path: Path, data: bytes, *, durable_name: bool) -> None:
    """Make `data` the whole content of a file, readable by its owner only.

    Readers see the old content or the new one, never a part. The content is on disk before the name
    points to it, so that a power failure cannot leave an empty file either. With `durable_name` the
    directory is synced too, so that the old content cannot come back after a power failure.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        write_new_file(temporary, data)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable_name:
        sync_directory(path.parent)


def write_new_file(path: Path, data: bytes) -> None:
    """Create a file for its owner only, with its content on disk; refuses an existing one."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_directory(directory: Path) -> None:
    """Put the names in a directory on disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""A directory for the state of one process's operators, which is gone with it.

What a process that was killed has left is removed by the next that begins beside it: a directory
belongs to whoever holds the lock of its file, and the kernel releases that with the process.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

from matih_ray.streaming.storage import mapped

_LOCK = "lock"
_PREFIX = "state-"


class StateDirectory:
    """A new directory below `base`.

    Raises:
        StateError: It cannot be made.
    """

    def __init__(self, base: Path) -> None:
        with mapped(f"make a directory for state in {base}"):
            base.mkdir(parents=True, exist_ok=True)
            with (base / _LOCK).open("w") as sweep:  # nobody takes a directory for left in between
                fcntl.flock(sweep, fcntl.LOCK_EX)
                _remove_left(base)
                self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
                self._lock = os.open(self.path / _LOCK, os.O_CREAT | os.O_RDWR)
                fcntl.flock(self._lock, fcntl.LOCK_EX)

    def close(self) -> None:
        """Remove it."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _remove_left(base: Path) -> None:
    """Remove directories whose process is gone."""
    for path in base.glob(f"{_PREFIX}*"):
        try:
            lock = os.open(path / _LOCK, os.O_RDWR)
        except FileNotFoundError:  # it died before it had one
            shutil.rmtree(path, ignore_errors=True)
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
        except BlockingIOError:
            continue
        finally:
            os.close(lock)

"""Reading COPY text by the compiled kernels, once a process reads enough for that to pay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from matih_ray.kernels.copy_columns import CopyReader

# A process takes 0.8 s and 70 MB to load the kernels, and they and the reading from the socket that
# comes with them save as much of 170 MB of lineitem. Whoever has read half of that, or is about to,
# is at a large load, of which the process will get more. Before it is read is the better time: the
# memory that Arrow's reader has needed stays with the process.
KERNELS_AFTER_BYTES = 96 * 1024 * 1024


class _Process:
    """What this process has read, and the largest slice it was told of. Threads count without a
    lock, so it is about right."""

    read_bytes = 0
    slice_bytes = 0


def expect(slice_bytes: int) -> None:
    """A slice of about this size will be read."""
    _Process.slice_bytes = max(_Process.slice_bytes, slice_bytes)


def pay() -> bool:
    """Whether this process reads enough for the kernels."""
    return _Process.read_bytes + _Process.slice_bytes > KERNELS_AFTER_BYTES


class KernelDecoder:
    """Reads the columns of blocks, if it can. Remembers which it reads as text, and whether it is
    of no use."""

    def __init__(self, types: Sequence[pa.DataType]) -> None:
        """Args:
        types: What is read. Binary columns get the server's text for a value.
        """
        self._types = list(types)
        self._reader: CopyReader | None = None
        self._is_useless = False

    def columns(self, padded: bytes | memoryview) -> list[pa.Array] | None:
        """The columns of a block with padding, if the kernels pay. Those that have a value which is
        not what it should be are strings from now on; None if that does not help."""
        _Process.read_bytes += len(padded)
        if self._is_useless or not pay():
            return None
        # numba is only loaded here
        from matih_ray.kernels.copy_columns import CopyReader, NotReadError

        while True:
            if self._reader is None:
                self._reader = CopyReader(self._types)
            try:
                return self._reader.read(padded)
            except NotReadError as error:
                failed, self._reader = error.column, None
                if failed is None or pa.types.is_string(self._types[failed]):
                    self._is_useless = True
                    return None
                self._types[failed] = pa.string()

"""Files of lines in pieces of whole lines, each of which is read where it is decoded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from matih_ray.errors import SourceChangedError, StreamRowError
from matih_ray.kernels import PADDING

# Bytes that are decoded at once: large enough that the cost of a call vanishes, small in memory.
PIECE_BYTES = 8 << 20
# A line that is longer is no row.
MAX_LINE_BYTES = 256 << 20
# The end of a line is looked for in steps of this many bytes; most lines are shorter.
_STEP_BYTES = 64 << 10


@dataclass(frozen=True)
class Piece:
    """Whole lines of a file: its bytes from `start` to `end`."""

    path: Path
    start: int
    end: int

    def padded(self) -> bytearray:
        """The bytes, with `PADDING` after them.

        Raises:
            SourceChangedError: The file has become shorter.
        """
        size = self.end - self.start
        found = bytearray(size + len(PADDING))
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.start)
            view, read = memoryview(found)[:size], 0
            while read < size and (count := file.readinto(view[read:])):
                read += count
        if read < size:
            raise SourceChangedError(f"{self.path} became shorter; files of a job must not change")
        return found


def pieces_of(path: Path) -> Iterator[Piece]:
    """A file's pieces, in order.

    Raises:
        StreamRowError: A line is too long.
    """
    size, start = path.stat().st_size, 0
    with path.open("rb") as file:
        while start < size:
            end = _line_end(file, min(start + PIECE_BYTES, size), size)
            if end < 0:
                raise StreamRowError(f"a line of {path} is longer than {MAX_LINE_BYTES} bytes")
            yield Piece(path, start, end)
            start = end


def _line_end(file: BinaryIO, at: int, size: int) -> int:
    """After the line that the byte before this place is of; -1 if that is too far away."""
    file.seek(at - 1)
    furthest = min(size, at + MAX_LINE_BYTES)
    while at < furthest:
        found = file.readline(_STEP_BYTES)
        at = file.tell()
        if found.endswith(b"\n"):
            return at
    return size if at >= size else -1

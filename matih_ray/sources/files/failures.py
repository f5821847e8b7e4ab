"""The one place where Arrow's errors become ours. Stores map their own: what Arrow still reports
is what it found in a file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from matih_ray.errors import SourceRejectedError

MAX_TEXT_CHARS = 300


@contextmanager
def mapped_errors(doing: str) -> Iterator[None]:
    """Let Arrow's errors leave as `SourceError`s; `doing` opens the message."""
    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        raise SourceRejectedError(f"{doing}: a file is damaged: {_line(error)}") from None


def _line(error: Exception) -> str:
    line = (str(error).splitlines() or ["no reason given"])[0]
    # what Arrow says after the numbers of columns is the row itself
    return re.sub(r"(Expected \d+ columns, got \d+).*", r"\1", line)[:MAX_TEXT_CHARS]

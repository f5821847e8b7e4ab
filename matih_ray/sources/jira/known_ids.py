"""Many ids in few characters: sorted, as distances, compressed. Pure.

Checkpoints keep the ids of all loaded issues, so that what is gone can be told. Ids of a site grow
by one for each issue, so distances are small: 100,000 ids take about 100 kB or less.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Iterable

import numpy as np

from matih_ray.errors import PlanError

# Of one project, some 10 MB as text; above it deletions are not looked for.
MAX_IDS = 5_000_000


def packed(ids: Iterable[int]) -> str:
    """Ids as text."""
    ordered = np.unique(np.fromiter(ids, dtype=np.int64))
    distances = np.diff(ordered, prepend=0).astype("<i8")
    return base64.b64encode(zlib.compress(distances.tobytes(), 6)).decode()


def unpacked(text: str) -> set[int]:
    """The ids.

    Raises:
        PlanError: It is no such text.
    """
    try:
        inflate = zlib.decompressobj()
        data = inflate.decompress(base64.b64decode(text, validate=True), MAX_IDS * 8)
        distances = np.frombuffer(data, dtype="<i8") if inflate.eof else None
    except (ValueError, zlib.error, binascii.Error):
        distances = None
    if distances is None:
        raise PlanError("the checkpoint's ids are damaged; reset the checkpoint")
    return set(np.cumsum(distances).tolist())

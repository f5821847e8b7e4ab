"""Doubles of more digits than a kernel rounds."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from matih_ray.kernels import PADDING
from matih_ray.kernels.texts import gather

Integers = NDArray[np.int64]


def round_doubles(base: int, values: Integers, lengths: Integers) -> None:
    """Let Arrow round those that have a length, which are places in a block so far; to their bits.

    Args:
        base: Address of the block.
        values: Bits of doubles, and places.
        lengths: Bytes of the text at each place; 0 for bits, and negative for what is not there.

    Raises:
        pyarrow.ArrowInvalid: One of the texts is no number.
    """
    hard = np.flatnonzero(lengths > 0)
    if not len(hard):
        return
    places, sizes = values[hard], lengths[hard]
    data = np.empty(int(sizes.sum()) + len(PADDING), np.uint8)
    offsets = np.empty(len(hard) + 1, np.int32)
    gather(
        base,
        places.ctypes.data,
        sizes.ctypes.data,
        len(hard),
        offsets.ctypes.data,
        data.ctypes.data,
    )
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    texts = pa.Array.from_buffers(pa.string(), len(hard), buffers)
    values[hard] = texts.cast(pa.float64()).to_numpy().view(np.int64)
    lengths[hard] = 0

"""From places in a block to what is there: texts as buffers, and doubles of many digits."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from matih_ray.kernels import PADDING
from matih_ray.kernels.texts import gather

Integers = NDArray[np.int64]


def text_buffers(base: int, places: Integers, lengths: Integers) -> list[pa.Buffer]:
    """Texts as the offsets and the data of a column; see `texts.gather`."""
    data = pa.allocate_buffer(int(lengths.sum(where=lengths > 0)) + len(PADDING))
    offsets = pa.allocate_buffer(4 * (len(lengths) + 1))
    put = gather(
        base,
        places.ctypes.data,
        lengths.ctypes.data,
        len(lengths),
        offsets.address,
        data.address,
    )
    return [offsets, data.slice(0, put)]


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
    buffers = [None, *text_buffers(base, values[hard], lengths[hard])]
    texts = pa.Array.from_buffers(pa.string(), len(hard), buffers)
    values[hard] = texts.cast(pa.float64()).to_numpy().view(np.int64)
    lengths[hard] = 0

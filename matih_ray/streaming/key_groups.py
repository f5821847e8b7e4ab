"""Key groups: a fixed number of shares of all keys, of which each operator has a range.

A key's group never changes, so that the state of any number of operators can be given to any other
number. The hash is written down by values in a test: another one would strand every checkpoint.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

# As many as Flink has by default: the most operators that a job can have, enough to share evenly.
KEY_GROUPS = 128
_NULL = np.uint64(0x9E3779B97F4A7C15)
Numbers = npt.NDArray[np.int64]
_Hashes = npt.NDArray[np.uint64]


def key_groups(table: pa.Table | pa.RecordBatch, keys: Sequence[str]) -> Numbers:
    """The group of each row's key; 0 where there are no key columns."""
    hashes = np.zeros(table.num_rows, np.uint64)
    for name in keys:
        hashes = _mixed(hashes * np.uint64(31) + _column_hashes(table.column(name)))
    return (hashes % np.uint64(KEY_GROUPS)).astype(np.int64) if len(keys) else _zeros(hashes)


def owners(groups: Numbers, operators: int) -> Numbers:
    """The operator that has each group, of so many."""
    found: Numbers = groups * operators // KEY_GROUPS
    return found


def _zeros(hashes: _Hashes) -> Numbers:
    return np.zeros(len(hashes), np.int64)


def _column_hashes(column: pa.ChunkedArray | pa.Array) -> _Hashes:
    """Numbers by their value, all else by its text; distinct values only, which are fewer."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    encoded = pc.dictionary_encode(whole)
    values = encoded.dictionary
    if pa.types.is_integer(values.type):
        hashed = _mixed(values.cast(pa.int64()).to_numpy().view(np.uint64))
    elif pa.types.is_temporal(values.type) and values.type.bit_width == 64:
        hashed = _mixed(values.view(pa.int64()).to_numpy().view(np.uint64))
    else:
        texts = (str(value).encode() for value in values.to_pylist())
        hashed = _mixed(np.fromiter((zlib.crc32(text) for text in texts), np.uint64, len(values)))
    table = np.append(hashed, _NULL)
    indices = encoded.indices.fill_null(len(values)).to_numpy()
    found: _Hashes = table[indices]
    return found


def _mixed(numbers: _Hashes) -> _Hashes:
    """Bits spread over the whole number, as SplitMix64 does it (Steele and others, 2014)."""
    with np.errstate(over="ignore"):
        mixed = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        found: _Hashes = mixed ^ (mixed >> np.uint64(31))
    return found

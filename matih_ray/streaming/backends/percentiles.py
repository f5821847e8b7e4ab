"""Exact percentiles of groups whose values do not fit into memory.

Values are read again and again, and only what is of use is kept. Groups with few values are taken
together, as many as fit. One with many is searched as radix sort does it: a pass counts its values
by their first 16 bits, which tells those of the value looked for, the next by the 16 bits that
follow; after four the value is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from matih_ray.streaming.aggregates import Aggregate, group_numbers, percentiles

# Counters of a pass: half a megabyte.
_BITS = 16
_COUNTERS = 1 << _BITS
_SIGN = np.uint64(1 << 63)

Floats = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]
Read = Callable[[], Iterator[tuple[Numbers, Floats]]]


def large_percentiles(
    pieces: Callable[[], Iterator[pa.Table]],
    groups: pa.Table,
    keys: list[str],
    one: Aggregate,
    most_rows: int,
) -> pa.Array:
    """The results for each row of `groups`; `pieces` reads the values once more, of which no more
    than `most_rows` are in memory beside a piece."""

    def read() -> Iterator[tuple[Numbers, Floats]]:
        for table in pieces():
            values = table.column(one.argument).cast(pa.float64()).to_numpy()
            yield group_numbers(table, groups, keys), values

    counts = np.zeros(groups.num_rows, np.int64)
    for numbers, _ in read():
        counts += np.bincount(numbers, minlength=groups.num_rows)
    found = np.zeros(groups.num_rows)
    for number in np.flatnonzero(counts > most_rows).tolist():
        found[number] = _searched(read, number, int(counts[number]), one.fraction)
    few = np.where(counts > most_rows, 0, counts)
    for chosen in _together(few, most_rows):
        taken = [(numbers[mine], values[mine]) for numbers, values in read()
                 if (mine := chosen[numbers]).any()]  # fmt: skip
        numbers = np.concatenate([number for number, _ in taken])
        values = np.concatenate([value for _, value in taken])
        found = np.where(chosen, percentiles(numbers, values, len(counts), one.fraction), found)
    return pa.array(found, pa.float64(), mask=counts == 0)


def _together(counts: Numbers, most_rows: int) -> Iterator[np.ndarray]:
    """Groups that have values, so many at a time."""
    shares = (np.cumsum(counts) - counts) // max(most_rows, 1)
    for share in np.unique(shares[counts > 0]).tolist():
        yield (shares == share) & (counts > 0)


def _searched(read: Read, number: int, count: int, fraction: float) -> float:
    """The percentile of one group."""
    position = (count - 1) * fraction
    part = position - np.floor(position)
    low = int(np.floor(position))
    first, second = _ranked(read, number, (low, low + (part > 0)))
    return float(first if not part else first * (1 - part) + second * part)


def _ranked(read: Read, number: int, ranks: tuple[int, int]) -> Floats:
    """The values of a group that have these places in its order."""
    left = list(ranks)
    prefixes = [0, 0]
    for known in range(0, 64, _BITS):
        counters = np.zeros((2, _COUNTERS), np.int64)
        for numbers, values in read():
            codes = _codes(values[numbers == number])
            heads = codes >> np.uint64(64 - known) if known else np.zeros_like(codes)
            digits = ((codes >> np.uint64(64 - known - _BITS)) % _COUNTERS).astype(np.int64)
            for place, prefix in enumerate(prefixes):
                mine = digits[heads == np.uint64(prefix)]
                counters[place] += np.bincount(mine, minlength=_COUNTERS)
        for place in range(2):
            sums = np.cumsum(counters[place])
            digit = int(np.searchsorted(sums, left[place], side="right"))
            left[place] -= int(sums[digit - 1]) if digit else 0
            prefixes[place] = prefixes[place] << _BITS | digit
    return _values(np.array(prefixes, np.uint64))


def _codes(values: Floats) -> npt.NDArray[np.uint64]:
    """Integers in the order of the values, NaN last: negative ones have all bits turned, others the
    sign (IEEE 754)."""
    plain = np.where(np.isnan(values), np.nan, values + 0.0)  # one NaN, and one zero
    bits = plain.view(np.uint64)
    return np.where(bits & _SIGN, ~bits, bits | _SIGN)


def _values(codes: npt.NDArray[np.uint64]) -> Floats:
    return np.where(codes & _SIGN, codes ^ _SIGN, ~codes).view(np.float64)

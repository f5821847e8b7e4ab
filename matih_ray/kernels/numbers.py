"""Numbers as JSON writes them (RFC 8259, section 6)."""

from __future__ import annotations

import numpy as np

from matih_ray.kernels.compiling import compiled
from matih_ray.kernels.words import bits_of, byte_at

MINUS, PLUS, POINT = ord("-"), ord("+"), ord(".")
ZERO, NINE = ord("0"), ord("9")
LOWER_E, UPPER_E = ord("e"), ord("E")
# Any more may not fit 64 bits.
MAX_DIGITS = 19
# What doubles hold exactly: whole numbers up to this one, and these powers of ten. One product or
# quotient of two of them is rounded once, so it is the nearest double (W. D. Clinger, "How to Read
# Floating Point Numbers Accurately", 1990).
_MAX_WHOLE = np.uint64(1 << 53)
_POWERS = np.array([10.0**power for power in range(23)])
_MAX_EXPONENT = 1_000_000  # beyond all doubles, and far from overflowing
_TEN = np.uint64(10)


@compiled
def is_digit(byte: int) -> bool:
    """Of 0 to 9."""
    return ZERO <= byte <= NINE


@compiled
def read_number(base: int, at: int) -> tuple[int, np.uint64, int, int, bool]:
    """Where the number that begins here ends, or -1 if there is none; its digits without the point,
    the power of ten that they are to be multiplied by, how many they are, and whether it is written
    as a whole number. Of more than `MAX_DIGITS` digits the first result is right, and the count."""
    first = at + 1 if byte_at(base, at) == MINUS else at
    at, digits = read_digits(base, first, np.uint64(0))
    count, exponent, whole = at - first, 0, True
    if count == 0 or (count > 1 and byte_at(base, first) == ZERO):
        return -1, digits, 0, 0, False
    if byte_at(base, at) == POINT:
        point = at + 1
        at, digits = read_digits(base, point, digits)
        if at == point:
            return -1, digits, 0, 0, False
        count, exponent, whole = count + at - point, point - at, False
    if byte_at(base, at) == LOWER_E or byte_at(base, at) == UPPER_E:
        at, power = _read_exponent(base, at + 1)
        exponent, whole = exponent + power, False
    return at, digits, exponent, count, whole


@compiled
def read_digits(base: int, at: int, number: np.uint64) -> tuple[int, np.uint64]:
    """After the digits that begin here, and the number with them appended."""
    while is_digit(byte_at(base, at)):
        number = number * _TEN + np.uint64(byte_at(base, at) - ZERO)
        at += 1
    return at, number


@compiled
def _read_exponent(base: int, at: int) -> tuple[int, int]:
    negative = byte_at(base, at) == MINUS
    if negative or byte_at(base, at) == PLUS:
        at += 1
    first, power = at, 0
    while is_digit(byte_at(base, at)):
        power = min(power * 10 + byte_at(base, at) - ZERO, _MAX_EXPONENT)
        at += 1
    if at == first:
        return -1, 0
    return at, -power if negative else power


@compiled
def read_double(base: int, at: int) -> tuple[int, int, bool]:
    """Where the number that begins here ends, or -1 if there is none; the bits of the nearest
    double, and whether they are known: some take more than one rounding."""
    negative = byte_at(base, at) == MINUS
    end, digits, exponent, count, _ = read_number(base, at)
    found = -1.0 if end < 0 else _double_of(digits, exponent, count)
    return end, bits_of(-found if negative else found), found >= 0.0


@compiled
def _double_of(digits: np.uint64, exponent: int, count: int) -> float:
    """`digits` times ten to the power of `exponent` as the nearest double, or -1 if that takes more
    than one rounding."""
    if count > MAX_DIGITS or digits > _MAX_WHOLE:
        return -1.0
    if 0 <= exponent < len(_POWERS):
        return float(np.float64(digits) * _POWERS[exponent])
    if -len(_POWERS) < exponent < 0:
        return float(np.float64(digits) / _POWERS[-exponent])
    return -1.0

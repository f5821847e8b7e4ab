"""Timestamps as text: `2026-01-31 23:59:59.123`, with another letter between day and time, with or
without `Z`."""

from __future__ import annotations

import numpy as np

from matih_ray.kernels.compiling import compiled
from matih_ray.kernels.numbers import POINT, ZERO, is_digit
from matih_ray.kernels.words import byte_at

_HYPHEN, _COLON, _LETTER_Z = ord("-"), ord(":"), ord("Z")
_POWERS = np.array([10**power for power in range(10)])
_MONTH_DAYS = np.array([31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
_DAY_S = 86_400
# Nanoseconds since 1970 fit 64 bits for all whole years between.
_FIRST_NS_YEAR, _LAST_NS_YEAR = 1678, 2261


@compiled
def read_time(
    base: int, at: int, between: int, zone: int, precision: int, digits: int
) -> tuple[int, int]:
    """Where the timestamp that begins here ends, or -1 if there is none; and how many units it is
    after 1970, a unit being a second with so many `digits` after the point. Of more digits than
    `precision`, those are cut off. `zone` is 1 if `Z` must follow, and 0 if not."""
    end, days = read_day(base, at)
    if end < 0 or byte_at(base, end) != between:
        return -1, 0
    end, clock_s = read_clock(base, end + 1)
    if end < 0:
        return -1, 0
    end, fraction = read_fraction(base, end, precision, digits)
    if end < 0 or (zone == 1 and byte_at(base, end) != _LETTER_Z):
        return -1, 0
    if digits == 9 and not _FIRST_NS_YEAR <= _four(base, at) <= _LAST_NS_YEAR:
        return -1, 0
    return end + zone, (days * _DAY_S + clock_s) * _POWERS[digits] + fraction


@compiled
def read_clock(base: int, at: int) -> tuple[int, int]:
    """After the time of day that begins here, or -1; and its seconds."""
    hour, minute, second = _two(base, at), _two(base, at + 3), _two(base, at + 6)
    if byte_at(base, at + 2) != _COLON or byte_at(base, at + 5) != _COLON:
        return -1, 0
    if min(hour, minute, second) < 0 or hour > 23 or max(minute, second) > 59:
        return -1, 0
    return at + 8, hour * 3600 + minute * 60 + second


@compiled
def read_fraction(base: int, at: int, precision: int, digits: int) -> tuple[int, int]:
    """After the point and one to nine digits, or here if there are none, or -1; and what they are
    in units."""
    if byte_at(base, at) != POINT:
        return at, 0
    first = end = at + 1
    fraction = 0
    while is_digit(byte_at(base, end)) and end < first + 10:
        if end < first + precision:
            fraction = 10 * fraction + byte_at(base, end) - ZERO
        end += 1
    if not 1 <= end - first <= 9:
        return -1, 0
    return end, fraction * _POWERS[max(digits - min(end - first, precision), 0)]


@compiled
def read_day(base: int, at: int) -> tuple[int, int]:
    """After the day that begins here, or -1; and its number, 1970-01-01 being 0."""
    year, month, day = _four(base, at), _two(base, at + 5), _two(base, at + 8)
    if byte_at(base, at + 4) != _HYPHEN or byte_at(base, at + 7) != _HYPHEN:
        return -1, 0
    if year < 1 or not 1 <= month <= 12 or not 1 <= day <= _MONTH_DAYS[month - 1]:
        return -1, 0
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    if month == 2 and day == 29 and not leap:
        return -1, 0
    return at + 10, _days_from_civil(year, month, day)


@compiled
def _days_from_civil(year: int, month: int, day: int) -> int:
    """Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`."""
    year -= month <= 2
    era = year // 400
    year_of_era = year - era * 400
    day_of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    day_of_era = year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year
    return era * 146_097 + day_of_era - 719_468


@compiled
def _two(base: int, at: int) -> int:
    """Two digits, or -1."""
    tens, ones = byte_at(base, at), byte_at(base, at + 1)
    return 10 * (tens - ZERO) + ones - ZERO if is_digit(tens) and is_digit(ones) else -1


@compiled
def _four(base: int, at: int) -> int:
    """Four digits, or a negative number."""
    high, low = _two(base, at), _two(base, at + 2)
    return 100 * high + low if high >= 0 and low >= 0 else -1

"""Timestamps by the kernel, against Python's own."""

from __future__ import annotations

import random
from datetime import datetime, timezone

import pyarrow as pa
import pytest

from matih_ray.kernels import PADDING
from matih_ray.kernels.json_columns import JsonColumn, JsonReader
from matih_ray.kernels.json_lines import Kind

DIGITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}
BAD = [
    "", "2026", "2026-01-01", "2026-01-01 00:00", "2026-01-01 00:00:00.", "2026-01-01T00:00:00",
    "2026-01-01 00:00:00Z", "2026-01-01 00:00:00.1234567890", "2026-1-01 00:00:00",
    "0000-01-01 00:00:00",
    "2026-00-01 00:00:00", "2026-13-01 00:00:00", "2026-01-00 00:00:00", "2026-01-32 00:00:00",
    "2026-02-29 00:00:00", "1900-02-29 00:00:00", "2026-04-31 00:00:00", "2026-01-01 24:00:00",
    "2026-01-01 00:60:00", "2026-01-01 00:00:60", "2026-01-01 00:00:0a", " 2026-01-01 00:00:00",
    "2026-01-01 00:00:00 ", "2026-01-01 00-00:00", "2026/01-01 00:00:00", "+026-01-01 00:00:00",
    "2026-01-01 00:00:00.1x", "10000-01-01 00:00:00", "-026-01-01 00:00:00", "2026-01-01 0:00:00",
]  # fmt: skip


def ticks(
    texts: list[str], kind: pa.DataType, between: str = " ", precision: int = 9
) -> list[int | None]:
    column = JsonColumn("at", Kind.TIME, kind, between, precision)
    block = "\n".join(f'{{"at": "{text}"}}' for text in texts).encode() + PADDING
    (lines,) = JsonReader([column]).read(block, len(texts))
    found = lines.columns[0].cast(pa.int64()).to_pylist()
    assert lines.left.tolist() == [one is None for one in found]
    return found


@pytest.mark.parametrize("unit", DIGITS)
@pytest.mark.parametrize("seed", range(5))
def test_reads_as_python_does(unit: str, seed: int):
    chance = random.Random(seed)
    years = (1678, 2262) if unit == "ns" else (1, 10_000)
    precision = chance.randrange(10)
    texts, wanted = [], []
    for _ in range(500):
        at = datetime(
            chance.randrange(*years), chance.randrange(1, 13), chance.randrange(1, 29),
            chance.randrange(24), chance.randrange(60), chance.randrange(60), tzinfo=timezone.utc,
        )  # fmt: skip
        fraction = "".join(chance.choices("0123456789", k=chance.randrange(10)))
        texts.append(f"{at:%Y-%m-%d %H:%M:%S}".zfill(19) + (f".{fraction}" if fraction else ""))
        counted = fraction[: min(precision, DIGITS[unit])].ljust(DIGITS[unit], "0")
        since = at - datetime(1970, 1, 1, tzinfo=timezone.utc)
        seconds = since.days * 86_400 + since.seconds
        wanted.append(seconds * 10 ** DIGITS[unit] + int(counted or "0"))
    assert ticks(texts, pa.timestamp(unit), precision=min(precision, DIGITS[unit])) == wanted


@pytest.mark.parametrize("text", BAD)
def test_leaves_what_is_none(text: str):
    assert ticks([text], pa.timestamp("ms")) == [None]


def test_leap_days_and_zones():
    assert ticks(["2024-02-29T00:00:00Z"], pa.timestamp("s", "UTC"), "T") == [1_709_164_800]
    assert ticks(["2000-02-29 00:00:00", "1969-12-31 23:59:59.999"], pa.timestamp("ms")) == [
        951_782_400_000,
        -1,
    ]
    assert ticks(["2024-02-29T00:00:00"], pa.timestamp("s", "UTC"), "T") == [None]


def test_leaves_nanoseconds_that_do_not_fit():
    assert ticks(["1677-12-31 00:00:00", "2262-01-01 00:00:00"], pa.timestamp("ns")) == [None, None]

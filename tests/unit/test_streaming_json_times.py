"""Columns of timestamps in JSON: at once, and as one value after the other is read."""

from __future__ import annotations

import json
import random

import pyarrow as pa
import pytest

from matih_ray.kernels import PADDING
from matih_ray.streaming.connectors.json_format import JsonFormat, JsonOptions
from matih_ray.streaming.sql.types import FlinkType

ODD = (
    "2023-02-30 00:00:00",
    "2023-01-01 25:00:00",
    "2023-01-01",
    "",
    "now",
    "2023-01-01 00:00:00,1",
)
ROWS = 80  # more than are read line by line


def text(chance: random.Random, between: str, digits: int, zone: str) -> str:
    numbers = [chance.randrange(1900, 2100), chance.randrange(1, 13), chance.randrange(1, 29)]
    clock = [chance.randrange(24), chance.randrange(60), chance.randrange(60)]
    fraction = "." + "".join(chance.choices("0123456789", k=digits)) if digits else ""
    day = "{:04}-{:02}-{:02}".format(*numbers)
    return f"{day}{between}{'{:02}:{:02}:{:02}'.format(*clock)}{fraction}{zone}"


def read(values: list[str | None], kind: FlinkType, standard: str, *, at_once: bool) -> list:
    """What a column has. One line at a time each is read by itself."""
    options = JsonOptions(ignore_errors=True, timestamps=standard)
    lines = [json.dumps({"at": value}).encode() for value in values]
    json_format = JsonFormat({"at": kind}, options)
    blocks = [b"\n".join(lines)] if at_once else lines
    batches = [one.batch for block in blocks for one in json_format.decode(block + PADDING)]
    return pa.Table.from_batches(batches).column("at").to_pylist()


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("standard", ["SQL", "ISO-8601"])
@pytest.mark.parametrize("kind", ["TIMESTAMP", "TIMESTAMP_LTZ"])
def test_a_column_is_what_its_values_are(kind: str, standard: str, seed: int):
    chance = random.Random(seed)
    between, zone = " " if standard == "SQL" else "T", "Z" if kind == "TIMESTAMP_LTZ" else ""
    wanted = FlinkType(kind, chance.choice([0, 3, 6]))
    digits = chance.choice([0, 1, 3, 6])
    values: list[str | None] = [text(chance, between, digits, zone) for _ in range(ROWS)]
    if seed % 3 == 1:  # one that is none, of the same length where possible
        values[chance.randrange(ROWS)] = chance.choice([*(one + zone for one in ODD), None])
    if seed % 3 == 2:
        values[chance.randrange(ROWS)] = text(chance, between, 2, zone)
    assert read(values, wanted, standard, at_once=True) == read(
        values, wanted, standard, at_once=False
    )
    assert len(values) == ROWS


@pytest.mark.parametrize(
    "odd",
    [
        "2023-01-01x00:00:00.000",
        "2023-01-01 00:00:00.00:",
        "2023-13-01 00:00:00.000",
        "é" * 11 + "a",
    ],
)
def test_a_value_of_the_same_length_and_another_form_is_no_time(odd: str):
    assert len(odd.encode()) == 23
    values: list[str | None] = ["2023-01-01 00:00:00.000"] * ROWS
    values[40] = odd
    found = read(values, FlinkType("TIMESTAMP", 3), "SQL", at_once=True)
    assert [place for place, value in enumerate(found) if value is None] == [40]

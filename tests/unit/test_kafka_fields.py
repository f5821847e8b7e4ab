"""The quick way to a column gives what the way value by value gives, or nothing."""

from __future__ import annotations

import json
import random
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from matih_ray.errors import UnrepresentableValueError
from matih_ray.model.ids import EndpointId, UnitId
from matih_ray.model.policy import IngestionPolicy
from matih_ray.model.unit import EndpointUnitDescriptor
from matih_ray.sources.documents.batches import document_arrays
from matih_ray.sources.kafka.columns import json_columns, selection
from matih_ray.sources.kafka.decoding import json_object
from matih_ray.sources.kafka.fields import field_arrays, quick_array

TYPES = ("text", "integer", "number", "boolean", "double", "date", "decimal(10,2)", "json")


def column_of(type_: str) -> Any:
    unit = EndpointUnitDescriptor(
        endpoint_id=EndpointId("e"),
        unit_id=UnitId("u"),
        namespace="topics",
        name="u",
        columns=json_columns([], {"v": type_}),
    )
    chosen = selection(unit, IngestionPolicy(columns=("v",)))
    (column,) = chosen.fields
    return chosen.dialect, column


def random_value(noise: random.Random, depth: int = 0) -> str:
    """JSON text of any kind."""
    kind = noise.randrange(9 if depth < 3 else 7)
    if kind == 7:
        return (
            "[" + ",".join(random_value(noise, depth + 1) for _ in range(noise.randrange(4))) + "]"
        )
    if kind == 8:
        names = noise.sample(["a", "ü", "\\ud800", "x y", ""], noise.randrange(4))
        return "{" + ",".join(f'"{n}": {random_value(noise, depth + 1)}' for n in names) + "}"
    return (
        "null",
        noise.choice(["true", "false"]),
        str(noise.randrange(-(2**64), 2**64)),
        str(noise.randrange(-9, 9)),
        f"{noise.randrange(999)}.{noise.randrange(999)}0E{noise.randrange(-9, 9)}",
        json.dumps(noise.choice(["", "text", "ñ\u2028\x00", "2024-02-29", '"\\'])),
        '"\\ud83d"',
    )[kind]


@pytest.mark.parametrize("type_", TYPES)
def test_both_ways_give_the_same(type_: str, seed: int):
    noise = random.Random(f"{seed} {type_}")
    dialect, column = column_of(type_)
    quick = 0
    for round_ in range(400):
        # of one kind, which goes the quick way, and of many
        few = [random_value(noise) for _ in range(1 + round_ % 2)]
        texts = [noise.choice([*few, "null"]) for _ in range(6)]
        objects = [json_object(f'{{"v": {text}}}'.encode()) or {} for text in texts] + [{}]
        found = quick_array(column, objects)
        if found is not None:
            quick += 1
            (slow,) = document_arrays(dialect, (column,), "u", objects)
            assert found.type == slow.type
            assert found.equals(slow), texts
    assert (quick > 0) == (type_ in ("text", "integer", "number", "boolean", "json"))


@pytest.mark.parametrize(
    ("type_", "value"),
    [("integer", 2**63), ("integer", True), ("integer", Decimal(1)), ("text", "\ud800"),
     ("boolean", 1), ("number", True), ("text", 1)],
    ids=str,
)  # fmt: skip
def test_what_does_not_fit_is_named_and_never_bent(type_: str, value: Any):
    dialect, column = column_of(type_)
    with pytest.raises(UnrepresentableValueError, match="'v' of u"):
        field_arrays(dialect, (column,), "u", [{"v": value}])


def test_numbers_within_json_keep_their_digits():
    dialect, column = column_of("json")
    value = json_object(b'{"v":[1.10,1e400,{"x":0.1}]}')
    assert field_arrays(dialect, (column,), "u", [value or {}])[0] == pa.array(
        ['[1.10,1E+400,{"x":0.1}]']
    )

"""JSON_VALUE of a name: the compiled reader and Python's have the same answers."""

from __future__ import annotations

import json
import random

import pyarrow as pa
import pytest

from matih_ray.streaming.sql import json_paths
from matih_ray.streaming.sql.json_paths import scalars_at

VALUES = [
    "x", "", "é😀\n\"", "\ud800", True, False, None, 0, 7, -7, 2**80, 1.5, -0.0, 1e300,
    [1], {"a": 2},
]  # fmt: skip
TEXTS = [
    None, "", " ", "null", "[]", "{", '{"a": 1} x', '{"a": -0}', '{"a": 1.50}', '{"a": NaN}',
    '{"a": 1, "a": 2}', '{"a":\n5}', '{"\\u0061": 6}', '{"a": 01}', "{}", '{"A": 1}',
]  # fmt: skip


def documents(chance: random.Random) -> list[str | None]:
    found: list[str | None] = []
    for _ in range(200):
        if chance.random() < 0.2:
            found.append(chance.choice(TEXTS))
            continue
        names = chance.sample("abc", k=chance.randrange(4))
        one = {name: chance.choice(VALUES) for name in names}
        found.append(json.dumps(one, indent=chance.choice([None, None, None, 1])))
    return found


@pytest.mark.parametrize("lines_only", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_the_same_scalars(seed: int, lines_only: bool):
    chance = random.Random(seed)
    texts = documents(chance)
    if lines_only:  # else none of them goes through the compiled reader
        texts = [text if text is None else text.replace("\n", "") for text in texts]
    found = scalars_at(("a",))(pa.array(texts, pa.string()))
    wanted = [
        None if text is None else json_paths._scalar(json_paths._slowly_at(text, ("a",)))
        for text in texts
    ]
    assert found.to_pylist() == ["0" if one == "-0" else one for one in wanted]


def test_of_no_documents():
    assert scalars_at(("a",))(pa.array([], pa.string())).to_pylist() == []
    assert scalars_at(("a",))(pa.array([None], pa.string())).to_pylist() == [None]

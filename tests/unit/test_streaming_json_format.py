"""Blocks and messages of Flink's `json` format: whatever the compiled reader takes or leaves, rows
are those of Flink's rules for one value after the other."""

from __future__ import annotations

import json
import random
from typing import Any

import pyarrow as pa
import pytest

from matih_ray.errors import StreamRowError
from matih_ray.kernels import PADDING
from matih_ray.streaming.connectors.json_format import JsonFormat, JsonOptions
from matih_ray.streaming.connectors.json_values import (
    BadValueError,
    converted,
    converter,
    documents,
)
from matih_ray.streaming.sql.types import BIGINT, BOOLEAN, DOUBLE, INT, STRING, FlinkType

FIELDS = {
    "s": STRING,
    "i": INT,
    "b": BIGINT,
    "t": FlinkType("TINYINT"),
    "d": DOUBLE,
    "f": FlinkType("FLOAT"),
    "o": BOOLEAN,
    "n": FlinkType("DECIMAL", 10, 2),
    "at": FlinkType("TIMESTAMP", 3),
    "zoned": FlinkType("TIMESTAMP_LTZ", 6),
    "a": FlinkType("ARRAY", element=STRING),
}
USUAL: dict[str, list[Any]] = {
    "s": ["x", "", "é\n\"", None],
    "i": [1, -5, None],
    "b": [2**62, 0],
    "t": [127, -128],
    "d": [0.5, 1e300, 0.1 + 0.2, 3],
    "f": [0.25, None],
    "o": [True, False, None],
    "n": [1.25, 3, None],
    "at": ["2026-01-01 00:00:00.123", "1969-12-31 23:59:59", None],
    "zoned": ["2026-01-01 00:00:00.123456Z", None],
    "a": [["x", None], [], None],
}  # fmt: skip
ODD: list[Any] = [
    1.5, "7", " 8 ", "x", True, {"k": [1, "é"]}, [1, "2"], 2**70, 128, "true", "NaN", 1e400,
    "2026-02-30 00:00:00.000", "2026-01-01T00:00:00", "123456789.999", 99999999999, "\ud800",
]  # fmt: skip
NO_OBJECTS = [
    "",
    "  ",
    "null",
    "7",
    "[]",
    '"x"',
    "{",
    "{oops",
    '[{"i": 1}, {"i": 2}]',
    '{"i": 1} {"i": 2}',
]


def line_of(chance: random.Random) -> str:
    if chance.random() < 0.1:
        return chance.choice(NO_OBJECTS)
    values = {name: chance.choice(usual) for name, usual in USUAL.items() if chance.random() < 0.9}
    if chance.random() < 0.2:
        values[chance.choice(list(FIELDS))] = chance.choice(ODD)
    values["other"] = chance.choice([1, {"a": [{}]}, "x"])
    return json.dumps(values, ensure_ascii=True)


def one_by_one(text: bytes, *, ignore: bool) -> list[list[Any]] | None:
    """Rows of a value, None if it is bad."""
    converters = {name: converter(kind, "SQL") for name, kind in FIELDS.items()}
    rows = []
    try:
        for one in documents(text):
            if not isinstance(one, dict):
                return None
            row = []
            for name, convert in converters.items():
                try:
                    row.append(converted(one.get(name), convert))
                except BadValueError:
                    if not ignore:
                        return None
                    row.append(None)
            rows.append(row)
    except ValueError:
        return None
    return rows


def as_rows(values: list[list[Any]]) -> list[list[Any]]:
    """Values as Arrow gives them back."""
    columns = [
        pa.array([row[place] for row in values], kind.arrow).to_pylist()
        for place, kind in enumerate(FIELDS.values())
    ]
    return [list(row) for row in zip(*columns, strict=True)]


def rows_of(batch: pa.RecordBatch) -> list[str]:
    return repr_of([list(row.values()) for row in batch.to_pylist()])


def repr_of(rows: list[list[Any]]) -> list[str]:
    """Rows so that NaN equals itself, and no number another one."""
    return [repr(row) for row in rows]


@pytest.mark.parametrize("ignore", [False, True])
@pytest.mark.parametrize("seed", range(25))
def test_rows_are_those_of_one_after_the_other(seed: int, ignore: bool):
    chance = random.Random(seed)
    texts = [line_of(chance).encode() for _ in range(150)]
    made = JsonFormat(FIELDS, JsonOptions(ignore_errors=ignore, keep_bad=True))
    wanted, origins, bad = [], [], []
    for number, text in enumerate(texts):
        rows = one_by_one(text, ignore=ignore)
        if rows is None:
            bad.append((number, text))
        else:
            wanted += rows
            origins += [number] * len(rows)
    found = made.decode_values(texts)
    assert rows_of(found.batch) == repr_of(as_rows(wanted))
    assert list(found.numbers or range(len(texts))) == origins
    assert [(one.number, one.text) for one in found.bad] == bad
    blocks = list(made.decode(b"\n".join(texts) + PADDING))
    assert [row for one in blocks for row in rows_of(one.batch)] == repr_of(as_rows(wanted))
    assert [one.text for block in blocks for one in block.bad] == [
        text.strip() for _, text in bad if text.strip()
    ]


def test_messages_of_several_lines_and_empty_ones_are_read_as_they_are():
    made = JsonFormat({"i": INT}, JsonOptions(keep_bad=True))
    texts = [b'{"i": 1}', b'{\n  "i": 2\n}', b"", b'{"i": 3}\n', b'{"i":\n"x"}']
    found = made.decode_values(texts)
    assert found.batch.to_pydict() == {"i": [1, 2, 3]}
    assert list(found.numbers or ()) == [0, 1, 3]
    assert [(one.number, one.text) for one in found.bad] == [(2, b""), (4, b'{"i":\n"x"}')]
    assert made.decode_values([]).batch.num_rows == 0


def test_half_of_a_surrogate_pair_is_a_question_mark():
    made = JsonFormat({"s": STRING}, JsonOptions())
    texts = [rb'{"s": "a\ud800b"}', rb'{"s": "\ud83d\ude00"}', rb'{"s": {"k": "\udc00"}}']
    assert made.decode_values(texts).batch.to_pydict() == {"s": ["a?b", "😀", '{"k":"?"}']}


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r", b"\n\n"])
def test_lines_end_in_any_way(end: bytes):
    made = JsonFormat({"i": INT}, JsonOptions())
    block = end.join([b'{"i": 1}', b'{"i": 2}', b""]) + PADDING
    assert [row for one in made.decode(block) for row in one.batch.to_pylist()] == [
        {"i": 1},
        {"i": 2},
    ]


def test_a_missing_field_is_bad_if_that_is_asked_for():
    made = JsonFormat({"i": INT, "s": STRING}, JsonOptions(fail_on_missing=True, keep_bad=True))
    found = made.decode_values([b'{"i": 1, "s": null}', b'{"i": 2}'])
    assert found.batch.to_pylist() == [{"i": 1, "s": None}]
    assert [(one.number, one.why) for one in found.bad] == [(1, "field s is missing")]


def test_a_bad_row_stops_a_job_that_does_not_go_on():
    made = JsonFormat({"i": INT}, JsonOptions())
    with pytest.raises(StreamRowError, match=r"field i is no INT.*ignore-parse-errors"):
        made.decode_values([b'{"i": 1}', b'{"i": "x"}'])

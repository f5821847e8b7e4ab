"""The compiled reader of JSON lines: what it takes is what Python's reader makes of a line, and
what it leaves is what it says it leaves."""

from __future__ import annotations

import json
import math
import random
import struct
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from matih_ray.kernels import PADDING
from matih_ray.kernels.json_columns import JsonColumn, JsonReader, Lines, lines_of
from matih_ray.kernels.json_lines import MAX_GAPS, Kind
from matih_ray.kernels.json_stretches import MAX_DEPTH

COLUMNS = (
    JsonColumn("text", Kind.TEXT),
    JsonColumn("whole", Kind.INTEGER, pa.int64()),
    JsonColumn("small", Kind.INTEGER, pa.int8()),
    JsonColumn("double", Kind.DOUBLE, pa.float64()),
    JsonColumn("flag", Kind.BOOLEAN, pa.bool_()),
    JsonColumn("any", Kind.ANY),
    JsonColumn("scalar", Kind.SCALAR),
    JsonColumn("a name of more than eight bytes é", Kind.TEXT),
)


def read(lines: list[str], columns: tuple[JsonColumn, ...] = COLUMNS) -> Lines:
    found = JsonReader(columns).read_each(
        b"".join(line.encode() + b"\n" for line in lines) + PADDING, len(lines)
    )
    assert found is not None
    return found


def one(line: str) -> dict[str, Any] | None:
    """A line's values, or None if it was left."""
    found = read([line])
    if found.left[0]:
        return None
    return {
        column.name: values[0].as_py()
        for column, values in zip(COLUMNS, found.columns, strict=True)
        if values[0].is_valid
    }


TAKEN: list[tuple[str, dict[str, Any]]] = [
    ("{}", {}),
    (" { } ", {}),
    ('{"text":"a"}\r', {"text": "a"}),
    ('{"text": ""}', {"text": ""}),
    ('{ "other" : [1, {"text": "x"}, [], {}] , "text"\t:\t"b" }', {"text": "b"}),
    ('{"text": 1.50, "small": -128}', {"text": "1.50", "small": -128}),
    ('{"text": true, "scalar": false}', {"text": "true", "scalar": "false"}),
    ('{"text": null, "whole": null}', {}),
    ('{"text": "first", "text": "last"}', {"text": "last"}),
    ('{"text": "first", "text": null}', {}),
    (r'{"text": "\"\\\/\b\f\n\r\t"}', {"text": '"\\/\b\f\n\r\t'}),
    (r'{"text": "é é \u20ac \ud83d\ude00 \u0000"}', {"text": "é é € 😀 \0"}),
    ('{"whole": 9223372036854775807}', {"whole": 2**63 - 1}),
    ('{"whole": -9223372036854775808}', {"whole": -(2**63)}),
    ('{"whole": -0, "small": 127}', {"whole": 0, "small": 127}),
    ('{"double": 1e3, "any": 1e3}', {"double": 1000.0, "any": "1e3"}),
    ('{"double": 0.1}', {"double": 0.1}),
    ('{"double": 9007199254740993}', {"double": 9007199254740992.0}),
    ('{"double": 0.30000000000000004}', {"double": 0.30000000000000004}),
    ('{"double": 2.2250738585072014e-308}', {"double": 2.2250738585072014e-308}),
    ('{"double": 123456789012345678901234567890}', {"double": 1.2345678901234568e29}),
    (
        '{"any": {"a": [1, "\\u0041"]}, "flag": true}',
        {"any": '{"a": [1, "\\u0041"]}', "flag": True},
    ),
    ('{"any": "x"}', {"any": '"x"'}),
    ('{"scalar": "1.5"}', {"scalar": "1.5"}),
    ('{"scalar": 123456789012345678901234567890}', {"scalar": "123456789012345678901234567890"}),
    ('{"a name of more than eight bytes é": "x"}', {"a name of more than eight bytes é": "x"}),
    ('{"a name of more than eight bytes è": "x"}', {}),
    ('{"x": ' + "[" * MAX_DEPTH + "]" * MAX_DEPTH + "}", {}),
    ('{"x": {"a": {"b": [{"c": []}, 1]}, "d": "}"}, "flag": false}', {"flag": False}),
]
LEFT = [
    "", " ", "null", "1", "[]", '"text"', "{", "}", '{"text"}', '{"text":}', '{"text" "a"}',
    '{text: "a"}', "{'text': 'a'}", '{"text": "a",}', '{"text": "a"} x', '{"text": "a"}{}',
    '{"text": "a" "flag": true}', '{,"text": "a"}', '{"text": "a', '{"text": "a\\"}', '{"te',
    '{"text": "a\tb"}', '{"other": "a\x01b"}', r'{"other": "\x"}', r'{"other": "\u12g4"}',
    r'{"text": "\ud800"}', r'{"text": "\udc00\ud800"}', r'{"text": "\ud800A"}',
    r'{"t\u0065xt": "a"}', '{"whole": 1.0}', '{"whole": 1e0}', '{"whole": "1"}', '{"whole": true}',
    '{"whole": 9223372036854775808}', '{"whole": -9223372036854775809}', '{"small": 128}',
    '{"whole": 18446744073709551617}', '{"whole": 100000000000000000000}', '{"small": -129}',
    '{"whole": 01}', '{"whole": +1}', '{"whole": -}', '{"double": .5}', '{"double": 1.}',
    '{"double": 1e}', '{"double": 1e+}', '{"double": 0x1}', '{"double": NaN}', '{"double": "1"}',
    '{"double": -Infinity}', '{"other": 00}', '{"other": 1.}', '{"other": nul}', '{"other": True}',
    '{"flag": 1}', '{"flag": "true"}', '{"flag": tru}', '{"flag": falsy}', '{"text": {}}',
    '{"text": []}', '{"scalar": 1.0}', '{"scalar": -0}', '{"scalar": 1e2}', '{"scalar": {}}',
    '{"other": [1,]}', '{"other": [,]}', '{"other": {"a"}}', '{"other": {"a":}}', '{"other": [}',
    '{"other": {]}}', '{"other": {"a": 1,}}', '{"other": [1 2]}', '{"other": [1}}',
    '{"x": ' + "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1) + "}",
]  # fmt: skip


@pytest.mark.parametrize(("line", "wanted"), TAKEN, ids=range(len(TAKEN)))
def test_takes(line: str, wanted: dict[str, Any]):
    assert one(line) == wanted
    for kept in wanted:
        assert kept in json.loads(line)


@pytest.mark.parametrize("line", LEFT, ids=range(len(LEFT)))
def test_leaves(line: str):
    assert one(line) is None
    # nor does it disturb, or learn from, its neighbours
    lines = ['{"text": "a", "whole": 1}', line, '{"text": "b", "whole": 2}']
    found = read(lines)
    assert found.left.tolist() == [False, True, False]
    assert found.columns[0].to_pylist() == ["a", None, "b"]
    assert [found.text(number).decode() for number in range(3)] == lines


def value(chance: random.Random, depth: int = 0) -> Any:
    """Any JSON value."""
    makers: list[Callable[[], Any]] = [
        lambda: None,
        lambda: chance.random() < 0.5,
        lambda: chance.randrange(-(2 ** chance.randrange(1, 70)), 2 ** chance.randrange(1, 70)),
        lambda: struct.unpack("d", chance.randbytes(8))[0],
        lambda: round(chance.random() * 1000, chance.randrange(8)),
        lambda: "".join(chance.choices('ab"\\/\n\té€😀\0 {}[],:', k=chance.randrange(20))),
    ]
    if depth < 3:
        makers += [
            lambda: [value(chance, depth + 1) for _ in range(chance.randrange(4))],
            lambda: {
                chance.choice("abc"): value(chance, depth + 1) for _ in range(chance.randrange(4))
            },
        ]
    found = chance.choice(makers)()
    return 0.5 if isinstance(found, float) and not math.isfinite(found) else found


def line_of(chance: random.Random, shape: random.Random) -> str:
    """An object as some program writes it: one shape mostly, now and then another."""
    names = [column.name for column in COLUMNS] + ["x", "a_much_longer_name_of_no_column"]
    shape.shuffle(names)
    found = {name: value(chance) for name in names[: shape.randrange(len(names) + 1)]}
    separators = shape.choice([(",", ":"), (", ", ": "), (" ,", "\t:  ")])
    return json.dumps(found, ensure_ascii=shape.random() < 0.5, separators=separators)


def damaged(chance: random.Random, line: str) -> str:
    """The line with a character changed, left out or put in."""
    at = chance.randrange(len(line))
    return (
        line[:at]
        + chance.choice(['"', "\\", ",", "}", "0", "", "x", "\x01"])
        + line[at + chance.randrange(2) :]
    )


def wanted_of(column: JsonColumn, line: str) -> tuple[bool, Any]:
    """Whether the reader may take a line's field, and what it then is; by Python's reader."""
    numbers = json.JSONDecoder(parse_int=Number, parse_float=Number)
    found = numbers.decode(line).get(column.name)
    is_number = isinstance(found, Number)
    if found is None:
        return True, None
    if column.kind is Kind.ANY:
        return True, json.loads(line)[column.name]
    if isinstance(found, dict | list):
        return False, None
    if column.kind in (Kind.TEXT, Kind.SCALAR):
        if isinstance(found, bool):
            return True, str(found).lower()
        is_taken = (
            column.kind is Kind.TEXT
            or not is_number
            or (found.lstrip("-").isdigit() and found != "-0")
        )
        return is_taken, str(found)
    if column.kind is Kind.BOOLEAN:
        return isinstance(found, bool), found
    if not is_number:
        return False, None
    if column.kind is Kind.DOUBLE:
        return True, float(found)
    limit = 1 << (column.type.bit_width - 1)
    is_taken = found.lstrip("-").isdigit() and -limit <= int(found) < limit
    return is_taken, int(found) if is_taken else None


class Number(str):
    """A number as it is written."""

    __slots__ = ()


def is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line, parse_constant=lambda _: 1 / 0), dict)
    except (ValueError, ZeroDivisionError):
        return False


@pytest.mark.parametrize("seed", range(60))
def test_reads_as_python_does(seed: int):
    chance = random.Random(seed)
    shapes = [random.Random(chance.randrange(3)) for _ in range(3)]
    lines = []
    for number in range(200):
        shape = random.Random(chance.randrange(3)) if number % 10 else shapes[0]
        line = line_of(chance, shape)
        lines.append(damaged(chance, line) if number % 7 == 0 else line)
    found = read(lines)
    taken = 0
    for number, line in enumerate(lines):
        if found.left[number]:
            continue
        taken += 1
        assert is_object(line), line
        for column, values in zip(COLUMNS, found.columns, strict=True):
            may_take, wanted = wanted_of(column, line)
            read_value = values[number].as_py()
            if column.kind is Kind.ANY and read_value is not None:
                read_value = json.loads(read_value)
            assert may_take, (column, line)
            assert repr(read_value) == repr(wanted), (column, line)
    assert taken


@pytest.mark.parametrize("seed", range(20))
def test_leaves_no_line_that_it_could_take(seed: int):
    chance = random.Random(seed)
    lines = [line_of(chance, random.Random(chance.randrange(4))) for _ in range(200)]
    found = read(lines)
    for number, line in enumerate(lines):
        takes = all(wanted_of(column, line)[0] for column in COLUMNS)
        assert found.left[number] != takes, (number, line)


def test_leaves_every_line_that_is_cut_off():
    whole = (
        r'{"text": "a\u20ac\ud83d\ude00", "whole": -12, "double": 1.5e-3, "flag": false, '
        r'"any": [{"k": null}], "at": "2026-01-01 00:00:00.123"}'
    )
    columns = (*COLUMNS, JsonColumn("at", Kind.TIME, pa.timestamp("ms")))
    assert not read([whole], columns).left[0]
    for end in range(len(whole)):
        block = whole[:end].encode() + PADDING  # no newline: nothing but padding ends it
        (found,) = JsonReader(columns).read(block, 1) if end else (None,)
        assert found is None or found.left.all(), whole[:end]


def test_reads_more_names_than_it_expects_again():
    names = [f"name{number}" for number in range(MAX_GAPS + 50)]
    columns = tuple(JsonColumn(name, Kind.INTEGER, pa.int64()) for name in reversed(names))
    lines = [json.dumps(dict.fromkeys(names, row)) for row in range(5)]
    found = read(lines, columns)
    assert not found.left.any()
    assert all(values.to_pylist() == list(range(5)) for values in found.columns)


def test_reads_a_block_in_parts():
    lines = [json.dumps({"whole": number}) for number in range(100)]
    block = "\n".join(lines).encode() + PADDING
    parts = list(JsonReader(COLUMNS).read(block, 7))
    assert [part.count for part in parts] == [7] * 14 + [2]
    assert [one for part in parts for one in part.columns[1].to_pylist()] == list(range(100))
    assert JsonReader(COLUMNS).read_each(block, 99) is None
    assert JsonReader(COLUMNS).read_each(block, 101) is None


def test_leaves_lines_that_are_not_utf8():
    block = b'{"text": "\xff"}\n{"text": "\xc3\xa9"}\n{"other": "\xc3"}' + PADDING
    (found,) = JsonReader(COLUMNS).read(block, 10)
    assert found.left.tolist() == [True, False, True]
    assert found.columns[0].to_pylist() == [None, "é", None]
    found.columns[0].validate(full=True)


def test_leaves_lines_without_a_name_if_asked():
    columns = [JsonColumn("a", Kind.TEXT), JsonColumn("b", Kind.TEXT)]
    block = b'{"a": "1", "b": null}\n{"a": "1"}' + PADDING
    (found,) = JsonReader(columns, leave_missing=True).read(block, 10)
    assert found.left.tolist() == [False, True]


@pytest.mark.parametrize("texts", [[], [None], ["a"], ["", None, "é", "x" * 100], ["a"] * 9])
def test_columns_become_lines(texts: list[str | None]):
    column = pa.array(["before", *texts, "after"], pa.string()).slice(1, len(texts))
    wanted = "".join(f"{text or ''}\n" for text in texts).encode()
    assert lines_of(column) == wanted + PADDING

"""JSON is read exactly or not at all, and as Python's own reader reads it."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matih_ray.sources.documents.exact_json import json_text, parse

texts = st.text(st.characters(exclude_categories=[]))
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.decimals(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
    max_leaves=20,
)
# Documents as other writers write them: floats, escapes, spaces, line ends.
written = st.builds(
    lambda value, ascii_, indent: json.dumps(value, ensure_ascii=ascii_, indent=indent).encode(
        "utf-8", "surrogatepass"
    ),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
        lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
        max_leaves=20,
    ),
    st.booleans(),
    st.sampled_from([None, 0, 2]),
)


@given(values)
def test_text_reads_back_as_the_same_value(value: Any):
    text = json_text(value)
    assert json.loads(text) is not None or value is None
    assert parse(text.encode()) == value


@given(written)
def test_it_reads_what_others_write_as_python_does(text: bytes):
    try:
        expected = json.loads(text, parse_float=Decimal, parse_constant=pytest.fail)
    except pytest.fail.Exception:
        with pytest.raises(ValueError, match="Infinity"):
            parse(text)
    else:
        assert parse(text) == expected
        assert parse(json_text(expected).encode()) == expected


@pytest.mark.parametrize("digits", ["0.10", "1.0", "-0.0", "1E+5", "123456789.123456789123456789"])
def test_numbers_keep_their_digits(digits: str):
    assert json_text(parse(digits.encode())) == digits


@pytest.mark.parametrize("digits", ["9" * 1001, "9" * 4300, "9" * 4301, "-" + "9" * 4299])
def test_a_whole_number_of_any_length_is_exact_whoever_reads_it(digits: str):
    (found,) = parse(f"[{digits}]".encode())
    other, escaped = parse(f'[{digits},"\\u00e4"]'.encode())  # not by the fast reader
    assert (found, type(found)) == (other, type(other))
    assert (Decimal(found), escaped) == (Decimal(digits), "ä")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{}{}",
        b"[1,]",
        b"NaN",
        b"[-Infinity]",
        b"'a'",
        b"01",
        b'"\xff"',
        b'"\n"',
        b"1e99999999999999999999",
        b'{"a":1,"a":2}',
        b'{"a": 1, "a": 1}',
        b'{"a":1,"\\u0061":1}',
        b'[{"b":{"a":[],"a":[]}}]',
    ],
)
def test_what_two_readers_would_read_differently_is_refused(text: bytes):
    with pytest.raises(ValueError):  # noqa: PT011 each parser has words of its own
        parse(text)


def test_nesting_without_end_is_refused():
    with pytest.raises(RecursionError):
        parse(b"[" * 100_000)

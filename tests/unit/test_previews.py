"""Values of a preview as JSON."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from decimal import Decimal

import pyarrow as pa
import pytest

from matih_ray.control.previews import _values, shown
from matih_ray.model.preview import MAX_TEXT_CHARS

SHOWN = [
    (None, None),
    (True, True),
    (2**63, 2**63),
    (0.5, 0.5),
    (float("nan"), "nan"),
    (float("-inf"), "-inf"),
    (Decimal("1.50"), "1.50"),
    (b"\x00\xff", "AP8="),
    (datetime(2026, 1, 2, 3, tzinfo=timezone.utc), "2026-01-02T03:00:00+00:00"),
    ({"a": [Decimal(1), b""]}, {"a": ["1", ""]}),
]


@pytest.mark.parametrize(("value", "expected"), SHOWN, ids=lambda value: ascii(value)[:20])
def test_every_value_has_a_form_that_json_has(value: object, expected: object):
    assert shown(value) == expected
    json.dumps(shown(value), allow_nan=False)


def test_long_texts_are_cut():
    cut = shown("x" * (MAX_TEXT_CHARS + 1))
    assert isinstance(cut, str)
    assert len(cut) == MAX_TEXT_CHARS
    assert cut.endswith("…")


@pytest.mark.parametrize(
    ("number", "type_"),
    [(2**63 - 1, pa.timestamp("us", tz="UTC")), (2**31 - 1, pa.date32())],
    ids=str,
)
def test_times_beyond_the_calendar_are_shown_and_do_not_fail(number: int, type_: pa.DataType):
    storage = pa.int32() if pa.types.is_date32(type_) else pa.int64()
    far, none = _values(pa.array([number, None], storage).cast(type_))
    assert isinstance(far, str)
    assert none is None

from __future__ import annotations

import pyarrow as pa
import pytest

from matih_ray.errors import ValidationError
from matih_ray.model.unit import Fidelity
from matih_ray.sources.postgres.types import mapping_of, overridden


@pytest.mark.parametrize(
    ("native", "arrow", "fidelity"),
    [
        ("timestamp(3) with time zone", pa.timestamp("us", "UTC"), Fidelity.EXACT),
        ("timestamp without time zone", pa.timestamp("us"), Fidelity.EXACT),
        ("time(0) without time zone", pa.string(), Fidelity.ENCODED),
        ("character varying(44)", pa.string(), Fidelity.EXACT),
        ("numeric(38,0)", pa.decimal128(38, 0), Fidelity.EXACT),
        ("numeric(39,0)", pa.string(), Fidelity.ENCODED),
        ("numeric(3,5)", pa.decimal128(5, 5), Fidelity.WIDENED),
        ("numeric(2,-3)", pa.decimal128(5, 0), Fidelity.WIDENED),
        ("numeric(30,-10)", pa.string(), Fidelity.ENCODED),
        ("numeric(15,2)[]", pa.string(), Fidelity.ENCODED),
        ("public.amount over numeric(12,2)", pa.decimal128(12, 2), Fidelity.EXACT),
        ('public."x over numeric"', pa.string(), Fidelity.ENCODED),
        ("public.citext", pa.string(), Fidelity.EXACT),
        ("public.vector", pa.string(), Fidelity.ENCODED),
        ("interval day to second(3)", pa.string(), Fidelity.ENCODED),
    ],
)
def test_native_types_map_by_name(native: str, arrow: pa.DataType, fidelity: Fidelity) -> None:
    mapping = mapping_of(native)
    assert (mapping.arrow, mapping.fidelity) == (arrow, fidelity)


def test_every_encoded_type_says_how() -> None:
    for native in ("jsonb", "uuid", "point", "integer[]", "numeric", "public.mood", "interval"):
        mapping = mapping_of(native)
        assert mapping.fidelity is Fidelity.ENCODED
        assert mapping.encoding


def test_overrides_are_for_the_types_that_have_them() -> None:
    assert overridden("jsonb", "text", "c").arrow == pa.string()
    assert overridden("numeric", "decimal(38,9)", "c").arrow == pa.decimal128(38, 9)
    assert overridden("public.d over numeric", "decimal(1,0)", "c").arrow == pa.decimal128(1, 0)
    assert overridden("time without time zone", "time", "c").arrow == pa.time64("us")
    for native, encoding in [
        ("integer", "decimal(9,2)"),
        ("numeric", "decimal(39,2)"),
        ("numeric", "decimal(0,0)"),
        ("numeric", "decimal(2,3)"),
        ("time with time zone", "time"),
        ("text", ""),
    ]:
        with pytest.raises(ValidationError):
            overridden(native, encoding, "c")

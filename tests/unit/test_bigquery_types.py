"""BigQuery's types as Arrow's, for those that the emulator does not keep."""

from __future__ import annotations

from decimal import Decimal

import pyarrow as pa
import pytest
from google.cloud.bigquery import SchemaField

from matih_ray.errors import UnrepresentableValueError, ValidationError
from matih_ray.model.unit import Fidelity
from matih_ray.sources.bigquery.catalog import native_type_of
from matih_ray.sources.bigquery.decoding import record_batch
from matih_ray.sources.bigquery.dialect import BigQueryDialect
from matih_ray.sources.bigquery.types import BIGNUMERIC, mapping_of, overridden
from matih_ray.sources.sql.dialect import BoundKind

ODD = "a`,<b"


@pytest.mark.parametrize(
    ("field", "native", "arrow"),
    [
        (SchemaField("c", "NUMERIC", precision=10, scale=2), "NUMERIC(10,2)", pa.decimal128(10, 2)),
        (SchemaField("c", "NUMERIC", precision=5), "NUMERIC(5,0)", pa.decimal128(5, 0)),
        (
            SchemaField("c", "BIGNUMERIC", precision=38, scale=20),
            "BIGNUMERIC(38,20)",
            pa.decimal128(38, 20),
        ),
        (SchemaField("c", "BIGNUMERIC", precision=40, scale=2), "BIGNUMERIC(40,2)", pa.string()),
        (SchemaField("c", "BIGNUMERIC"), "BIGNUMERIC", pa.string()),
        (SchemaField("c", "RANGE", range_element_type="DATE"), "RANGE<DATE>", pa.string()),
        (SchemaField("c", "INTEGER", "REPEATED"), "ARRAY<INT64>", pa.list_(pa.int64())),
        (
            SchemaField(
                "c",
                "RECORD",
                fields=[
                    SchemaField(ODD, "NUMERIC", precision=4, scale=1),
                    SchemaField("t", "TIME"),
                ],
            ),
            "STRUCT<`a\\`,<b` NUMERIC(4,1), `t` TIME>",
            pa.struct([(ODD, pa.decimal128(4, 1)), ("t", pa.time64("us"))]),
        ),
        (SchemaField("c", "SOMETHING_NEW"), "SOMETHING_NEW", pa.string()),
    ],
)
def test_a_type_of_the_catalog_has_its_arrow_type(
    field: SchemaField, native: str, arrow: pa.DataType
):
    assert native_type_of(field) == native
    assert mapping_of(native).arrow == arrow


def test_a_struct_says_which_of_its_fields_are_encoded():
    mapping = mapping_of("ARRAY<STRUCT<`id` INT64, `where` GEOGRAPHY, `more` JSON>>")
    assert mapping.fidelity is Fidelity.ENCODED
    assert mapping.encoding == "where: WKT; more: JSON text"


def test_a_text_with_a_collation_bounds_no_slices():
    field = SchemaField.from_api_repr({"name": "c", "type": "STRING", "collation": "und:ci"})
    mapping = mapping_of(native_type_of(field))
    assert (mapping.arrow, mapping.bound) == (pa.string(), None)
    assert mapping_of("STRING").bound is BoundKind.TEXT


def test_decimals_are_exact_to_their_last_digit():
    digits = ["99999999999999999999999999999.999999999", "-0.000000001", None]
    wide = ["9" * 38 + "." + "9" * 38, "-0." + "0" * 37 + "1", None]
    schema = pa.schema([("n", mapping_of("NUMERIC").arrow), ("b", BIGNUMERIC)])
    rows = [{"f": [{"v": n}, {"v": b}]} for n, b in zip(digits, wide, strict=True)]
    found = record_batch(rows, schema)
    assert found.column("n").to_pylist() == [t and Decimal(t) for t in digits]
    assert found.column("b").to_pylist() == [t and Decimal(t) for t in wide]


def test_a_bignumeric_of_77_digits_is_refused_as_a_decimal():
    # its greatest value has one digit more than Arrow's widest decimal
    rows = [{"f": [{"v": "5" + "0" * 38}]}]
    with pytest.raises(UnrepresentableValueError, match="text"):
        record_batch(rows, pa.schema([("b", BIGNUMERIC)]))


def test_a_bignumeric_may_arrive_as_a_decimal_and_nothing_else_may():
    assert overridden("BIGNUMERIC", "decimal", "c").arrow == BIGNUMERIC
    with pytest.raises(ValidationError, match="decimal"):
        overridden("NUMERIC", "decimal", "c")


@pytest.mark.parametrize(
    ("kind", "text", "sql"),
    [
        (BoundKind.DECIMAL, "-1.5", "NUMERIC '-1.5'"),
        (BoundKind.DECIMAL, "1" * 30, "BIGNUMERIC '" + "1" * 30 + "'"),
        (BoundKind.DECIMAL, "0.1234567891", "BIGNUMERIC '0.1234567891'"),
        (BoundKind.TEXT, "a'\\\n", "'a\\U00000027\\U0000005c\\U0000000a'"),
        (BoundKind.BINARY, "00FF", "FROM_HEX('00FF')"),
        (BoundKind.TIMESTAMP_TZ, "2024-01-31 00:00:00", "TIMESTAMP '2024-01-31 00:00:00+00:00'"),
    ],
)
def test_a_bound_is_a_literal_of_its_type(kind: BoundKind, text: str, sql: str):
    assert BigQueryDialect("shop").literal(kind, text) == sql

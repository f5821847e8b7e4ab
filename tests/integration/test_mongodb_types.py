"""Every BSON type through MongoDB's wire protocol, compared value by value."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import bson
import pyarrow as pa
import pytest
from bson import json_util
from bson.binary import Binary
from bson.datetime_ms import DatetimeMS

from matih_ray.errors import UnrepresentableValueError, ValidationError
from matih_ray.model.ids import EndpointId, TenantId, UnitId
from matih_ray.model.policy import IngestionPolicy
from matih_ray.model.unit import Fidelity
from matih_ray.planning.planner import make_plan
from matih_ray.sources.base import TARGET_BATCH_BYTES, EndpointSpec
from matih_ray.sources.mongodb import MongoSource
from matih_ray.sources.mongodb.catalog import SAMPLE_DOCUMENTS
from matih_ray.testing.devstack.mongodb import MongoServer

Fill = Callable[[list[dict[str, Any]]], str]
MOMENT = dt.datetime(2024, 2, 29, 12, 30, 15, 123000, tzinfo=dt.timezone.utc)
KEY = bson.ObjectId("65e0788f0102030405060708")
IDENTITY = uuid.UUID("12345678-1234-5678-1234-567812345678")
DIGITS = "-12345678901234567890.12345678901234"


@pytest.fixture(scope="module")
def server() -> Iterator[MongoServer]:
    with MongoServer() as server:
        yield server


@pytest.fixture
def source(server: MongoServer) -> Iterator[MongoSource]:
    config = {"host": server.host, "port": server.port, "database": "types"}
    spec = EndpointSpec(TenantId("t"), EndpointId("e"), "test", "MONGODB", config)
    source = MongoSource(spec)
    yield source
    source.close()


@pytest.fixture
def fill(server: MongoServer, request: pytest.FixtureRequest) -> Fill:
    """Put documents into a collection of the test's own; returns its unit id."""

    def put(documents: list[dict[str, Any]]) -> str:
        name = request.node.name.translate({ord(c): "_" for c in "[]-. "})
        with server.client() as client:
            client.get_database("types").get_collection(name).insert_many(documents)
        return f"types.{name}"

    return put


def read(source: MongoSource, unit_id: str, **policy: Any) -> pa.Table:
    unit = source.describe_unit(UnitId(unit_id))
    chosen = IngestionPolicy(**policy)
    plan = make_plan(source, unit, None, chosen)
    batches = [batch for s in plan.slices for batch in source.read(unit, s, chosen)]
    return pa.Table.from_batches(batches, source.read_schema(unit, chosen))


@pytest.mark.parametrize(
    ("value", "arrow", "expected", "fidelity"),
    [
        (KEY, pa.string(), str(KEY), Fidelity.ENCODED),
        (7, pa.int64(), 7, Fidelity.WIDENED),
        (bson.Int64(-(2**63)), pa.int64(), -(2**63), Fidelity.EXACT),
        (0.1, pa.float64(), 0.1, Fidelity.EXACT),
        (float("-inf"), pa.float64(), float("-inf"), Fidelity.EXACT),
        (bson.Decimal128(DIGITS), pa.string(), DIGITS, Fidelity.ENCODED),
        (bson.Decimal128("NaN"), pa.string(), "NaN", Fidelity.ENCODED),
        (MOMENT, pa.timestamp("ms", tz="UTC"), MOMENT, Fidelity.EXACT),
        (True, pa.bool_(), True, Fidelity.EXACT),
        ("naïve 🙂\x00", pa.string(), "naïve 🙂\x00", Fidelity.EXACT),
        (b"\x00\xff", pa.binary(), b"\x00\xff", Fidelity.EXACT),
        (Binary.from_uuid(IDENTITY), pa.string(), str(IDENTITY), Fidelity.ENCODED),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, pa.DataType) else str(value),
)
def test_a_value_arrives_exactly(source, fill, value, arrow, expected, fidelity):
    unit_id = fill([{"_id": 1, "v": value}, {"_id": 2, "v": None}, {"_id": 3}])
    table = read(source, unit_id)
    assert table.schema.field("v").type == arrow
    rows = dict(zip(table["_id"].to_pylist(), table["v"].to_pylist(), strict=True))
    assert rows == {1: expected, 2: None, 3: None}
    (column,) = [c for c in source.describe_unit(UnitId(unit_id)).columns if c.name == "v"]
    assert column.fidelity is fidelity
    assert (column.encoding is not None) == (fidelity is Fidelity.ENCODED)


@pytest.mark.parametrize(
    "value",
    [
        {"b": 1, "a": [bson.Int64(1), 1.0, None, {"x": MOMENT}]},
        [],
        [b"x", KEY, bson.Decimal128("1E+3")],
        bson.Regex("^a", "i"),
        bson.Timestamp(5, 6),
        bson.MinKey(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_nested_or_rare_value_is_canonical_extended_json(source, fill, value):
    unit_id = fill([{"_id": 1, "v": value}, {"_id": 2, "v": None}, {"_id": 3}])
    table = read(source, unit_id)
    texts = dict(zip(table["_id"].to_pylist(), table["v"].to_pylist(), strict=True))
    canonical = json_util.dumps(value, json_options=json_util.CANONICAL_JSON_OPTIONS)
    assert texts[1].replace(" ", "") == canonical.replace(" ", "")
    assert (texts[2], texts[3]) == ("null", None)


def test_a_date_beyond_the_year_9999_keeps_its_milliseconds(source, fill):
    table = read(source, fill([{"_id": 1, "v": DatetimeMS(2**55)}]))
    assert table["v"].cast(pa.int64()).to_pylist() == [2**55]


def test_whole_numbers_of_both_widths_are_one_column(source, fill):
    table = read(source, fill([{"_id": 1, "v": 1}, {"_id": 2, "v": bson.Int64(2**40)}]))
    assert table["v"].to_pylist() == [1, 2**40]


def test_a_field_of_several_types_is_json_from_the_start(source, fill):
    values = [1, "1", 1.5, {"a": 1}, bson.Int64(1)]
    unit_id = fill([{"_id": n, "v": value} for n, value in enumerate(values)])
    table = read(source, unit_id).sort_by("_id")
    assert table["v"].to_pylist() == [
        '{"$numberInt":"1"}',
        '"1"',
        '{"$numberDouble":"1.5"}',
        '{"a":{"$numberInt":"1"}}',
        '{"$numberLong":"1"}',
    ]
    (column,) = [c for c in source.describe_unit(UnitId(unit_id)).columns if c.name == "v"]
    assert column.native_type == "double | int | long | object | string"


def beyond_the_sample(field: str, value: Any) -> list[dict[str, Any]]:
    """Documents of which the sample does not see the one in the middle."""
    documents = [{"_id": n, "n": n} for n in range(2 * SAMPLE_DOCUMENTS)]
    documents[SAMPLE_DOCUMENTS][field] = value
    return documents


def test_fields_that_the_sample_did_not_show_are_kept(source, fill):
    unit_id = fill(beyond_the_sample("late", [KEY]))
    table = read(source, unit_id)
    assert table.column_names == ["_id", "n", "_extra"]
    kept = [row for row in table.to_pylist() if row["_extra"] is not None]
    text = f'{{"late":[{{"$oid":"{KEY}"}}]}}'
    assert kept == [{"_id": SAMPLE_DOCUMENTS, "n": SAMPLE_DOCUMENTS, "_extra": text}]


def test_fields_whose_names_no_table_has_are_kept(source, fill):
    table = read(source, fill([{"_id": 1, "_extra": "mine", "": 2, "ok": 3}]))
    assert table.to_pylist() == [
        {"_id": 1, "ok": 3, "_extra": '{"_extra":"mine","":{"$numberInt":"2"}}'}
    ]


@pytest.mark.parametrize("value", ["text", 1.5, -0.0, 2.0**63, True], ids=repr)
def test_a_value_that_does_not_fit_is_an_error_with_a_remedy(source, fill, value):
    unit_id = fill(beyond_the_sample("n", value))
    with pytest.raises(UnrepresentableValueError, match=r"'n'.*'json'") as caught:
        read(source, unit_id)
    assert caught.value.context["column"] == "n"
    table = read(source, unit_id, encodings={"n": "json"})
    texts = set(table["n"].to_pylist())
    assert len(texts) == table.num_rows
    assert json_util.dumps(value, json_options=json_util.CANONICAL_JSON_OPTIONS).replace(
        " ", ""
    ) in {text.replace(" ", "") for text in texts}


def test_a_double_without_a_fraction_fits_a_whole_number(source, fill):
    table = read(source, fill(beyond_the_sample("n", float(SAMPLE_DOCUMENTS))))
    assert sorted(table["n"].to_pylist()) == list(range(2 * SAMPLE_DOCUMENTS))


def test_decimals_take_a_declared_precision_or_refuse(source, fill):
    amounts = [bson.Decimal128(text) for text in ("1.10", "-0.005", "12345678901234567890")]
    unit_id = fill([{"_id": n, "v": amount} for n, amount in enumerate(amounts)])
    table = read(source, unit_id, encodings={"v": "decimal(23,3)"}).sort_by("_id")
    assert table["v"].type == pa.decimal128(23, 3)
    assert table["v"].to_pylist() == [Decimal(str(amount)) for amount in amounts]
    for narrow in ("decimal(22,3)", "decimal(22,2)", "int64"):
        with pytest.raises(UnrepresentableValueError, match="'v'"):
            read(source, unit_id, encodings={"v": narrow})
    with pytest.raises(ValidationError, match="encoding"):
        read(source, unit_id, encodings={"v": "decimal(39,2)"})


def test_only_the_columns_asked_for_are_read(source, fill):
    unit_id = fill([{"_id": 1, "a": 1, "b": 2}])
    assert read(source, unit_id, columns=("_id", "b")).to_pylist() == [{"_id": 1, "b": 2}]
    assert read(source, unit_id, columns=("_id", "_extra")).to_pylist() == [
        {"_id": 1, "_extra": None}
    ]
    with pytest.raises(ValidationError, match="_id"):
        read(source, unit_id, columns=("b",))


def test_batches_are_bounded_by_bytes(source, fill, server):
    size = 20_000
    unit_id = fill([{"_id": n, "text": "x" * size} for n in range(1500)])
    with server.client() as client:  # more than one message carries
        collection = client.get_database("types").get_collection(unit_id.partition(".")[2])
        collection.insert_many({"_id": n, "text": "y" * size} for n in range(1500, 3000))
    unit = source.describe_unit(UnitId(unit_id))
    (slice_,) = make_plan(source, unit, None, IngestionPolicy()).slices
    batches = list(source.read(unit, slice_, IngestionPolicy()))
    assert sum(batch.num_rows for batch in batches) == 3000
    # a batch ends with the answer of the server that fills it
    assert max(batch.nbytes for batch in batches) < 2 * TARGET_BATCH_BYTES

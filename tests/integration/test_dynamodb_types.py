"""Every DynamoDB type through DynamoDB Local, compared value by value; plans and cursors."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from matih_ray.errors import (
    NullCursorError,
    PlanError,
    SourceChangedError,
    UnrepresentableValueError,
    ValidationError,
)
from matih_ray.model.checkpoint import Checkpoint
from matih_ray.model.ids import EndpointId, TenantId, UnitId
from matih_ray.model.plan import IngestionPlan
from matih_ray.model.policy import IngestionPolicy, LateCommits, NullCursor, RunMode
from matih_ray.planning.planner import make_plan
from matih_ray.sources.base import EndpointSpec
from matih_ray.sources.dynamodb import DynamoSource
from matih_ray.sources.dynamodb.catalog import SAMPLE_ITEMS
from matih_ray.testing.devstack.dynamodb import ACCESS_KEY_ID, REGION, DynamoServer

Fill = Callable[[list[dict[str, Any]]], str]
# As many digits as DynamoDB keeps, and the ends of its range.
NUMBERS = [
    "12345678901234567890123456789012345678",
    "-0.12345678901234567890123456789012345678",
    "9.9999999999999999999999999999999999999E+125",
    "1E-130",
    "0",
]


@pytest.fixture(scope="module")
def server() -> Iterator[DynamoServer]:
    with DynamoServer() as server:
        yield server


@pytest.fixture
def source(server: DynamoServer) -> Iterator[DynamoSource]:
    spec = EndpointSpec(
        TenantId("t"),
        EndpointId("e"),
        "test",
        "DYNAMODB",
        {"region": REGION, "endpointOverride": server.url},
        {"accessKeyId": ACCESS_KEY_ID, "secretAccessKey": "any"},
    )
    source = DynamoSource(spec)
    yield source
    source.close()


@pytest.fixture
def fill(server: DynamoServer, request: pytest.FixtureRequest) -> Fill:
    """Put items into a table of the test's own; returns its name."""
    name = request.node.name.translate({ord(c): "-" for c in "[]' "})

    def put(items: list[dict[str, Any]]) -> str:
        server.create_table(name, "id:N")
        server.put(name, [{"id": {"N": str(n)}, **item} for n, item in enumerate(items)])
        return name

    return put


def planned(source: DynamoSource, table: str, **policy: Any) -> IngestionPlan:
    unit = source.describe_unit(UnitId(table))
    return make_plan(source, unit, None, IngestionPolicy(**policy))


def read(
    source: DynamoSource, table: str, plan: IngestionPlan | None = None, **policy: Any
) -> list[dict[str, Any]]:
    unit = source.describe_unit(UnitId(table))
    chosen = IngestionPolicy(**policy)
    plan = plan or planned(source, table, **policy)
    batches = [batch for s in plan.slices for batch in source.read(unit, s, chosen)]
    rows = pa.Table.from_batches(batches, source.read_schema(unit, chosen)).to_pylist()
    return sorted(rows, key=lambda row: int(row["id"]))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"S": "naïve 🙂\x00"}, "naïve 🙂\x00"),
        ({"S": ""}, ""),
        ({"B": b"\x00\xff"}, b"\x00\xff"),
        ({"BOOL": False}, False),
        *(({"N": text}, text) for text in NUMBERS),
    ],
    ids=str,
)
def test_a_value_arrives_exactly(source, server, value, expected):
    name = f"exact-{zlib.crc32(str(value).encode())}"
    server.create_table(name, "id:N")
    server.put(
        name,
        [
            {"id": {"N": "0"}, "v": value},
            {"id": {"N": "1"}, "v": {"NULL": True}},
            {"id": {"N": "2"}},
        ],
    )
    first, null, missing = (row["v"] for row in read(source, name))
    if isinstance(expected, str) and "N" in value:
        assert Decimal(first) == Decimal(expected)
    else:
        assert first == expected
    assert (null, missing) == (None, None)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"M": {"b": {"N": NUMBERS[0]}, "a": {"L": [{"NULL": True}, {"BOOL": True}]}}},
         f'{{"a":[null,true],"b":{NUMBERS[0]}}}'),
        ({"SS": ["b", "a"]}, '{"$stringSet":["a","b"]}'),
        ({"NS": ["10", "9.5"]}, '{"$numberSet":[9.5,10]}'),
        ({"BS": [b"b", b"a"]}, '{"$binarySet":["YQ==","Yg=="]}'),
        ({"L": [{"B": b"a"}, {"S": 'q"'}]}, '[{"$binary":"YQ=="},"q\\""]'),
        ({"M": {"$binary": {"S": "no"}}}, '{"$map":{"$binary":"no"}}'),
        ({"M": {"S": {"S": "x"}}}, '{"S":"x"}'),
        ({"M": {}}, "{}"),
    ],
    ids=str,
)  # fmt: skip
def test_a_nested_value_is_json_with_exact_numbers(source, server, value, text):
    name = f"nested-{zlib.crc32(str(value).encode())}"
    server.create_table(name, "id:N")
    server.put(name, [{"id": {"N": "0"}, "v": value}, {"id": {"N": "1"}, "v": {"NULL": True}}])
    assert [row["v"] for row in read(source, name)] == [text, "null"]
    json.loads(text)


def test_an_attribute_of_several_types_is_json_from_the_start(source, fill):
    table = fill([{"v": {"N": "1"}}, {"v": {"S": "1"}}, {}])
    assert [row["v"] for row in read(source, table)] == ["1", '"1"', None]


def test_attributes_that_the_sample_did_not_show_are_kept(source, fill):
    count = SAMPLE_ITEMS + 200
    table = fill([{"n": {"N": str(n)}} for n in range(count)])
    unit = source.describe_unit(UnitId(table))
    # what the sample cannot have seen, whichever items it saw
    narrowed = unit.model_copy(update={"columns": tuple(c for c in unit.columns if c.name != "n")})
    plan = planned(source, table)
    rows = [
        row
        for s in plan.slices
        for batch in source.read(narrowed, s, IngestionPolicy())
        for row in batch.to_pylist()
    ]
    assert sorted(row["_extra"] for row in rows) == sorted(f'{{"n":{n}}}' for n in range(count))


def test_numbers_take_a_declared_type_or_refuse(source, fill):
    table = fill([{"v": {"N": "7"}}, {"v": {"N": "-12.25"}}])
    rows = read(source, table, encodings={"id": "int64", "v": "decimal(4,2)"})
    assert [(row["id"], row["v"]) for row in rows] == [(0, Decimal("7.00")), (1, Decimal("-12.25"))]
    for narrow in ("int64", "decimal(3,2)", "decimal(4,1)"):
        with pytest.raises(UnrepresentableValueError, match="'v'") as caught:
            read(source, table, encodings={"v": narrow})
        assert caught.value.context["remedy"] == "json"
    with pytest.raises(ValidationError, match="encoding"):
        read(source, table, encodings={"v": "float"})


def test_only_the_columns_asked_for_are_read(source, fill):
    # names that DynamoDB reserves
    table = fill([{"name": {"S": "a"}, "size": {"N": "1"}}])
    assert read(source, table, columns=("id", "size")) == [{"id": "0", "size": "1"}]
    with pytest.raises(ValidationError, match="id"):
        read(source, table, columns=("size",))


def test_segments_are_of_the_target_size_and_hold_each_item_once(source, fill):
    table = fill([{"n": {"N": str(n)}} for n in range(1000)])
    plan = planned(source, table, target_slice_rows=130)
    assert len(plan.slices) == 8
    assert plan.resumable
    assert [row["n"] for row in read(source, table, plan)] == [str(n) for n in range(1000)]


def test_the_key_comes_first_and_is_known_without_items(source, server):
    server.create_table("only-a-key", "tenant:S", "at:N")
    unit = source.describe_unit(UnitId("only-a-key"))
    assert unit.primary_key == ("tenant", "at")
    assert [(c.name, c.native_type) for c in unit.columns[:2]] == [("tenant", "S"), ("at", "N")]


def test_a_table_that_is_dropped_is_a_change(source, fill, server):
    table = fill([{}])
    unit, plan = source.describe_unit(UnitId(table)), planned(source, table)
    client = server.client()
    client.delete_table(TableName=table)
    client.close()
    with pytest.raises(SourceChangedError):
        list(source.read(unit, plan.slices[0], IngestionPolicy()))
    with pytest.raises(SourceChangedError):
        make_plan(source, unit, None, IngestionPolicy())


# --- incremental -----------------------------------------------------------------------------


def incremental(
    source: DynamoSource, table: str, after: IngestionPlan | None = None, **policy: Any
) -> IngestionPlan:
    checkpoint = None
    if after is not None:
        checkpoint = Checkpoint(
            cursor=after.slices[-1].cursor_after,
            cursor_column=after.cursor_column,
            details=after.statistics["checkpointDetails"],
        )
    chosen = IngestionPolicy(run_mode=RunMode.INCREMENTAL, **{"cursor_column": "at", **policy})
    return make_plan(source, source.describe_unit(UnitId(table)), checkpoint, chosen)


def ids(source: DynamoSource, table: str, plan: IngestionPlan) -> list[int]:
    return [int(row["id"]) for row in read(source, table, plan, columns=("id",))]


@pytest.mark.parametrize("form", [lambda n: {"N": str(n - 50)}, lambda n: {"S": f"2024-{n:04}"}])
def test_an_incremental_run_reads_what_is_new_and_no_more(source, server, form):
    table = f"incremental-{next(iter(form(0)))}"
    server.create_table(table, "id:N")
    server.put(table, [{"id": {"N": str(n)}, "at": form(n)} for n in range(100)])
    first = incremental(source, table, target_slice_rows=30)
    assert not first.resumable
    assert {s.cursor_after for s in first.slices[:-1]} == {None}
    assert ids(source, table, first) == list(range(100))
    assert incremental(source, table, first).slices == ()
    server.put(table, [{"id": {"N": str(n)}, "at": form(n)} for n in range(100, 107)])
    assert ids(source, table, incremental(source, table, first)) == list(range(100, 107))


def test_items_without_a_cursor_are_read_once(source, fill, server):
    table = fill([*({"at": {"N": str(n)}} for n in range(50)), {}])
    server.put(table, [{"id": {"N": "51"}, "at": {"NULL": True}}])
    first = incremental(source, table)
    assert ids(source, table, first) == list(range(52))
    assert first.statistics["checkpointDetails"] == {"nullRows": 2}
    ignoring = incremental(source, table, null_cursor=NullCursor.IGNORE)
    assert ids(source, table, ignoring) == list(range(50))
    with pytest.raises(NullCursorError, match=r"2 item"):
        incremental(source, table, null_cursor=NullCursor.REFUSE)
    server.put(table, [{"id": {"N": "52"}}])
    with pytest.raises(NullCursorError, match=r"3 item"):
        incremental(source, table, first)


def test_a_look_back_reads_late_items(source, fill, server):
    table = fill([{"at": {"N": str(n)}} for n in range(50)])
    first = incremental(source, table)
    server.put(table, [{"id": {"N": "1000"}, "at": {"N": "47"}}])
    plan = incremental(source, table, first, late_commits=LateCommits.LOOKBACK, lookback=5)
    assert ids(source, table, plan) == [45, 46, 47, 48, 49, 1000]
    assert plan.slices[0].dedupe_on == ("id", "at")
    assert plan.slices[-1].cursor_after == "49"


@pytest.mark.parametrize("name", [None, "nowhere", "mixed", "flag"])
def test_a_column_that_cannot_be_a_cursor_is_refused(source, fill, name):
    table = fill([{"mixed": {"S": "1"}, "flag": {"BOOL": True}}, {"mixed": {"N": "1"}}])
    with pytest.raises(PlanError, match="candidates: id"):
        incremental(source, table, cursor_column=name)


def test_a_checkpoint_of_another_kind_is_refused(source, fill):
    table = fill([{"at": {"N": "1"}}])
    policy = IngestionPolicy(run_mode=RunMode.INCREMENTAL, cursor_column="at")
    with pytest.raises(PlanError, match="reset the checkpoint"):
        make_plan(
            source,
            source.describe_unit(UnitId(table)),
            Checkpoint(cursor="no number", cursor_column="at"),
            policy,
        )

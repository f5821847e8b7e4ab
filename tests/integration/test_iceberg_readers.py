"""Iceberg tables of ours are ordinary: PyIceberg, Daft and DuckDB read the same exact rows."""

from __future__ import annotations

import random
import uuid
from decimal import Decimal

import daft
import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from pyiceberg import expressions as ex
from pyiceberg.table import Table

from matih_ray.model.fingerprint import Fingerprint
from matih_ray.settings import Settings
from matih_ray.sinks import rolling_parquet as files_module
from matih_ray.sinks.base import PreparedTarget
from matih_ray.sinks.iceberg import IcebergSink
from matih_ray.sinks.iceberg.catalog import CatalogConfig, open_catalog
from matih_ray.testing.contracts.sink_lab import TENANT, marker, target, write

INFINITE_MICROS = 2**63 - 1
INFINITE_DAYS = 2**31 - 1


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(home=tmp_path_factory.mktemp("lake"))


def loaded(settings: Settings, batches: list[pa.RecordBatch], **wanted) -> Table:
    sink = IcebergSink.from_settings(settings, TENANT)
    prepared = sink.prepare(target(schema=batches[0].schema, **wanted))
    sink.commit(prepared, [write(sink, prepared, batches)], marker(1))
    return table_of(settings, prepared)


def table_of(settings: Settings, prepared: PreparedTarget) -> Table:
    identifier = tuple(prepared.payload["identifier"])
    return open_catalog(CatalogConfig.from_settings(settings)).load_table(identifier)


def paths(table: Table) -> list[str]:
    return [task.file.file_path for task in table.scan().plan_files()]


def infinite(kind: pa.DataType) -> pa.Array:
    bits, end = (
        (pa.int32(), INFINITE_DAYS) if kind == pa.date32() else (pa.int64(), INFINITE_MICROS)
    )
    return pa.array([end, None, -end], bits).cast(kind)


COLUMNS = {
    "flag": pa.array([True, None, False]),
    "small": pa.array([32767, None, -32768], pa.int16()),
    "int": pa.array([2**31 - 1, None, -(2**31)], pa.int32()),
    "big": pa.array([2**63 - 1, None, -(2**63)], pa.int64()),
    "unsigned": pa.array([2**32 - 1, None, 0], pa.uint32()),
    "huge": pa.array([2**64 - 1, None, 0], pa.uint64()),
    "real": pa.array([1.5, None, float("-inf")], pa.float32()),
    "double": pa.array([float("inf"), None, -0.0]),
    "price": pa.array([Decimal("-1.23"), None, Decimal("9999999.99")], pa.decimal128(9, 2)),
    "amount": pa.array([Decimal("-0.000001"), None, Decimal("1e11")], pa.decimal128(18, 6)),
    "exact": pa.array([Decimal("-" + "9" * 38), None, Decimal(1)], pa.decimal128(38, 0)),
    "day": infinite(pa.date32()),
    "at": infinite(pa.timestamp("us")),
    "utc": infinite(pa.timestamp("us", "UTC")),
    "berlin": pa.array([1, None, 2], pa.timestamp("ms", "Europe/Berlin")),
    "time": pa.array([0, None, 86_399_999_999], pa.time64("us")),
    "text": pa.array(["", None, "é\0\U0001f600"]),
    "raw": pa.array([b"", None, b"\x00\xff"]),
    "fixed": pa.array([b"abc", None, b"xyz"], pa.binary(3)),
    "who": pa.array([uuid.UUID(int=1).bytes, None, uuid.UUID(int=2**128 - 1).bytes], pa.uuid()),
    "numbers": pa.array([[1, None], None, []], pa.list_(pa.int32())),
    "deep": pa.array([[["a"], None], None, [[]]], pa.list_(pa.list_(pa.string()))),
    "pair": pa.array(
        [{"x": 1, "y y": None}, None, {"x": None, "y y": "z"}],
        pa.struct([("x", pa.int64()), ("y y", pa.string())]),
    ),
    "map": pa.array([[("k", 1)], None, [("l", None)]], pa.map_(pa.string(), pa.int64())),
    'odd "name".x': pa.array([1, None, 3]),
    "few": pa.array(["a", None, "b"]).dictionary_encode(),
}


@pytest.fixture(scope="module")
def rows() -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(COLUMNS)


@pytest.fixture(scope="module")
def table(settings: Settings, rows: pa.RecordBatch) -> Table:
    return loaded(settings, [rows])


@pytest.mark.parametrize("column", COLUMNS)
def test_every_type_reads_back_exactly(table, rows, column):
    found = table.scan(selected_fields=(column,)).to_arrow().to_batches()[0]
    assert Fingerprint().add(found) == Fingerprint().add(rows.select([column]))


def test_daft_reads_the_same_rows(table):
    ours = table.scan().to_arrow()
    theirs = daft.read_iceberg(table).to_arrow()
    assert theirs.column_names == ours.column_names
    for name in ours.column_names:
        assert theirs[name].equals(ours[name].cast(theirs[name].type)), name


def test_duckdb_reads_the_files(table):
    reader = duckdb.sql(f"select * from read_parquet({paths(table)})")
    kinds = dict(zip(reader.columns, map(str, reader.types), strict=True))
    assert kinds["exact"] == "DECIMAL(38,0)"
    assert kinds["huge"] == "DECIMAL(20,0)"
    assert kinds["who"] == "UUID"
    assert kinds["odd_x20_x22name_x22_x2Ex"] == "BIGINT"
    wanted = (
        "flag, small, unsigned, huge, price, amount, exact, text, raw, who, numbers, pair.y_x20y, "
        "day = 'infinity'::date, \"at\" = 'infinity'::timestamp, utc = 'infinity'::timestamptz"
    )
    files = f"read_parquet({paths(table)})"
    first = duckdb.sql(f"select {wanted} from {files} where flag").fetchall()[0]
    assert first == (
        True, 32767, 2**32 - 1, 2**64 - 1, Decimal("-1.23"), Decimal("-0.000001"),
        Decimal("-" + "9" * 38), "", b"", uuid.UUID(int=1), [1, None], None, True, True, True,
    )  # fmt: skip
    last = duckdb.sql(
        f"select text, day = '-infinity'::date, \"at\" = '-infinity'::timestamp "
        f"from {files} where not flag"
    ).fetchall()[0]
    assert last == ("é\0\U0001f600", True, True)


def test_files_carry_the_tables_field_ids(table):
    (path,) = paths(table)
    parquet = pq.read_schema(path.removeprefix("file://"))
    assert [int(field.metadata[b"PARQUET:field_id"]) for field in parquet] == [
        field.field_id for field in table.schema().fields
    ]
    assert parquet.metadata is None or b"ARROW:schema" not in parquet.metadata


def test_statistics_are_complete(table):
    (task,) = table.scan().plan_files()
    file = task.file
    assert file.record_count == 3
    ids = {field.name: field.field_id for field in table.schema().fields}
    assert file.null_value_counts[ids["text"]] == 1
    assert file.value_counts[ids["text"]] == 3
    assert set(file.column_sizes) >= {ids["text"], ids["big"]}
    assert len(file.split_offsets) == 1
    end = INFINITE_MICROS.to_bytes(8, "little", signed=True)
    assert file.upper_bounds[ids["utc"]] == end
    assert file.lower_bounds[ids["day"]] == (-INFINITE_DAYS).to_bytes(4, "little", signed=True)
    assert ids["numbers"] not in file.lower_bounds


def test_bounds_never_hide_a_value_that_parquet_left_out_of_its_own(settings, monkeypatch):
    monkeypatch.setattr(files_module, "ROW_GROUP_BYTES", 1)
    short = pa.RecordBatch.from_pydict({"s": ["a", "b"]})
    long = pa.RecordBatch.from_pydict({"s": ["z" * 10_000]})
    table = loaded(settings, [short, long])
    assert pq.read_metadata(paths(table)[0].removeprefix("file://")).num_row_groups == 2
    assert table.scan(row_filter="s > 'y'").to_arrow()["s"].to_pylist() == ["z" * 10_000]


def value_columns(rng: random.Random, rows: int) -> dict[str, pa.Array]:
    """Clustered values, so that files and row groups differ, with NULLs and extremes."""

    def some(make, kind):
        return pa.array([None if rng.random() < 0.1 else make(n) for n in range(rows)], kind)

    ends = [INFINITE_MICROS, -INFINITE_MICROS]
    return {
        "id": some(lambda n: n, pa.int64()),
        "at": some(lambda n: rng.choice(ends) if n % 97 == 0 else n * 2 * 10**8, pa.int64()).cast(
            pa.timestamp("us", "UTC")
        ),
        "day": some(lambda n: INFINITE_DAYS if n % 89 == 0 else n // 7, pa.int32()).cast(
            pa.date32()
        ),
        "price": some(lambda n: Decimal(n - rows // 2).scaleb(-3), pa.decimal128(18, 3)),
        "real": some(lambda n: float("nan") if n % 31 == 0 else n / 3, pa.float64()),
        "text": some(
            lambda n: chr(97 + n * 20 // rows) * (5_000 if n % 41 == 0 else 20), pa.string()
        ),
    }


# Filters for infinity itself are left out: PyIceberg cannot compute the partition of that literal.
LITERALS = {
    "id": lambda rng, rows: rng.randrange(rows),
    "at": lambda rng, rows: rng.randrange(rows) * 2 * 10**8,
    "day": lambda rng, rows: rng.randrange(rows) // 7,
    "price": lambda rng, rows: Decimal(rng.randrange(-rows, rows)).scaleb(-3),
    "real": lambda rng, rows: rng.random() * rows / 3,
    "text": lambda rng, rows: chr(97 + rng.randrange(20)) * rng.choice([1, 20, 5_000]),
}
COMPARISONS = {
    ex.GreaterThanOrEqual: pc.greater_equal,
    ex.GreaterThan: pc.greater,
    ex.LessThan: pc.less,
    ex.LessThanOrEqual: pc.less_equal,
    ex.EqualTo: pc.equal,
}


@pytest.mark.parametrize(
    "partition_by",
    [
        (),
        ("day(at)",),
        ("year(day)", "truncate(1, text)"),
        ("bucket(3, id)", "bucket(2, price)"),
        ("truncate(500, id)", "hour(at)"),
    ],
    ids=str,
)
def test_no_filter_prunes_a_row_that_matches(settings, partition_by, seed, monkeypatch):
    """Pruning by partitions, files and row groups against the same filter on all rows."""
    monkeypatch.setattr(files_module, "ROW_GROUP_BYTES", 20_000)
    monkeypatch.setattr(files_module, "PARTITIONED_BYTES", 200_000)
    rng, rows = random.Random(seed), 2_000
    batch = pa.RecordBatch.from_pydict(value_columns(rng, rows))
    pieces = [batch.slice(start, 100) for start in range(0, rows, 100)]
    table = loaded(settings, pieces, partition_by=partition_by)
    assert table.scan().count() == rows
    for column, make in LITERALS.items():
        for build, compare in COMPARISONS.items():
            literal = make(rng, rows)
            kind = batch.schema.field(column).type
            temporal = pa.types.is_temporal(kind)
            bits = pa.int32() if kind == pa.date32() else pa.int64()
            scalar = pa.scalar(literal, bits).cast(kind) if temporal else pa.scalar(literal, kind)
            expected = batch.filter(compare(batch[column], scalar))
            found = table.scan(row_filter=build(column, literal)).to_arrow()
            assert _print(found) == _print(expected), (column, build.__name__, literal)
    for column in LITERALS:
        found = table.scan(row_filter=ex.IsNull(column)).to_arrow()
        assert found.num_rows == batch[column].null_count


def _print(table) -> Fingerprint:
    total = Fingerprint()
    batches = table.to_batches() if isinstance(table, pa.Table) else [table]
    for batch in batches:
        total = total.add(batch)
    return total

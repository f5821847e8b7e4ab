"""The core of the SQL warehouses under the source contract, with a small dialect of DuckDB: keys
that repeat and have NULLs, as warehouses allow, and cursors of every kind of bound.

DuckDB does not know keys that it does not enforce; here a table's comment declares one.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import ClassVar

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matih_ray.errors import (
    NullCursorError,
    PlanError,
    SourceChangedError,
    SourceRejectedError,
    UnknownUnitError,
    UnrepresentableValueError,
    ValidationError,
)
from matih_ray.model.checkpoint import Checkpoint
from matih_ray.model.ids import EndpointId, TenantId, UnitId
from matih_ray.model.plan import IngestionPlan, IngestionSlice
from matih_ray.model.policy import IngestionPolicy, LateCommits, NullCursor, RunMode
from matih_ray.model.unit import Fidelity
from matih_ray.model.value import Value
from matih_ray.sources.base import ConnectionTest, EndpointSpec
from matih_ray.sources.slices import keyed_slice
from matih_ray.sources.sql.bounds import is_bound, minus
from matih_ray.sources.sql.dialect import BoundKind, SqlColumn, SqlRelation, TypeMapping
from matih_ray.sources.sql.full import plan_full
from matih_ray.sources.sql.incremental import OPEN_WRITES_NOTE
from matih_ray.sources.sql.probing import TableProbe
from matih_ray.sources.sql.slices import NullSlice, RangeSlice, condition, parse
from matih_ray.sources.sql.source import SqlSource
from matih_ray.sources.sql.table import Table
from matih_ray.testing.contracts.source import SourceCase, SourceContract

SIMPLE = {
    "BIGINT": (pa.int64(), BoundKind.INTEGER),
    "INTEGER": (pa.int32(), BoundKind.INTEGER),
    "DATE": (pa.date32(), BoundKind.DATE),
    "TIMESTAMP": (pa.timestamp("us"), BoundKind.TIMESTAMP),
    "TIMESTAMP_NS": (pa.timestamp("ns"), BoundKind.TIMESTAMP),
    "TIMESTAMP WITH TIME ZONE": (pa.timestamp("us", "UTC"), BoundKind.TIMESTAMP_TZ),
    "VARCHAR": (pa.string(), BoundKind.TEXT),
    "BLOB": (pa.binary(), BoundKind.BINARY),
    "DOUBLE": (pa.float64(), None),
}
NAMES = "SELECT table_schema, table_name FROM information_schema.tables"
KEYS = "SELECT schema_name, table_name, comment FROM duckdb_tables()"
COLUMNS = """
    SELECT column_name, data_type, is_nullable = 'YES' FROM information_schema.columns
    WHERE table_schema = ? AND table_name = ? ORDER BY ordinal_position
"""


class DuckDialect:
    def quoted(self, name: str) -> str:
        return '"' + name.replace('"', '""') + '"'

    def identifier(self, relation: SqlRelation) -> str:
        return f"{self.quoted(relation.schema)}.{self.quoted(relation.name)}"

    def literal(self, kind: BoundKind, text: str) -> str:
        if kind in (BoundKind.INTEGER, BoundKind.DECIMAL):
            return text
        if kind is BoundKind.BINARY:
            return f"from_hex('{text}')"
        escaped = text.replace("'", "''")
        types = {
            BoundKind.DATE: "DATE",
            BoundKind.TIMESTAMP: "TIMESTAMP_NS",
            BoundKind.TIMESTAMP_TZ: "TIMESTAMPTZ",
            BoundKind.TEXT: "VARCHAR",
        }
        zone = "+00" if kind is BoundKind.TIMESTAMP_TZ else ""
        return f"CAST('{escaped}{zone}' AS {types[kind]})"

    def mapping(self, native_type: str) -> TypeMapping:
        if native_type.startswith("DECIMAL("):
            precision, scale = native_type[len("DECIMAL(") : -1].split(",")
            arrow = pa.decimal128(int(precision), int(scale))
            return TypeMapping(arrow, Fidelity.EXACT, bound=BoundKind.DECIMAL)
        if native_type in SIMPLE:
            arrow, bound = SIMPLE[native_type]
            return TypeMapping(arrow, Fidelity.EXACT, bound=bound)
        return self.overridden(native_type, "text", "")

    def overridden(self, native_type: str, encoding: str, column: str) -> TypeMapping:
        if encoding != "text":
            raise ValidationError(f"{column}: {native_type} has the encodings: text")
        return TypeMapping(pa.string(), Fidelity.ENCODED, "text", "CAST({} AS VARCHAR)")


class DuckSession:
    def __init__(self, path: Path) -> None:
        self._connection = duckdb.connect(str(path))

    def names(self) -> Sequence[tuple[str, str]]:
        return self._connection.execute(NAMES).fetchall()

    def relations(self, names: Sequence[tuple[str, str]]) -> Sequence[SqlRelation]:
        existing = set(self.names())
        keys = {tuple(row[:2]): row[2] for row in self._connection.execute(KEYS).fetchall()}
        return [
            SqlRelation(
                *name,
                kind="table" if name in keys else "view",
                columns=tuple(
                    SqlColumn(*row) for row in self._connection.execute(COLUMNS, name).fetchall()
                ),
                primary_key=tuple((keys.get(name) or "").split()),
            )
            for name in names
            if name in existing
        ]

    def batches(self, statement: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        try:
            with self._connection.cursor() as cursor:
                for batch in cursor.sql(statement).to_arrow_reader(1000):
                    columns = [c.cast(f.type) for c, f in zip(batch.columns, schema, strict=True)]
                    yield pa.RecordBatch.from_arrays(columns, schema=schema)
        except (duckdb.CatalogException, duckdb.BinderException) as error:
            raise SourceChangedError(str(error)) from None
        except duckdb.Error as error:
            raise SourceRejectedError(str(error)) from None

    def close(self) -> None:
        self._connection.close()


class DuckConfig(Value):
    path: str


class DuckSource(SqlSource):
    type: ClassVar[str] = "DUCKDB"
    vendor: ClassVar[str] = "jdbc.duckdb"
    config_model: ClassVar[type[Value]] = DuckConfig
    secret_fields: ClassVar[tuple[str, ...]] = ("password",)

    def __init__(self, spec: EndpointSpec) -> None:
        super().__init__(spec)
        self._path = Path(DuckConfig.from_json(dict(spec.config)).path)

    @property
    def dialect(self) -> DuckDialect:
        return DuckDialect()

    def open_session(self) -> DuckSession:
        return DuckSession(self._path)

    def ping(self) -> ConnectionTest:
        started = time.monotonic()
        self.open_session().close()
        return ConnectionTest((time.monotonic() - started) * 1000, duckdb.__version__)


TABLES = """
    CREATE TABLE sales (
        region VARCHAR, id BIGINT, amount DECIMAL(20,3) NOT NULL, day DATE NOT NULL,
        made TIMESTAMP NOT NULL, seen TIMESTAMPTZ, hash BLOB NOT NULL,
        ratio DOUBLE, note VARCHAR
    );
    INSERT INTO sales
    SELECT CASE WHEN i % 50 = 0 THEN NULL WHEN i % 3 = 0 THEN 'north ''1' ELSE 'Süd' END,
           CASE WHEN i % 70 = 0 THEN NULL ELSE i // 4 END, i / 7, DATE '2024-01-01' + (i // 9)::INT,
           TIMESTAMP '2024-01-01' + to_microseconds(i * 999983 * 10),
           CASE WHEN i % 1000 = 7 THEN NULL
                ELSE CAST(TIMESTAMP '2024-01-01' + to_minutes(i // 10) AS TIMESTAMPTZ) END,
           unhex(md5(i::VARCHAR)), i / 3, repeat('x', (i % 20)::INT)
    FROM range(4000) t(i);
    COMMENT ON TABLE sales IS 'region id';
    CREATE TABLE exact (id DECIMAL(38,0) NOT NULL, note VARCHAR);
    INSERT INTO exact SELECT 99999999999999999999999999999999999990::DECIMAL(38,0) - i, 'x'
    FROM range(3000) t(i);
    COMMENT ON TABLE exact IS 'id';
    CREATE TABLE skewed (id BIGINT NOT NULL, n BIGINT);
    INSERT INTO skewed SELECT CASE WHEN i < 2500 THEN 7 ELSE i END, i FROM range(3000) t(i);
    COMMENT ON TABLE skewed IS 'id';
    CREATE TABLE nothing (id BIGINT NOT NULL, note VARCHAR);
    COMMENT ON TABLE nothing IS 'id';
    CREATE TABLE "a ""table"".1" ("a ""column"" x" BIGINT NOT NULL, "{}" UUID);
    INSERT INTO "a ""table"".1" SELECT i, uuid() FROM range(10) t(i);
    CREATE TABLE fine (at_ns TIMESTAMP_NS NOT NULL);
    INSERT INTO fine
    SELECT make_timestamp_ns(1704067200000000000 + i * 7) FROM range(3000) t(i);
    COMMENT ON TABLE fine IS 'at_ns';
    CREATE VIEW doubled AS SELECT * FROM exact UNION ALL SELECT * FROM exact;
"""


def by(cursor: str, **choices: object) -> IngestionPolicy:
    return IngestionPolicy(run_mode=RunMode.INCREMENTAL, cursor_column=cursor, **choices)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "shop.duckdb"
    execute(path, TABLES)
    return path


def execute(path: Path, statement: str) -> None:
    with duckdb.connect(str(path)) as connection:
        connection.execute(statement)


def source_of(path: Path) -> DuckSource:
    return DuckSource(
        EndpointSpec(
            tenant_id=TenantId("tenant"),
            endpoint_id=EndpointId("endpoint"),
            name="test",
            type="DUCKDB",
            config={"path": str(path)},
            secrets={"password": "a password nobody may see"},
        )
    )


def case_of(path: Path, unit_id: str, *policies: IngestionPolicy) -> SourceCase:
    return SourceCase(
        build=lambda: source_of(path),
        unit_id=unit_id,
        unknown_unit_id="main.nowhere",
        empty_unit_id="main.nothing",
        target_rows=700,
        policies=policies or (IngestionPolicy(),),
        secret="a password nobody may see",
    )


class DuckContract(SourceContract):
    test_abandoning_a_read_frees_the_connection = None  # in process: there is no connection


class TestKeyOfTwoColumnsThatRepeatAndHaveNulls(DuckContract):
    @pytest.fixture
    def case(self, path: Path) -> SourceCase:
        ignoring = by("seen", null_cursor=NullCursor.IGNORE, late_commits=LateCommits.IGNORE)
        return case_of(path, "main.sales", IngestionPolicy(), by("seen"), ignoring)


class TestCursorsOfEveryKind(DuckContract):
    @pytest.fixture
    def case(self, path: Path) -> SourceCase:
        names = ("amount", "day", "made", "hash", "id", "region")
        return case_of(path, "main.sales", *map(by, names))


class TestDecimalKey(DuckContract):
    @pytest.fixture
    def case(self, path: Path) -> SourceCase:
        return case_of(path, "main.exact")


class TestViewByItsCursor(DuckContract):
    @pytest.fixture
    def case(self, path: Path) -> SourceCase:
        return case_of(path, "main.doubled", by("id"))


@pytest.fixture
def source(path: Path) -> Iterator[DuckSource]:
    source = source_of(path)
    yield source
    source.close()


def planned(
    source: DuckSource,
    unit_id: str,
    policy: IngestionPolicy,
    rows: int = 700,
    checkpoint: Checkpoint | None = None,
) -> IngestionPlan:
    unit = source.describe_unit(UnitId(unit_id))
    return source.plan_incremental_slices(unit, checkpoint, policy, rows)


def read(
    source: DuckSource, unit_id: str, slice_: IngestionSlice, policy: IngestionPolicy
) -> pa.Table:
    unit = source.describe_unit(UnitId(unit_id))
    batches = source.read(unit, slice_, policy)
    return pa.Table.from_batches(batches, source.read_schema(unit, policy))


def test_slices_of_a_key_without_repeats_have_exactly_the_rows_asked_for(source: DuckSource):
    plan = planned(source, "main.exact", IngestionPolicy(exact_count=True))
    sizes = [read(source, "main.exact", s, IngestionPolicy()).num_rows for s in plan.slices]
    assert sizes == [700, 700, 700, 700, 200] == [s.estimated_rows for s in plan.slices]
    assert plan.statistics["totalRows"] == plan.statistics["exactRows"] == 3000


def test_a_key_of_nanoseconds_is_cut_between_them(source: DuckSource):
    plan = planned(source, "main.fine", IngestionPolicy(), rows=1000)
    assert plan.slices[1].params["lower"] == ["2024-01-01 00:00:00.000006993"]
    sizes = [read(source, "main.fine", s, IngestionPolicy()).num_rows for s in plan.slices]
    assert sizes == [1000, 1000, 1000]


def test_a_boundary_that_repeats_is_one_boundary(source: DuckSource):
    plan = planned(source, "main.skewed", IngestionPolicy(), rows=500)
    sizes = [read(source, "main.skewed", s, IngestionPolicy()).num_rows for s in plan.slices]
    assert sizes == [2500, 500]


def test_a_table_without_a_key_is_one_slice_and_the_plan_says_so(source: DuckSource):
    plan = planned(source, 'main."a ""table"".1"', IngestionPolicy())
    assert [s.params["columns"] for s in plan.slices] == [[]]
    assert "no declared primary key" in plan.notes[0]


def test_awkward_names_are_read(source: DuckSource):
    found = read(source, 'main."a ""table"".1"', keyed_slice(0, RangeSlice()), IngestionPolicy())
    assert found.column_names == ['a "column" x', "{}"]
    assert found.column(0).to_pylist() == list(range(10))
    assert all(len(text) == 36 for text in found.column(1).to_pylist())


def test_a_unit_id_has_one_spelling(source: DuckSource):
    for other in ('main."exact"', "main.exact.x", "exact", 'main."a table'):
        with pytest.raises(UnknownUnitError):
            source.describe_unit(UnitId(other))


def test_a_changed_column_between_plan_and_read_is_said(path: Path, source: DuckSource):
    policy = IngestionPolicy()
    unit = source.describe_unit(UnitId("main.skewed"))
    (slice_, *_) = source.plan_incremental_slices(unit, None, policy, 500).slices
    source.close()
    execute(path, "ALTER TABLE skewed ALTER n TYPE VARCHAR")
    with pytest.raises(SourceChangedError, match=r"'n' of main.skewed was BIGINT .* VARCHAR now"):
        list(source.read(unit, slice_, policy))
    source.close()
    execute(path, "ALTER TABLE skewed DROP n")
    with pytest.raises(SourceChangedError, match=r"'n' of main.skewed is gone"):
        list(source.read(unit, slice_, policy))
    source.close()
    execute(path, "DROP TABLE skewed")
    with pytest.raises(SourceChangedError, match=r"main.skewed is gone"):
        list(source.read(unit, slice_, policy))


def test_an_incremental_run_says_what_it_cannot_see(source: DuckSource):
    assert OPEN_WRITES_NOTE in planned(source, "main.sales", by("day")).notes
    ignoring = by("day", late_commits=LateCommits.IGNORE)
    assert OPEN_WRITES_NOTE not in planned(source, "main.sales", ignoring).notes


def test_a_look_back_reads_again_and_compares_whole_rows(source: DuckSource):
    policy = by("day", late_commits=LateCommits.LOOKBACK, lookback=86_400.0)
    plan = planned(source, "main.sales", policy, checkpoint=Checkpoint(cursor="2024-02-10"))
    first = plan.slices[0]
    assert (first.params["lower"], first.params["upper"]) == (["2024-02-09"], ["2024-02-10"])
    assert first.cursor_after is None
    assert first.dedupe_on == (
        "region", "id", "amount", "day", "made", "seen", "hash", "ratio", "note"
    )  # fmt: skip
    days = read(source, "main.sales", first, policy).column("day").unique().to_pylist()
    assert [day.isoformat() for day in days] == ["2024-02-10"]


def test_nothing_new_is_an_empty_plan(source: DuckSource):
    plan = planned(source, "main.exact", by("id"), checkpoint=Checkpoint(cursor="9" * 38))
    assert plan.slices == ()


def test_rows_without_a_cursor_are_loaded_once_and_noticed_later(path: Path, source: DuckSource):
    first = planned(source, "main.sales", by("seen"))
    assert first.slices[0].params == {"kind": "null", "columns": ["seen"]}
    assert read(source, "main.sales", first.slices[0], by("seen")).num_rows == 4
    with pytest.raises(NullCursorError, match="4 row"):
        planned(source, "main.sales", by("seen", null_cursor=NullCursor.REFUSE))
    after = Checkpoint(cursor=first.slices[-1].cursor_after, details={"nullRows": 4})
    assert planned(source, "main.sales", by("seen"), checkpoint=after).slices == ()
    source.close()
    execute(path, "UPDATE sales SET seen = NULL WHERE id = 100")
    with pytest.raises(NullCursorError, match=r"4 row.* 8 have none now"):
        planned(source, "main.sales", by("seen"), checkpoint=after)


@pytest.mark.parametrize("cursor", [5, "x", "1 OR 1=1", "2024-01-01 00:00:00"])
def test_a_cursor_that_is_not_a_value_of_the_column_is_refused(source: DuckSource, cursor):
    with pytest.raises(PlanError, match="reset the checkpoint"):
        planned(source, "main.sales", by("day"), checkpoint=Checkpoint(cursor=cursor))


@pytest.mark.parametrize("cursor", ["ratio", "nowhere", None])
def test_a_column_that_cannot_be_a_cursor_is_refused(source: DuckSource, cursor):
    with pytest.raises(PlanError, match="candidates: id, amount, day, made, seen"):
        planned(source, "main.sales", by(cursor))


@pytest.mark.parametrize("bound", ["0 OR 1=1", "1.5", "'1'", ""])
def test_a_bound_becomes_sql_only_in_its_form(source: DuckSource, bound):
    params = RangeSlice(columns=("id",), upper=(bound,))
    with pytest.raises(ValidationError, match="not a value of BIGINT"):
        read(source, "main.skewed", keyed_slice(0, params), IngestionPolicy())


def test_a_bound_of_the_wrong_length_is_refused(source: DuckSource):
    params = RangeSlice(columns=("id",), upper=("1", "2"))
    with pytest.raises(ValidationError, match="one value for each column"):
        read(source, "main.skewed", keyed_slice(0, params), IngestionPolicy())


def test_a_value_without_a_form_is_refused_by_name(path: Path, source: DuckSource):
    execute(path, "CREATE VIEW far AS SELECT DATE '9999-12-30' + i::INT AS day FROM range(9) r(i)")
    with pytest.raises(UnrepresentableValueError, match="'day' holds"):
        planned(source, "main.far", by("day"), rows=2)


def test_policies_that_do_not_fit_are_refused(source: DuckSource):
    for policy in (
        IngestionPolicy(columns=("id",)),  # without a column of the key
        IngestionPolicy(columns=()),
        IngestionPolicy(columns=("region", "id", "other")),
        IngestionPolicy(encodings={"id": "base64"}),
        IngestionPolicy(filter={"id": 1}),
    ):
        with pytest.raises(ValidationError):
            planned(source, "main.sales", policy)
    with pytest.raises(PlanError, match="no cdc mode"):
        planned(source, "main.sales", IngestionPolicy(run_mode=RunMode.CDC))


def test_columns_and_encodings_are_chosen_by_the_policy(source: DuckSource):
    policy = IngestionPolicy(columns=("id", "region", "made"), encodings={"made": "text"})
    params = NullSlice(columns=("id",))
    found = read(source, "main.sales", keyed_slice(0, params), policy)
    assert found.schema == pa.schema(
        [("region", pa.string()), ("id", pa.int64()), ("made", pa.string())]
    )
    assert found.num_rows == len(range(0, 4000, 70))


ROWS = st.lists(
    st.tuples(
        st.none() | st.integers(-2, 2),
        st.none() | st.sampled_from(["", " ", "a", "A", "ä", "'", "\\", "b"]),
        st.none() | st.dates(),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, target_rows=st.integers(1, 6), key=st.permutations("abc"), size=st.integers(1, 3))
def test_slices_are_disjoint_and_cover_whatever_the_key_holds(rows, target_rows, key, size):
    with closing(DuckSession(Path(":memory:"))) as session:
        session._connection.execute("CREATE TABLE t (a BIGINT, b VARCHAR, c DATE)")
        session._connection.execute(f"COMMENT ON TABLE t IS '{' '.join(key[:size])}'")
        if rows:
            session._connection.executemany("INSERT INTO t VALUES (?, ?, ?)", rows)
        (relation,) = session.relations([("main", "t")])
        table = Table(DuckDialect(), relation)
        unit = table.unit(EndpointId("endpoint"))
        plan = plan_full(TableProbe(session, table), unit, target_rows)
        found = [
            row
            for slice_ in plan.slices
            for row in session._connection.execute(
                f"SELECT * FROM t WHERE {condition(parse(slice_), table)}"
            ).fetchall()
        ]
        assert Counter(found) == Counter(rows)


@pytest.mark.parametrize(
    ("kind", "text", "lookback", "expected"),
    [
        (BoundKind.INTEGER, "10", 2.5, "7"),
        (BoundKind.INTEGER, "-" + "9" * 30, 1.0, "-1" + "0" * 30),
        (BoundKind.DECIMAL, "10.50", 0.001, "10.49"),
        (BoundKind.DATE, "2024-03-01", 1.0, "2024-02-29"),
        (BoundKind.DATE, "0001-01-01", 1e9, "0001-01-01"),
        (BoundKind.TIMESTAMP, "2024-01-01 00:00:00", 0.5, "2023-12-31 23:59:59.500000"),
        (BoundKind.TIMESTAMP, "2024-01-01 00:00:00.123456789", 1, "2023-12-31 23:59:59.123456"),
        (BoundKind.TIMESTAMP_TZ, "0001-01-01 00:00:01", 5.0, "0001-01-01 00:00:00.000000"),
        (BoundKind.TEXT, "a", 1.0, None),
        (BoundKind.BINARY, "00", 1.0, None),
    ],
)
def test_a_bound_minus_a_look_back_is_rounded_down(kind, text, lookback, expected):
    assert minus(kind, text, lookback) == expected
    assert expected is None or is_bound(kind, expected)

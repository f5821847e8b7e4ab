"""Units and plans of full runs against a real server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import psycopg2
import pytest

from matih_ray.errors import PlanError, SourceChangedError, UnknownUnitError, ValidationError
from matih_ray.model.ids import EndpointId, TenantId, UnitId
from matih_ray.model.plan import IngestionPlan, IngestionSlice
from matih_ray.model.policy import MAX_SLICES_PER_PLAN, IngestionPolicy, RunMode
from matih_ray.planning.planner import check_plan
from matih_ray.sources.base import EndpointSpec, IngestionContext
from matih_ray.sources.postgres import PostgresSource
from matih_ray.testing.devstack.postgres import PostgresServer

FULL = IngestionPolicy()

TABLES = """
CREATE TABLE skewed (customer int, line int, note text, PRIMARY KEY (customer, line));
INSERT INTO skewed SELECT CASE WHEN n <= 18000 THEN 7 ELSE n END, n, 'x'
FROM generate_series(1, 20000) n;
CREATE TABLE gaps (id bigint PRIMARY KEY);
INSERT INTO gaps SELECT n FROM generate_series(1, 9000) n UNION ALL
SELECT 1000000000000 + n FROM generate_series(1, 1000) n;
CREATE TABLE words (word text COLLATE "C" PRIMARY KEY);
INSERT INTO words SELECT md5(n::text) || E'\\\\''\\n' FROM generate_series(1, 5000) n;
CREATE TABLE ids (id uuid PRIMARY KEY, position int, total int);
INSERT INTO ids SELECT md5(n::text)::uuid, n, n FROM generate_series(1, 5000) n;
CREATE TABLE helper_names (position int, total int, slices int, k0 int,
                           PRIMARY KEY (total, position, k0));
INSERT INTO helper_names SELECT n, 1, n, n FROM generate_series(1, 5000) n;
CREATE TABLE stamps (at timestamptz PRIMARY KEY);
INSERT INTO stamps SELECT timestamptz '2024-01-01' + n * interval '1 ms'
FROM generate_series(1, 4998) n
UNION ALL VALUES (timestamptz 'infinity'), ('-infinity');
CREATE TABLE unique_only (a int NOT NULL, b int NOT NULL, c int);
INSERT INTO unique_only SELECT n, n, n FROM generate_series(1, 5000) n;
CREATE UNIQUE INDEX ON unique_only (b, a);
CREATE TABLE nullable_unique (a int UNIQUE);
INSERT INTO nullable_unique SELECT nullif(n, 5) FROM generate_series(1, 5000) n;
CREATE TABLE heap (id int, note text);
INSERT INTO heap SELECT n, repeat('x', 100) FROM generate_series(1, 5000) n;
CREATE VIEW heap_view AS SELECT * FROM heap;
CREATE MATERIALIZED VIEW heap_copy AS SELECT * FROM heap;
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE child () INHERITS (parent);
INSERT INTO parent SELECT n FROM generate_series(1, 3000) n;
INSERT INTO child SELECT n FROM generate_series(1, 3000) n;
CREATE TABLE split (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE split_1 PARTITION OF split FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
CREATE TABLE split_2 PARTITION OF split DEFAULT;
INSERT INTO split SELECT n, date '2024-01-01' + n % 60 FROM generate_series(1, 6000) n;
CREATE TABLE small (id int PRIMARY KEY);
INSERT INTO small VALUES (1);
CREATE SCHEMA hidden;
CREATE TABLE hidden.secret (id int);
CREATE ROLE reader LOGIN;
CREATE TABLE rows_of_reader (id int, owner text);
INSERT INTO rows_of_reader SELECT n, CASE WHEN n % 2 = 0 THEN 'reader' ELSE 'other' END
FROM generate_series(1, 5000) n;
ALTER TABLE rows_of_reader ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON rows_of_reader USING (owner = current_user);
GRANT SELECT ON rows_of_reader, small TO reader;
CREATE TABLE some_columns (open int, closed int);
GRANT SELECT (open) ON some_columns TO reader;
ANALYZE;
"""


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    # ANALYZE in the background would change estimates, and plans with them, between two looks.
    with PostgresServer(options={"autovacuum": "off"}) as server:
        server.execute(TABLES)
        yield server


def spec_of(server: PostgresServer, user: str = "postgres") -> EndpointSpec:
    return EndpointSpec(
        tenant_id=TenantId("tenant"),
        endpoint_id=EndpointId("endpoint"),
        name="test",
        type="POSTGRESQL",
        config={"host": server.host, "port": server.port, "database": "postgres", "user": user},
    )


@pytest.fixture
def source(server: PostgresServer) -> Iterator[PostgresSource]:
    source = PostgresSource(spec_of(server))
    yield source
    source.close()


def plan_of(
    source: PostgresSource, unit_id: str, target_rows: int, policy: IngestionPolicy = FULL
) -> IngestionPlan:
    unit = source.describe_unit(UnitId(unit_id))
    plan = source.plan_incremental_slices(unit, None, policy, target_rows)
    check_plan(plan)
    return plan


def rows_of(
    source: PostgresSource, unit_id: str, slice_: IngestionSlice, policy: IngestionPolicy = FULL
) -> list[tuple[object, ...]]:
    unit = source.describe_unit(UnitId(unit_id))
    rows: list[tuple[object, ...]] = []
    for batch in source.read(unit, slice_, policy):
        rows += zip(*(c.cast("string").to_pylist() for c in batch.columns), strict=True)
    return rows


def counts_of(source: PostgresSource, unit_id: str, plan: IngestionPlan) -> list[int]:
    return [len(rows_of(source, unit_id, slice_)) for slice_ in plan.slices]


@pytest.mark.parametrize(
    ("unit_id", "rows", "columns"),
    [
        ("public.gaps", 10_000, ["id"]),
        ("public.skewed", 20_000, ["customer", "line"]),
        ("public.words", 5_000, ["word"]),
        ("public.ids", 5_000, ["id"]),
        ("public.helper_names", 5_000, ["total", "position", "k0"]),
        ("public.stamps", 5_000, ["at"]),
        ("public.unique_only", 5_000, ["b"]),
        ("public.split", 6_000, ["id"]),
    ],
)
def test_slices_hold_the_asked_number_of_rows_however_skewed_the_key(
    source: PostgresSource, unit_id: str, rows: int, columns: list[str]
) -> None:
    plan = plan_of(source, unit_id, 1000)
    assert plan.strategy == "jdbc-range"
    assert plan.resumable
    assert plan.statistics["cutColumns"] == columns
    # These tables are small enough for the sample to hold all rows, so slices are exact.
    assert counts_of(source, unit_id, plan) == [1000] * (rows // 1000)
    assert plan.statistics["totalRows"] == rows


def test_the_first_and_last_slice_are_open(server: PostgresServer, source: PostgresSource) -> None:
    server.execute("DROP TABLE IF EXISTS grows; CREATE TABLE grows (id int PRIMARY KEY);"
                   "INSERT INTO grows SELECT generate_series(1, 5000); ANALYZE grows")  # fmt: skip
    plan = plan_of(source, "public.grows", 1000)
    assert plan.slices[0].params["lower"] is None
    assert plan.slices[-1].params["upper"] is None
    server.execute("INSERT INTO grows VALUES (-99), (99999)")
    assert sum(counts_of(source, "public.grows", plan)) == 5002


def test_a_sampled_table_is_cut_about_evenly(
    server: PostgresServer, source: PostgresSource
) -> None:
    server.execute(
        "DROP TABLE IF EXISTS wide; CREATE TABLE wide (id int PRIMARY KEY, note text);"
        "INSERT INTO wide SELECT n * 7919::bigint % 60013, repeat('x', 500)"
        "FROM generate_series(1, 60000) n;"
        "ANALYZE wide"
    )
    plan = plan_of(source, "public.wide", 6000)
    sampled = plan.statistics["sampledPercent"]
    assert isinstance(sampled, float)
    assert sampled < 50
    counts = counts_of(source, "public.wide", plan)
    assert sum(counts) == 60_000
    assert 9 <= len(counts) <= 12
    assert all(3000 < count < 9000 for count in counts), counts
    assert plan == plan_of(source, "public.wide", 6000)


@pytest.mark.parametrize(
    "unit_id", ["public.heap", "public.heap_copy", "public.nullable_unique", "public.parent"]
)
def test_tables_without_a_key_are_cut_by_pages_in_one_snapshot(
    server: PostgresServer, source: PostgresSource, unit_id: str
) -> None:
    plan = plan_of(source, unit_id, 1000)
    assert (plan.strategy, plan.resumable) == ("jdbc-ctid", False)
    assert len(plan.slices) > 3
    snapshot = source.hold_snapshot(plan)
    if unit_id == "public.heap":
        server.execute("INSERT INTO heap VALUES (0, 'new'); UPDATE heap SET note = 'moved';"
                       "DELETE FROM heap WHERE id > 4000")  # fmt: skip
    rows: Counter[tuple[object, ...]] = Counter()
    for slice_ in plan.slices:
        rows.update(rows_of(source, unit_id, snapshot.bind(slice_)))
    snapshot.close()
    expected = 6000 if unit_id == "public.parent" else 5000
    assert rows.total() == expected
    assert not [row for row in rows if "moved" in row or "new" in row]


def test_a_held_snapshot_keeps_rows_in_their_pages(
    server: PostgresServer, source: PostgresSource
) -> None:
    for unit_id, statement in (
        ("public.heap_copy", "REFRESH MATERIALIZED VIEW heap_copy"),
        ("public.heap", "ALTER TABLE heap ALTER COLUMN id TYPE bigint"),
        ("public.parent", "TRUNCATE child"),
    ):
        snapshot = source.hold_snapshot(plan_of(source, unit_id, 1000))
        with pytest.raises(psycopg2.errors.LockNotAvailable):
            server.execute(f"SET lock_timeout = 100; {statement}")
        snapshot.close()
        snapshot.close()


def test_a_slice_of_pages_is_not_read_outside_its_snapshot(source: PostgresSource) -> None:
    plan = plan_of(source, "public.heap", 1000)
    with pytest.raises(ValidationError, match="bind"):
        rows_of(source, "public.heap", plan.slices[0])
    snapshot = source.hold_snapshot(plan)
    bound = snapshot.bind(plan.slices[0])
    snapshot.close()
    with pytest.raises(SourceChangedError, match="snapshot"):
        rows_of(source, "public.heap", bound)


def test_a_partition_that_comes_after_planning_is_noticed(
    server: PostgresServer, source: PostgresSource
) -> None:
    server.execute(
        "CREATE TABLE keyless (id int) PARTITION BY LIST (id);"
        "CREATE TABLE keyless_1 PARTITION OF keyless FOR VALUES IN (1);"
        "INSERT INTO keyless SELECT 1 FROM generate_series(1, 5000); ANALYZE keyless"
    )
    plan = plan_of(source, "public.keyless", 1000)
    server.execute("CREATE TABLE keyless_2 PARTITION OF keyless FOR VALUES IN (2)")
    with pytest.raises(SourceChangedError, match="partitions"):
        source.hold_snapshot(plan)


@pytest.mark.parametrize("unit_id", ["public.heap_view", "public.small"])
def test_views_and_small_tables_are_one_slice(source: PostgresSource, unit_id: str) -> None:
    plan = plan_of(source, unit_id, 1000)
    assert (plan.strategy, len(plan.slices), plan.resumable) == ("jdbc-single", 1, True)


def test_row_level_security_applies(server: PostgresServer) -> None:
    source = PostgresSource(spec_of(server, "reader"))
    plan = plan_of(source, "public.rows_of_reader", 1000)
    assert plan.strategy == "jdbc-single"
    assert sum(counts_of(source, "public.rows_of_reader", plan)) == 2500
    source.close()


def test_a_plan_never_has_more_slices_than_allowed(source: PostgresSource) -> None:
    for unit_id in ("public.skewed", "public.heap"):
        assert 1 < len(plan_of(source, unit_id, 1).slices) <= MAX_SLICES_PER_PLAN


@pytest.mark.parametrize("target_rows", [0, -1])
def test_a_slice_size_below_one_is_refused(source: PostgresSource, target_rows: int) -> None:
    with pytest.raises(ValidationError):
        plan_of(source, "public.heap", target_rows)


def test_what_the_source_cannot_do_is_refused(source: PostgresSource) -> None:
    with pytest.raises(ValidationError, match="filter"):
        plan_of(source, "public.heap", 1000, IngestionPolicy(filter={"id": 1}))


def test_a_projection_reads_only_its_columns(source: PostgresSource) -> None:
    policy = IngestionPolicy(columns=("line", "customer"))
    (first, *_) = plan_of(source, "public.skewed", 20_000, policy).slices
    assert len(rows_of(source, "public.skewed", first, policy)[0]) == 2
    for columns in (("customer",), ("customer", "line", "absent")):
        with pytest.raises(ValidationError):
            plan_of(source, "public.skewed", 1000, IngestionPolicy(columns=columns))


def test_an_exact_count_is_made_only_when_asked(source: PostgresSource) -> None:
    assert "exactRows" not in plan_of(source, "public.gaps", 1000).statistics
    policy = IngestionPolicy(exact_count=True)
    assert plan_of(source, "public.gaps", 1000, policy).statistics["exactRows"] == 10_000


def test_units_are_what_the_role_may_read_and_partitions_are_not_units(
    server: PostgresServer, source: PostgresSource
) -> None:
    def listed(source: PostgresSource, pattern: str | None = None) -> dict[str, str]:
        context = IngestionContext(TenantId("tenant"), pattern)
        return {unit.unit_id: unit.kind for unit in source.list_units(context)}

    everything = listed(source)
    assert everything["public.split"] == "partitioned_table"
    assert everything["public.heap_view"] == "view"
    assert everything["public.heap_copy"] == "materialized_view"
    assert "public.split_1" not in everything
    assert not [unit for unit in everything if unit.startswith(("pg_", "information_schema"))]
    assert set(listed(source, "hidden.*")) == {"hidden.secret"}
    reader = PostgresSource(spec_of(server, "reader"))
    assert set(listed(reader)) == {
        "public.rows_of_reader",
        "public.small",
        "public.some_columns",
    }
    reader.close()


def test_columns_that_the_role_may_read_can_be_read(server: PostgresServer) -> None:
    server.execute("INSERT INTO some_columns VALUES (1, 2)")
    source = PostgresSource(spec_of(server, "reader"))
    policy = IngestionPolicy(columns=("open",))
    (slice_,) = plan_of(source, "public.some_columns", 1000, policy).slices
    assert rows_of(source, "public.some_columns", slice_, policy) == [("1",)]
    source.close()


def test_a_unit_shows_keys_cursors_and_estimates(source: PostgresSource) -> None:
    split = source.describe_unit(UnitId("public.split"))
    assert split.primary_key == ("id", "at")
    assert split.cursor_candidates == ("id",)
    assert split.estimated_rows == 6000
    assert split.estimated_bytes
    assert source.describe_unit(UnitId("public.unique_only")).primary_key == ()


@pytest.mark.parametrize("unit_id", ["public.nowhere", "nowhere.heap", "heap", "public.Heap"])
def test_an_unknown_unit_is_named(source: PostgresSource, unit_id: str) -> None:
    with pytest.raises(UnknownUnitError) as caught:
        source.describe_unit(UnitId(unit_id))
    assert unit_id in str(caught.value)


def test_a_foreign_table_is_one_slice_and_has_no_safe_bound(
    server: PostgresServer, source: PostgresSource
) -> None:
    available = server.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'postgres_fdw'")
    if not available:
        pytest.skip("this PostgreSQL has no postgres_fdw")
    server.execute(
        "CREATE EXTENSION postgres_fdw; CREATE SERVER other FOREIGN DATA WRAPPER postgres_fdw "
        f"OPTIONS (host '{server.host}', port '{server.port}', dbname 'postgres');"
        "CREATE USER MAPPING FOR postgres SERVER other OPTIONS (user 'postgres');"
        "CREATE FOREIGN TABLE far (id bigint, note text) SERVER other OPTIONS (table_name 'gaps');"
        "ALTER FOREIGN TABLE far DROP COLUMN note"
    )
    plan = plan_of(source, "public.far", 1000)
    assert (plan.strategy, len(plan.slices)) == ("jdbc-single", 1)
    policy = IngestionPolicy(run_mode=RunMode.INCREMENTAL, cursor_column="id")
    with pytest.raises(PlanError, match="foreign"):
        plan_of(source, "public.far", 1000, policy)

"""Reading from a standby: plans, snapshots, and what it can know of the primary's transactions."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from matih_ray.errors import OpenTransactionError
from matih_ray.model.ids import EndpointId, TenantId, UnitId
from matih_ray.model.policy import IngestionPolicy, RunMode
from matih_ray.sources.base import EndpointSpec
from matih_ray.sources.postgres import PostgresSource
from matih_ray.testing.devstack.postgres import PostgresServer

HBA = "host all all 127.0.0.1/32 trust\nhost replication all 127.0.0.1/32 trust\n"
CATCH_UP_DEADLINE_S = 30.0


@pytest.fixture(scope="module")
def primary() -> Iterator[PostgresServer]:
    with PostgresServer(hba=HBA) as primary:
        primary.execute(
            "CREATE TABLE t (id bigserial PRIMARY KEY, at timestamptz DEFAULT now());"
            "INSERT INTO t SELECT FROM generate_series(1, 1000);"
            "CREATE TABLE heap AS SELECT * FROM t; ANALYZE"
        )
        yield primary


@pytest.fixture(scope="module")
def standby(primary: PostgresServer) -> Iterator[PostgresServer]:
    standby = PostgresServer()
    standby.directory.chmod(0o755)
    if standby._account is not None:
        os.chown(standby.directory, standby._account.pw_uid, standby._account.pw_gid)
    standby._run(
        "pg_basebackup", "-h", primary.host, "-p", str(primary.port), "-U", primary.user,
        "-D", str(standby.data), "-R", "-X", "stream", "-c", "fast",
    )  # fmt: skip
    standby.start()
    yield standby
    standby.remove()


@pytest.fixture
def source(standby: PostgresServer) -> Iterator[PostgresSource]:
    spec = EndpointSpec(
        tenant_id=TenantId("tenant"),
        endpoint_id=EndpointId("endpoint"),
        name="test",
        type="POSTGRESQL",
        config={
            "host": standby.host,
            "port": standby.port,
            "database": "postgres",
            "user": "postgres",
        },
    )
    source = PostgresSource(spec)
    yield source
    source.close()


def catch_up(primary: PostgresServer, standby: PostgresServer) -> None:
    ((target,),) = primary.execute("SELECT pg_current_wal_flush_lsn()::text")
    deadline = time.monotonic() + CATCH_UP_DEADLINE_S
    while standby.execute(f"SELECT pg_last_wal_replay_lsn() < '{target}'") == [(True,)]:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("cursor", ["id", "at"])
def test_a_writer_on_the_primary_is_waited_for(
    primary: PostgresServer, standby: PostgresServer, source: PostgresSource, cursor: str
) -> None:
    policy = IngestionPolicy(
        run_mode=RunMode.INCREMENTAL, cursor_column=cursor, open_transaction_wait_s=0.1
    )
    unit = source.describe_unit(UnitId("public.t"))
    late = primary.connect(autocommit=False)
    late.cursor().execute("INSERT INTO t DEFAULT VALUES")
    primary.execute("INSERT INTO t DEFAULT VALUES")
    catch_up(primary, standby)
    with pytest.raises(OpenTransactionError):
        source.plan_incremental_slices(unit, None, policy, 100)
    late.commit()
    late.close()
    catch_up(primary, standby)
    plan = source.plan_incremental_slices(unit, None, policy, 10_000)
    assert "standby" in plan.notes[0]
    (slice_,) = plan.slices
    rows = sum(batch.num_rows for batch in source.read(unit, slice_, policy))
    assert standby.execute("SELECT count(*)::int FROM t") == [(rows,)]


def test_a_snapshot_of_a_standby_can_be_held(source: PostgresSource) -> None:
    policy = IngestionPolicy()
    unit = source.describe_unit(UnitId("public.heap"))
    plan = source.plan_incremental_slices(unit, None, policy, 100)
    assert len(plan.slices) > 1
    snapshot = source.hold_snapshot(plan)
    bound = [snapshot.bind(slice_) for slice_ in plan.slices]
    assert sum(b.num_rows for s in bound for b in source.read(unit, s, policy)) == 1000
    snapshot.close()

"""What is particular to PostgreSQL: several processes, restarts, and what errors may say."""

from collections import Counter

import pytest
from pydantic import SecretStr

from matih_ray.errors import RunOverlapError, StateConflictError, StateError
from matih_ray.model.ids import TenantId
from matih_ray.model.run import RunState
from matih_ray.state.sql import open_metadata
from matih_ray.testing.contracts.state_processes import finish_together, new_queue, start_together
from matih_ray.testing.contracts.state_samples import changed, new_tenant, run, stream
from matih_ray.testing.devstack.postgres import PostgresServer

CANARY = "hunter2-canary"
PROCESSES = 4
HBA = """
host all postgres 127.0.0.1/32 trust
host all app 127.0.0.1/32 scram-sha-256
"""


@pytest.fixture(scope="module")
def server():
    with PostgresServer(hba=HBA) as server:
        server.execute(f"CREATE ROLE app LOGIN SUPERUSER PASSWORD '{CANARY}'")
        yield server


@pytest.fixture
def url(server):
    return f"postgresql://app:{CANARY}@{server.host}:{server.port}/postgres"


@pytest.fixture
def store(url):
    store = open_metadata(SecretStr(url))
    yield store
    store.close()


def _compete(_number: int, url: str, tenant: TenantId, rounds: int, results) -> None:
    store = open_metadata(SecretStr(url))
    won = 0
    for _ in range(rounds):
        try:
            record = store.create_run(run(stream(tenant)))
            record = store.update_run(changed(record, state=RunState.RUNNING, epoch=1))
            store.update_run(changed(record, state=RunState.COMPLETED))
            won += 1
        except RunOverlapError:
            continue
    store.close()
    results.put(won)


def test_processes_never_hold_one_stream_together(url, store):
    tenant, rounds = new_tenant(), 40
    results = new_queue()
    finish_together(start_together(PROCESSES, _compete, url, tenant, rounds, results))
    won = sum(results.get() for _ in range(PROCESSES))
    states = Counter(record.state for record in store.list_runs(tenant, limit=1000))
    assert states == {RunState.COMPLETED: won}
    assert won > 0


def test_a_store_goes_on_after_its_server_was_restarted(server, store):
    record = store.create_run(run(stream(new_tenant())))
    server.stop()
    with pytest.raises(StateError, match="reachable"):
        store.get_run(record.stream.tenant_id, record.run_id)
    server.start()
    assert store.get_run(record.stream.tenant_id, record.run_id) == record
    with pytest.raises(StateConflictError):
        store.create_run(record)


def test_a_lost_connection_in_the_middle_of_a_write_leaves_nothing(server, store):
    tenant = new_tenant()
    of = stream(tenant)
    created = store.create_run(run(of))

    def write_and_be_cut_off() -> None:
        with store.database.write("be cut off") as connection:
            pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()
            connection.exec_driver_sql("UPDATE runs SET version = version + 7")
            server.execute(f"SELECT pg_terminate_backend({pid})")
            connection.exec_driver_sql("SELECT 1")

    with pytest.raises(StateError):
        write_and_be_cut_off()
    assert store.get_run(tenant, created.run_id) == created


@pytest.mark.parametrize("wrong", ["wrong-canary", "wr%40ng-canary"])
def test_a_wrong_password_is_a_typed_error_and_not_shown(server, wrong):
    url = f"postgresql://app:{wrong}@{server.host}:{server.port}/postgres"
    with pytest.raises(StateError, match="password authentication failed") as caught:
        open_metadata(SecretStr(url))
    error = caught.value
    assert "canary" not in str(error) + repr(error) + str(error.context)
    assert error.__cause__ is None
    assert error.__suppress_context__


def test_errors_do_not_repeat_parameters(store):
    secret = "value-canary"
    with pytest.raises(StateError) as caught, store.database.write("fail") as connection:
        connection.exec_driver_sql("INSERT INTO kv VALUES (%s, NULL, NULL, 1)", (secret,))
    assert "canary" not in str(caught.value) + str(caught.value.context)


def test_one_database_may_hold_other_tables(server, url):
    server.execute("CREATE TABLE alembic_version (version_num text)")
    server.execute("INSERT INTO alembic_version VALUES ('somebody else')")
    store = open_metadata(SecretStr(url))
    assert store.list_runs(new_tenant()) == []
    store.close()
    assert server.execute("SELECT * FROM alembic_version") == [("somebody else",)]

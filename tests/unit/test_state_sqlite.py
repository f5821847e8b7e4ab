"""One SQLite file, many processes and threads: nothing is lost and nobody sees `locked`."""

import os
import signal
import sqlite3
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from pydantic import SecretStr
from sqlalchemy import event

from matih_ray.errors import ConfigurationError, RunOverlapError, StateConflictError, StateError
from matih_ray.model.ids import TenantId
from matih_ray.model.run import RunState, SliceRecord, SliceState
from matih_ray.state.kv_sql import SqlKeyValueStore
from matih_ray.state.sql import open_metadata
from matih_ray.testing.contracts.state_processes import finish_together, start_together
from matih_ray.testing.contracts.state_samples import changed, plan, run, stream

PROCESSES = 8
TENANT = TenantId("acme")


def url_of(directory) -> str:
    return f"sqlite:///{directory}/metadata.db"


def _work(number: int, url: str, runs: int) -> None:
    """Complete runs of an own stream, compete for a shared one, count in a shared key."""
    store = open_metadata(SecretStr(url))
    kv = SqlKeyValueStore(store.database)
    for _ in range(runs):
        of = stream(TENANT, unit_id=f"u-{number}")
        record = store.create_run(run(of, plan=plan(of)))
        record = store.update_run(changed(record, state=RunState.RUNNING, epoch=1))
        store.heartbeat(TENANT, record.run_id, 1, record.created_at)
        slices = [SliceRecord(sequence=0, key="s-0", state=SliceState.COMMITTED)]
        store.put_slices(TENANT, record.run_id, slices)
        store.update_run(changed(record, state=RunState.COMPLETED, rows=1))
        try:
            shared = store.create_run(run(stream(TENANT, unit_id="shared")))
        except RunOverlapError:
            pass
        else:
            store.update_run(changed(shared, state=RunState.CANCELLED))
        _increment(kv)
    store.close()


def _increment(kv: SqlKeyValueStore) -> None:
    while True:
        stored = kv.get(TENANT, "count")
        try:
            before, version = (stored.value, stored.version) if stored else (0, 0)
            kv.compare_and_set(TENANT, "count", before + 1, version)
        except StateConflictError:
            continue
        return


def test_eight_processes_write_at_once_and_lose_nothing(tmp_path):
    url, runs = url_of(tmp_path), 25
    finish_together(start_together(PROCESSES, _work, url, runs))
    store = open_metadata(SecretStr(url))
    for number in range(PROCESSES):
        done = store.list_runs(TENANT, unit_id=f"u-{number}", limit=1000)
        assert [record.state for record in done] == [RunState.COMPLETED] * runs
        assert {record.version for record in done} == {3}
    counted = SqlKeyValueStore(store.database).get(TENANT, "count")
    assert counted is not None
    assert counted.value == PROCESSES * runs
    store.close()


def test_threads_of_one_process_share_a_store(tmp_path):
    store = open_metadata(SecretStr(url_of(tmp_path)))

    def work(number: int) -> None:
        of = stream(TENANT, unit_id=f"u-{number}")
        for _ in range(5):
            record = store.create_run(run(of))
            record = store.update_run(changed(record, state=RunState.RUNNING, epoch=1))
            store.update_run(changed(record, state=RunState.COMPLETED))

    with ThreadPoolExecutor(32) as pool:
        list(pool.map(work, range(32)))
    states = Counter(record.state for record in store.list_runs(TENANT, limit=1000))
    assert states == {RunState.COMPLETED: 32 * 5}
    store.close()


def _churn(number: int, url: str) -> None:
    store = open_metadata(SecretStr(url))
    while True:
        of = stream(TENANT, unit_id=f"u-{number % 2}")
        try:
            record = store.create_run(run(of, plan=plan(of, 200)))
            record = store.update_run(changed(record, state=RunState.RUNNING, epoch=1))
            store.update_run(changed(record, state=RunState.FAILED))
        except (RunOverlapError, StateConflictError):
            for held in store.list_runs(TENANT, states=[RunState.QUEUED, RunState.RUNNING]):
                try:
                    store.update_run(changed(held, state=RunState.CANCELLED))
                except StateConflictError:
                    continue


def _ledger_is_consistent(path) -> int:
    """Check what every transaction must keep; returns the number of runs."""
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    active = connection.execute(
        "SELECT unit_id, count(*) FROM runs WHERE state IN ('QUEUED', 'RUNNING') GROUP BY unit_id"
    ).fetchall()
    assert all(count == 1 for _, count in active)
    torn = connection.execute(
        "SELECT count(*) FROM runs r LEFT JOIN run_plans p USING (tenant_id, run_id) "
        "WHERE p.run_id IS NULL"
    ).fetchone()
    assert torn == (0,)
    stale = connection.execute(
        "SELECT count(*) FROM unit_states u JOIN runs r ON r.run_id = u.last_run_id "
        "WHERE r.state <> u.state"
    ).fetchone()
    assert stale == (0,)
    (runs,) = connection.execute("SELECT count(*) FROM runs").fetchone()
    connection.close()
    return runs


def test_killed_writers_leave_whole_transactions(tmp_path):
    url = url_of(tmp_path)
    open_metadata(SecretStr(url)).close()
    processes = start_together(4, _churn, url)
    for process in processes:
        time.sleep(0.3)
        os.kill(process.pid, signal.SIGKILL)
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [-signal.SIGKILL] * 4
    assert _ledger_is_consistent(tmp_path / "metadata.db") > 0
    store = open_metadata(SecretStr(url))
    held = store.list_runs(TENANT, states=[RunState.QUEUED, RunState.RUNNING])
    for record in held:
        store.update_run(changed(record, state=RunState.CANCELLED))
    store.create_run(run(stream(TENANT, unit_id="u-0")))
    store.close()


def test_waiting_for_a_hanging_writer_ends_with_a_typed_error(tmp_path):
    store = open_metadata(SecretStr(f"{url_of(tmp_path)}?timeout=0.05"))
    hanging = sqlite3.connect(tmp_path / "metadata.db", isolation_level=None)
    hanging.execute("BEGIN IMMEDIATE")
    with pytest.raises(StateError, match="database is locked"):
        store.create_run(run(stream(TENANT)))
    assert store.list_runs(TENANT) == []
    hanging.execute("ROLLBACK")
    hanging.close()
    store.create_run(run(stream(TENANT)))
    store.close()


def test_nobody_can_write_between_the_reading_and_the_writing_of_an_update(tmp_path):
    """Not even a tool that knows nothing of our lock file."""
    store = open_metadata(SecretStr(url_of(tmp_path)))
    outsider = sqlite3.connect(tmp_path / "metadata.db", timeout=0, isolation_level=None)
    refused = []

    def intrude(_connection, _cursor, statement, *_):
        if statement.startswith("UPDATE runs"):
            try:
                outsider.execute("UPDATE runs SET version = version + 1")
            except sqlite3.OperationalError as error:
                refused.append(str(error))

    event.listen(store.database.engine, "before_cursor_execute", intrude)
    record = store.create_run(run(stream(TENANT)))
    store.update_run(changed(record, rows=1))
    assert refused == ["database is locked"]
    outsider.close()
    store.close()


def test_an_update_costs_few_statements_and_no_plan(tmp_path):
    """Each statement of an idle run is counted, so that a new one is a decision."""
    store = open_metadata(SecretStr(url_of(tmp_path)))
    sent: list[str] = []
    event.listen(
        store.database.engine,
        "before_cursor_execute",
        lambda _c, _cursor, statement, *_: sent.append(" ".join(statement.split())),
    )
    of = stream(TENANT)
    record = store.create_run(run(of))
    record = store.update_run(changed(record, state=RunState.RUNNING, epoch=1, plan=plan(of)))
    record = store.update_run(changed(record, rows=1))
    store.heartbeat(TENANT, record.run_id, 1, record.created_at)
    record = store.update_run(changed(record, state=RunState.COMPLETED))
    verbs = [statement.split(" ")[0] for statement in sent]
    assert verbs == [
        "BEGIN", "INSERT", "INSERT",  # created: run, unit state
        "BEGIN", "SELECT", "UPDATE", "INSERT", "INSERT",  # taken: plan, unit state
        "BEGIN", "SELECT", "UPDATE",  # progress
        "BEGIN", "UPDATE",  # heartbeat
        "BEGIN", "SELECT", "UPDATE", "UPDATE",  # completed: unit state
    ]  # fmt: skip
    sent.clear()
    record = store.update_run(changed(record, plan=None))
    store.update_run(changed(record, plan=plan(of)))
    assert not any("run_plans" in statement for statement in sent)
    sent.clear()
    store.list_runs(TENANT)
    assert not any("run_plans" in statement for statement in sent)
    store.close()


def test_a_store_in_a_directory_that_cannot_be_made_is_a_typed_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigurationError, match="directory"):
        open_metadata(SecretStr(f"sqlite:///{tmp_path}/file/metadata.db"))

"""Invariants of the stores under any order of calls."""

import random
import threading
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from matih_ray.errors import ConflictError, RunOverlapError, StateConflictError
from matih_ray.model.run import RunRecord, RunRequest, RunState
from matih_ray.state.kv_file import FileKeyValueStore
from matih_ray.state.kv_memory import MemoryKeyValueStore
from matih_ray.state.kv_redis import RedisKeyValueStore
from matih_ray.state.kv_sql import SqlKeyValueStore
from matih_ray.state.sql import SqlMetadataStore, open_metadata
from matih_ray.testing.contracts.state_samples import changed, new_tenant, run, stream
from matih_ray.testing.devstack.redis import RedisServer

# The stores are shared by all examples; each example works under a tenant of its own.
SHARED_STORE = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def metadata(tmp_path_factory):
    store = open_metadata(SecretStr(f"sqlite:///{tmp_path_factory.mktemp('db')}/m.db"))
    yield store
    store.close()


@pytest.fixture(scope="module")
def redis_kv():
    with RedisServer() as server:
        store = RedisKeyValueStore(SecretStr(server.url))
        yield store
        store.close()


@pytest.fixture(params=["memory", "file", "sql", "redis"])
def kv(request, metadata, tmp_path_factory):
    if request.param == "memory":
        return MemoryKeyValueStore()
    if request.param == "file":
        return FileKeyValueStore(tmp_path_factory.mktemp("kv") / "kv.json")
    if request.param == "sql":
        return SqlKeyValueStore(metadata.database)
    return request.getfixturevalue("redis_kv")


# --- key-value stores --------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
KEYS = st.sampled_from(["a", "ab", "A", "b%", "é"])
CALLS = st.lists(
    st.tuples(
        st.sampled_from(["get", "set", "stale", "create", "delete", "keys"]), KEYS, JSON
    ),
    max_size=25,
)  # fmt: skip


@SHARED_STORE
@given(calls=CALLS)
def test_a_store_behaves_like_a_dictionary_with_versions(kv, calls):
    tenant = new_tenant()
    model: dict[str, tuple[object, int]] = {}
    used: dict[str, set[int]] = {}
    for call, key, value in calls:
        known, version = model.get(key, (None, 0))
        if call == "get":
            stored = kv.get(tenant, key)
            assert (stored is not None) == (key in model)
            assert stored is None or (stored.value, stored.version) == (known, version)
        elif call == "keys":
            assert kv.keys(tenant, key) == sorted(name for name in model if name.startswith(key))
        elif call == "delete":
            assert kv.delete(tenant, key) == (key in model)
            model.pop(key, None)
        elif call == "stale" or (call == "create" and key in model):
            for stale in {0, *used.get(key, ())} - {version}:
                with pytest.raises(StateConflictError):
                    kv.compare_and_set(tenant, key, value, stale)
        else:
            after = kv.compare_and_set(tenant, key, value, version)
            assert after not in used.setdefault(key, set())
            used[key].add(after)
            model[key] = (value, after)


@dataclass
class History:
    """What one thread saw: versions in the order it saw them, and its successful writes."""

    seen: list[int] = field(default_factory=list)
    writes: list[tuple[int, int]] = field(default_factory=list)
    values: dict[int, object] = field(default_factory=dict)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_compare_and_set_is_linearisable(kv, seed):
    """All successful writes form one chain of versions, and no thread ever sees time go back."""
    tenant, threads = new_tenant(), 6
    first = kv.compare_and_set(tenant, "k", "start", 0)
    histories = [History() for _ in range(threads)]
    barrier = threading.Barrier(threads)

    def work(number: int) -> None:
        choice, history = random.Random(f"{seed}-{number}"), histories[number]
        barrier.wait()
        for step in range(25):
            stored = kv.get(tenant, "k")
            history.seen.append(stored.version)
            history.values[stored.version] = stored.value
            if choice.random() < 0.6:
                value = f"{number}-{step}"
                try:
                    after = kv.compare_and_set(tenant, "k", value, stored.version)
                except StateConflictError:
                    continue
                history.writes.append((stored.version, after))
                history.seen.append(after)
                history.values[after] = value

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    writes = dict(write for history in histories for write in history.writes)
    assert len(writes) == sum(len(history.writes) for history in histories) > 0
    chain = [first]
    while chain[-1] in writes:
        chain.append(writes[chain[-1]])
    assert len(chain) == len(writes) + 1
    for history in histories:
        assert history.seen == sorted(history.seen)
        assert set(history.seen) <= set(chain)
    for version in chain:
        assert len({history.values.get(version) for history in histories} - {None}) <= 1
    last = kv.get(tenant, "k")
    assert last.version == chain[-1]


# --- runs --------------------------------------------------------------------------------------

ALLOWED = {
    RunState.QUEUED: {RunState.RUNNING, RunState.PAUSED, RunState.CANCELLED, RunState.FAILED},
    RunState.RUNNING: {
        RunState.PAUSED, RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED, RunState.QUEUED,
    },
    RunState.PAUSED: {RunState.QUEUED, RunState.CANCELLED},
    RunState.FAILED: {RunState.QUEUED},
    RunState.COMPLETED: set(),
    RunState.CANCELLED: set(),
}  # fmt: skip
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["create", "move", "move", "move", "stale", "request", "heartbeat"]),
        st.integers(0, 5),
        st.sampled_from(RunState),
    ),
    max_size=30,
)


class Ledger:
    """A model of the ledger of one tenant, checked against the store at every step."""

    def __init__(self, store: SqlMetadataStore) -> None:
        self.store = store
        self.tenant = new_tenant()
        self.runs: list[RunRecord] = []
        self.last: dict[str, str] = {}

    def active(self, unit_id: str) -> set[str]:
        held = [r for r in self.runs if r.stream.unit_id == unit_id and r.state.is_active]
        return {record.run_id for record in held}

    def keep(self, index: int, after: RunRecord) -> None:
        if after.state is not self.runs[index].state and after.state.is_active:
            self.last[after.stream.unit_id] = after.run_id
        self.runs[index] = after

    def create(self, number: int) -> None:
        of = stream(self.tenant, unit_id=f"u-{number % 2}")
        record = run(of, run_id=f"r-{len(self.runs)}")
        if self.active(of.unit_id):
            with pytest.raises(RunOverlapError):
                self.store.create_run(record)
            return
        self.runs.append(self.store.create_run(record))
        self.last[of.unit_id] = record.run_id

    def move(self, index: int, state: RunState) -> None:
        before = self.runs[index]
        others = self.active(before.stream.unit_id) - {before.run_id}
        refusal: type[ConflictError] | None = None
        if state is not before.state and state not in ALLOWED[before.state]:
            refusal = ConflictError
        elif state.is_active and others:
            refusal = RunOverlapError
        if refusal is not None:
            with pytest.raises(refusal):
                self.store.update_run(changed(before, state=state))
            return
        self.keep(index, self.store.update_run(changed(before, state=state)))
        assert self.runs[index].version == before.version + 1

    def stale(self, index: int, state: RunState) -> None:
        before = self.runs[index]
        with pytest.raises(StateConflictError):
            self.store.update_run(changed(before, version=before.version - 1, state=state))

    def request(self, index: int, _state: RunState) -> None:
        before = self.runs[index]
        if not before.state.is_active:
            with pytest.raises(ConflictError):
                self.store.request(self.tenant, before.run_id, RunRequest.PAUSE)
            return
        self.keep(index, self.store.request(self.tenant, before.run_id, RunRequest.PAUSE))
        assert self.runs[index].version == before.version + (before.requested is None)

    def heartbeat(self, index: int, _state: RunState) -> None:
        before = self.runs[index]
        after = self.store.heartbeat(self.tenant, before.run_id, 0, before.created_at)
        assert after.version == before.version
        self.keep(index, after)

    def check(self) -> None:
        stored = {record.run_id: record for record in self.store.list_runs(self.tenant)}
        assert stored == {record.run_id: record for record in self.runs}
        known = self.store.list_unit_states(self.tenant)
        assert {unit.stream.unit_id: unit.last_run_id for unit in known} == self.last
        assert all(unit.state is stored[unit.last_run_id].state for unit in known)


@SHARED_STORE
@given(steps=STEPS)
def test_a_ledger_keeps_its_promises_under_any_order_of_calls(metadata, steps):
    ledger = Ledger(metadata)
    for step, number, state in steps:
        if step == "create":
            ledger.create(number)
        elif ledger.runs:
            getattr(ledger, step)(number % len(ledger.runs), state)
    ledger.check()

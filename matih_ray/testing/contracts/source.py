"""The source contract: subclass `SourceContract` and provide a `case` fixture.

    class TestMySource(SourceContract):
        @pytest.fixture
        def case(self): return SourceCase(build=..., unit_id=..., unknown_unit_id=...)

The unit should hold at least a few thousand rows, so that `target_rows` cuts it into several
slices, and must not change while the tests run.
"""

from __future__ import annotations

import pickle
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow as pa
import pytest

from matih_ray.errors import UnknownUnitError
from matih_ray.model.checkpoint import Checkpoint
from matih_ray.model.ids import TenantId, UnitId
from matih_ray.model.plan import IngestionPlan, IngestionSlice, cursor_through
from matih_ray.model.policy import IngestionPolicy
from matih_ray.model.unit import EndpointUnitDescriptor
from matih_ray.planning.planner import check_plan, make_plan
from matih_ray.sources.base import IngestionContext, SourceEndpoint, SupportsSnapshot

# A closed connection may take a moment to disappear from a server's own list of connections.
RELEASE_DEADLINE_S = 20.0
# A closed connection has gone from a server's list by then, unless the server is very busy.
SETTLED_S = 0.5
# Larger than any unit of these tests: everything is one slice.
WHOLE_ROWS = 1_000_000_000


@dataclass(frozen=True)
class SourceCase:
    """One source to test, and a unit of it.

    `policies` are the ways in which the unit is read. `open_connections` counts the connections
    that the source has open at its server; `secret` is a string that must never be shown.
    """

    build: Callable[[], SourceEndpoint]
    unit_id: str
    unknown_unit_id: str
    empty_unit_id: str | None = None
    target_rows: int = 1000
    policies: tuple[IngestionPolicy, ...] = (IngestionPolicy(),)
    open_connections: Callable[[], int] | None = None
    secret: str | None = None


class SourceContract:
    """What every source must keep."""

    @pytest.fixture
    def source(self, case: SourceCase) -> Iterator[SourceEndpoint]:
        source = case.build()
        yield source
        source.close()
        source.close()  # closing twice is harmless

    def test_it_has_the_shape_of_a_source(self, source: SourceEndpoint) -> None:
        assert isinstance(source, SourceEndpoint)
        assert source.config_model.model_json_schema()["type"] == "object"
        assert not set(source.secret_fields) & set(source.config_model.model_fields)

    def test_a_connection_test_tells_latency_and_version(self, source: SourceEndpoint) -> None:
        result = source.test()
        assert result.latency_ms > 0
        assert result.server_version

    def test_units_are_listed_in_a_stable_order_and_in_pages(self, source: SourceEndpoint) -> None:
        everything = _units(source)
        assert [unit.unit_id for unit in everything] == sorted(u.unit_id for u in everything)
        assert everything == _units(source)
        paged = [_units(source, offset=i, limit=1) for i in range(len(everything))]
        assert [unit for page in paged for unit in page] == everything
        assert _units(source, offset=len(everything)) == []

    def test_a_pattern_selects_units(self, source: SourceEndpoint, case: SourceCase) -> None:
        assert case.unit_id in {unit.unit_id for unit in _units(source, pattern="*")}
        assert _units(source, pattern="no unit is called this") == []

    def test_a_listed_unit_is_described_the_same(
        self, source: SourceEndpoint, case: SourceCase
    ) -> None:
        (listed,) = [unit for unit in _units(source) if unit.unit_id == case.unit_id]
        assert source.describe_unit(UnitId(case.unit_id)) == listed

    def test_an_unknown_unit_is_a_typed_error(
        self, source: SourceEndpoint, case: SourceCase
    ) -> None:
        with pytest.raises(UnknownUnitError) as caught:
            source.describe_unit(UnitId(case.unknown_unit_id))
        assert case.unknown_unit_id in str(caught.value)
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # noqa: S301 our own bytes

    def test_equal_inputs_give_equal_plans(self, source: SourceEndpoint, case: SourceCase) -> None:
        other = case.build()
        for policy in case.policies:
            plan = _plan(source, case, policy)
            assert plan == _plan(other, case, policy)
            assert len(plan.slices) > 1, "choose a larger unit or a smaller target_rows"
            assert IngestionPlan.from_json(plan.to_json()) == plan
        other.close()

    def test_slices_are_disjoint_and_cover_the_unit(
        self, source: SourceEndpoint, case: SourceCase
    ) -> None:
        for policy in case.policies:
            whole = _plan(source, case, policy, WHOLE_ROWS)
            everything = _rows(source, case, whole, policy)
            assert everything.total() > 0
            assert _rows(source, case, _plan(source, case, policy), policy) == everything

    def test_reading_twice_gives_the_same_rows(
        self, source: SourceEndpoint, case: SourceCase
    ) -> None:
        for policy in case.policies:
            plan = _plan(source, case, policy)
            assert _rows(source, case, plan, policy) == _rows(source, case, plan, policy)

    def test_batches_have_the_declared_schema(
        self, source: SourceEndpoint, case: SourceCase
    ) -> None:
        unit = source.describe_unit(UnitId(case.unit_id))
        for policy in case.policies:
            schema = source.read_schema(unit, policy)
            plan = _plan(source, case, policy)
            with _bound(source, plan) as slices:
                for batch in source.read(unit, slices[0], policy):
                    assert batch.schema.equals(schema, check_metadata=True)
                    batch.validate(full=True)

    def test_columns_are_described_as_they_arrive(
        self, source: SourceEndpoint, case: SourceCase
    ) -> None:
        unit = source.describe_unit(UnitId(case.unit_id))
        schema = source.read_schema(unit, IngestionPolicy())
        assert [(c.name, c.arrow_type) for c in unit.columns] == [
            (field.name, str(field.type)) for field in schema
        ]

    def test_an_empty_unit_reads_as_nothing(self, source: SourceEndpoint, case: SourceCase) -> None:
        if case.empty_unit_id is None:
            pytest.skip("the case has no empty unit")
        unit = source.describe_unit(UnitId(case.empty_unit_id))
        policy = IngestionPolicy()
        plan = make_plan(source, unit, None, policy)
        assert sum(b.num_rows for s in plan.slices for b in source.read(unit, s, policy)) == 0

    def test_abandoning_a_read_frees_the_connection(
        self, source: SourceEndpoint, case: SourceCase
    ) -> None:
        if case.open_connections is None:
            pytest.skip("the case cannot count connections")
        unit = source.describe_unit(UnitId(case.unit_id))
        source.close()
        before = _settled(case.open_connections)
        whole = _plan(source, case, case.policies[0], WHOLE_ROWS)
        batches = iter(source.read(unit, whole.slices[-1], case.policies[0]))
        next(batches)
        # waited for: the operating system's tables are not read at one moment
        _wait_for(case.open_connections, lambda found: found > before)
        batches.close()  # type: ignore[attr-defined]  # the contract: what `read` returns can be closed
        source.close()
        _wait_for(case.open_connections, lambda found: found == before)

    def test_resuming_from_any_prefix_loses_nothing(
        self, source: SourceEndpoint, case: SourceCase
    ) -> None:
        for policy in case.policies:
            plan = _plan(source, case, policy)
            if not plan.resumable or plan.cursor_column is None:
                continue
            everything = _rows(source, case, plan, policy)
            for through in range(1, len(plan.slices) + 1):
                done = plan.model_copy(update={"slices": plan.slices[:through]})
                rest = _plan(source, case, policy, checkpoint=_checkpoint(plan, through))
                read = _rows(source, case, done, policy) + _rows(source, case, rest, policy)
                assert read == everything, f"after {through} of {len(plan.slices)} slices"

    def test_secrets_are_not_shown(self, source: SourceEndpoint, case: SourceCase) -> None:
        if case.secret is None:
            pytest.skip("the case has no secret")
        shown = [repr(source), str(vars(source))]
        for policy in case.policies:
            plan = _plan(source, case, policy)
            shown += [plan.to_json(), repr(plan)]
        shown += [unit.to_json() for unit in _units(source)]
        assert not [text for text in shown if case.secret in text]


def _units(
    source: SourceEndpoint, pattern: str | None = None, offset: int = 0, limit: int = 1000
) -> list[EndpointUnitDescriptor]:
    context = IngestionContext(TenantId("tenant"), pattern, offset, limit)
    return source.list_units(context)


def _plan(
    source: SourceEndpoint,
    case: SourceCase,
    policy: IngestionPolicy,
    target_rows: int | None = None,
    checkpoint: Checkpoint | None = None,
) -> IngestionPlan:
    sized = policy.model_copy(update={"target_slice_rows": target_rows or case.target_rows})
    unit = source.describe_unit(UnitId(case.unit_id))
    plan = make_plan(source, unit, checkpoint, sized)
    check_plan(plan)
    return plan


def _checkpoint(plan: IngestionPlan, through: int) -> Checkpoint:
    """What is kept once the first `through` slices are committed."""
    details = plan.statistics.get("checkpointDetails")
    return Checkpoint(
        cursor=cursor_through(None, plan.slices[:through]),
        cursor_column=plan.cursor_column,
        through=through,
        details=details if isinstance(details, dict) else {},
    )


@contextmanager
def _bound(source: SourceEndpoint, plan: IngestionPlan) -> Iterator[list[IngestionSlice]]:
    """The plan's slices, inside a held snapshot if they need one."""
    if plan.resumable or not isinstance(source, SupportsSnapshot):
        yield list(plan.slices)
        return
    snapshot = source.hold_snapshot(plan)
    try:
        yield [snapshot.bind(slice_) for slice_ in plan.slices]
    finally:
        snapshot.close()


def _rows(
    source: SourceEndpoint, case: SourceCase, plan: IngestionPlan, policy: IngestionPolicy
) -> Counter[str]:
    """The multiset of rows, each as text (NaN equals NaN there)."""
    unit = source.describe_unit(UnitId(case.unit_id))
    rows: Counter[str] = Counter()
    with _bound(source, plan) as slices:
        for slice_ in slices:
            for batch in source.read(unit, slice_, policy):
                rows.update(_row_texts(batch))
    return rows


def _row_texts(batch: pa.RecordBatch) -> list[str]:
    columns = [column.to_pylist() for column in batch.columns]
    return [repr(row) for row in zip(*columns, strict=True)]


def _settled(count: Callable[[], int]) -> int:
    """What is counted once it stays: a server sees late that a connection was closed."""
    found = count()
    stays_from_s = time.monotonic()
    while time.monotonic() < stays_from_s + SETTLED_S:
        time.sleep(SETTLED_S / 10)
        if (now := count()) != found:
            found, stays_from_s = now, time.monotonic()
    return found


def _wait_for(count: Callable[[], int], is_wanted: Callable[[int], bool]) -> None:
    deadline = time.monotonic() + RELEASE_DEADLINE_S
    while not is_wanted(found := count()):
        assert time.monotonic() < deadline, f"still {found} after {RELEASE_DEADLINE_S:g} s"
        time.sleep(0.02)

"""Where MongoDB collections are cut, and what incremental runs read."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import bson
import pytest

from matih_ray.errors import NullCursorError, PlanError
from matih_ray.model.checkpoint import Checkpoint
from matih_ray.model.ids import EndpointId, TenantId, UnitId
from matih_ray.model.plan import IngestionPlan
from matih_ray.model.policy import IngestionPolicy, LateCommits, NullCursor, RunMode
from matih_ray.model.unit import EndpointUnitDescriptor
from matih_ray.planning.planner import check_plan, make_plan
from matih_ray.sources.base import EndpointSpec
from matih_ray.sources.mongodb import MongoSource
from matih_ray.sources.mongodb.full import plan_full
from matih_ray.testing.devstack.mongodb import MongoServer

START = dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc)


@pytest.fixture(scope="module")
def server() -> Iterator[MongoServer]:
    with MongoServer() as server:
        yield server


@pytest.fixture
def lab(server: MongoServer, request: pytest.FixtureRequest) -> Iterator[Lab]:
    lab = Lab(server, request.node.name.translate({ord(c): "_" for c in "[]-. "}))
    yield lab
    lab.source.close()
    lab.client.close()


class Lab:
    """One collection of a test's own, and the source that reads it."""

    def __init__(self, server: MongoServer, name: str) -> None:
        self.client = server.client()
        self.collection = self.client.get_database("plans").get_collection(name)
        config = {"host": server.host, "port": server.port, "database": "plans"}
        self.source = MongoSource(
            EndpointSpec(TenantId("t"), EndpointId("e"), "test", "MONGODB", config)
        )

    @property
    def unit(self) -> EndpointUnitDescriptor:
        return self.source.describe_unit(UnitId(f"plans.{self.collection.name}"))

    def plan(self, checkpoint: Checkpoint | None = None, **policy: Any) -> IngestionPlan:
        return make_plan(self.source, self.unit, checkpoint, IngestionPolicy(**policy))

    def incremental(self, after: IngestionPlan | None = None, **policy: Any) -> IngestionPlan:
        checkpoint = None
        if after is not None:
            cursors = [s.cursor_after for s in after.slices if s.cursor_after is not None]
            checkpoint = Checkpoint(
                cursor=cursors[-1],
                cursor_column=after.cursor_column,
                details=after.statistics["checkpointDetails"],
            )
        defaults: dict[str, Any] = {"run_mode": RunMode.INCREMENTAL, "cursor_column": "at"}
        return self.plan(checkpoint, **{**defaults, **policy})

    def ids(self, plan: IngestionPlan) -> list[Any]:
        """Ids of all rows of all slices, so that one that is read twice is there twice."""
        found = [
            row["_id"]
            for slice_ in plan.slices
            for batch in self.source.read(self.unit, slice_, IngestionPolicy(columns=("_id",)))
            for row in batch.to_pylist()
        ]
        return sorted(found)


def test_slices_hold_the_target_number_of_documents(lab: Lab):
    lab.collection.insert_many({"_id": n * n, "n": n} for n in range(1000))
    plan = lab.plan(target_slice_rows=250)
    unit, policy = lab.unit, IngestionPolicy()
    counts = [sum(b.num_rows for b in lab.source.read(unit, s, policy)) for s in plan.slices]
    # four full ranges, an open one for later documents, and one for other types of id
    assert counts == [250, 250, 250, 250, 0, 0]
    assert plan.statistics["totalRows"] == 1000


def test_documents_added_after_planning_are_in_a_slice(lab: Lab):
    lab.collection.insert_many({"_id": n} for n in range(100))
    plan = lab.plan(target_slice_rows=30)
    lab.collection.insert_many([{"_id": -5}, {"_id": 1000}])
    assert len(lab.ids(plan)) == 102


def test_a_random_sample_cuts_a_collection_that_is_too_large_to_walk(lab: Lab):
    lab.collection.insert_many({"_id": bson.ObjectId()} for _ in range(2000))
    lab.collection.insert_many({"_id": f"{n}"} for n in range(500))
    plan = plan_full(lab.collection, lab.unit, 300, max_walked=1000)
    check_plan(plan)
    assert len(plan.slices) > 5
    assert "random sample" in plan.notes[0]
    assert len(lab.ids(plan)) == len(set(lab.ids(plan))) == 2500


def test_an_exact_count_is_one(lab: Lab):
    lab.collection.insert_many({"_id": n, "at": n} for n in range(100))
    assert lab.plan(exact_count=True).statistics["exactRows"] == 100
    first = lab.incremental()
    lab.collection.insert_many({"_id": n, "at": n} for n in range(100, 130))
    assert lab.incremental(first, exact_count=True).statistics["exactRows"] == 30


def test_an_incremental_run_reads_what_is_new_and_no_more(lab: Lab):
    lab.collection.insert_many({"_id": n, "at": START + dt.timedelta(n // 3)} for n in range(90))
    first = lab.incremental(target_slice_rows=20)
    assert lab.ids(first) == list(range(90))
    assert lab.incremental(first).slices == ()
    lab.collection.insert_many({"_id": n, "at": START + dt.timedelta(n)} for n in range(90, 95))
    assert lab.ids(lab.incremental(first)) == list(range(90, 95))


def test_an_indexed_cursor_is_cut_and_another_is_not(lab: Lab):
    lab.collection.insert_many({"_id": n, "at": n // 2} for n in range(100))
    assert len(lab.incremental(target_slice_rows=10).slices) == 1
    assert "no index" in lab.incremental(target_slice_rows=10).notes[0]
    lab.collection.create_index("at")
    plan = lab.incremental(target_slice_rows=10)
    assert len(plan.slices) == 10
    assert lab.ids(plan) == list(range(100))


def test_arrays_and_other_types_are_no_cursors_and_are_read_once(lab: Lab):
    odd = [[1, 200], None, "text", float("nan"), {"n": 1}]
    lab.collection.insert_many(
        [
            *({"_id": n, "at": n} for n in range(2000)),
            *({"_id": 5000 + n, "at": value} for n, value in enumerate(odd)),
            {"_id": 6000},
            *({"_id": n, "at": n} for n in range(7000, 9000)),
        ]
    )
    everything = [*range(2000), *range(5000, 5005), 6000, *range(7000, 9000)]
    first = lab.incremental()
    assert lab.ids(first) == everything
    assert first.statistics["checkpointDetails"] == {"nullRows": 6}
    assert lab.ids(lab.incremental(null_cursor=NullCursor.IGNORE)) == [
        n for n in everything if not 5000 <= n <= 6000
    ]
    with pytest.raises(NullCursorError, match=r"6 document"):
        lab.incremental(null_cursor=NullCursor.REFUSE)
    lab.collection.insert_one({"_id": 6001})
    with pytest.raises(NullCursorError, match=r"6 document.*7 now"):
        lab.incremental(first)


@pytest.mark.parametrize(
    ("make", "lookback"),
    [
        (lambda n: START + dt.timedelta(seconds=n), 10.0),
        (lambda n: n, 10.0),
        (lambda n: n / 4, 2.5),
        (bson.Int64, 10.0),
        (lambda n: bson.Decimal128(str(n)), 10.0),
        (lambda n: bson.ObjectId((1_700_000_000 + n).to_bytes(4, "big") + bytes([9] * 8)), 10.0),
    ],
    ids=["date", "int", "double", "long", "decimal", "objectId"],
)
def test_a_look_back_reads_late_documents(lab: Lab, make: Any, lookback: float):
    lab.collection.insert_many({"_id": n, "at": make(n)} for n in range(100))
    first = lab.incremental()
    late = make(95)
    lab.collection.insert_one({"_id": 1000, "at": late})
    plan = lab.incremental(first, late_commits=LateCommits.LOOKBACK, lookback=lookback)
    assert plan.slices[0].dedupe_on == ("_id", "at")
    read = lab.ids(plan)
    assert 1000 in read
    # rounding and the tail of an ObjectId may take one more
    assert set(range(90, 100)) <= set(read) <= {*range(89, 100), 1000}


def test_a_string_has_no_look_back(lab: Lab):
    lab.collection.insert_many({"_id": n, "at": f"{n:03}"} for n in range(10))
    first = lab.incremental()
    with pytest.raises(PlanError, match="look-back"):
        lab.incremental(first, late_commits=LateCommits.LOOKBACK, lookback=1)


@pytest.mark.parametrize("name", [None, "nowhere", "mixed", "flag"])
def test_a_column_that_cannot_be_a_cursor_is_refused(lab: Lab, name: str | None):
    lab.collection.insert_many([{"mixed": 1, "flag": True}, {"mixed": "1", "flag": False}])
    with pytest.raises(PlanError, match="candidates: _id"):
        lab.incremental(cursor_column=name)


@pytest.mark.parametrize("cursor", ["7", '"text"', "no json", 7], ids=str)
def test_a_checkpoint_of_another_kind_is_refused(lab: Lab, cursor: Any):
    lab.collection.insert_many({"at": START} for _ in range(3))
    with pytest.raises(PlanError, match="reset the checkpoint"):
        lab.plan(
            Checkpoint(cursor=cursor, cursor_column="at"),
            run_mode=RunMode.INCREMENTAL,
            cursor_column="at",
        )

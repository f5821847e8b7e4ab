"""The acceptance criteria of the strategy specification, one test each, on servers of each family:
a database, Jira, Confluence. AC3 is GraphQL's (tests/api/test_graphql.py)."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest

from matih_ray.control.building import build_source
from matih_ray.execution.tasks import SliceTask
from matih_ray.model.ids import EndpointId, UnitId
from matih_ray.model.plan import IngestionPlan
from matih_ray.model.policy import IngestionPolicy, RunMode
from matih_ray.model.run import RunRecord, RunState
from matih_ray.model.unit import EndpointUnitDescriptor
from matih_ray.planning.planner import make_plan
from matih_ray.sinks.base import PreparedTarget
from matih_ray.sources.base import IngestionContext, SourceEndpoint, SupportsIncrementalPlanning
from matih_ray.staging.filesystem import FilesystemStaging
from tests.ray.lab import TENANT, Lab
from tests.ray.test_connectors import http  # noqa: F401 a fixture
from tests.ray.walks import WALKS, Walk, name_of

ROOT = Path(__file__).parents[2]
ROWS, MORE = 1500, 1600
# What a row holds and no message may, as text and as JSON escapes it.
CONTENT = ("name 7 ", "ñ" * 5, "\\u00f1" * 5)
# A handle, a task or a receipt is names and numbers, however many rows it stands for.
MAX_PAYLOAD_BYTES = 20_000
# Planning takes a fraction of a second; more tries mean that something else is wrong.
PLANNING_TRIES = 20
STRATEGIES = {
    "POSTGRESQL": r"(jdbc|range|cursor)",
    "JIRA": "^jira-project-window$",
    "CONFLUENCE": "^confluence-space-window$",
}


@dataclass(frozen=True)
class Family:
    """A walk whose connector is registered and whose catalog is collected."""

    name: str
    walk: Walk
    endpoint_id: EndpointId
    lab: Lab

    def load(self, http, staging: str | None = None) -> RunRecord:  # noqa: F811
        body = {
            "endpointId": self.endpoint_id,
            "unitId": self.walk.unit_id,
            "policy": self.policy.to_dict(),
            "stagingProviderId": staging,
        }
        answer = http.post("/runs", json=body)
        assert answer.status_code == 201, answer.text
        run = self.lab.wait(answer.json()["runId"])
        assert run.state is RunState.COMPLETED, run.error
        return run

    @property
    def policy(self) -> IngestionPolicy:
        return IngestionPolicy(
            run_mode=RunMode.INCREMENTAL,
            cursor_column=self.walk.cursor,
            target_slice_rows=500,
        )


def planned_twice_at_once(
    source: SourceEndpoint, unit: EndpointUnitDescriptor, policy: IngestionPolicy
) -> tuple[IngestionPlan, IngestionPlan]:
    """Two plans of one second: a window ends at the server's time, which is an input too."""
    for _ in range(PLANNING_TRIES):
        second = int(time.time())
        one, again = (make_plan(source, unit, None, policy) for _ in range(2))
        if int(time.time()) == second:
            return one, again
    pytest.fail("two plans never fitted into one second")


def holds_rows(payload: str) -> bool:
    """Whether a message holds a part of a row; rows themselves do."""
    return any(part in payload for part in CONTENT)


@pytest.fixture(scope="module")
def walks() -> Iterator[dict[str, Walk]]:
    with ExitStack() as servers:
        opened = {name: servers.enter_context(WALKS[name]()) for name in STRATEGIES}
        for walk in opened.values():
            walk.add(1, ROWS)
        yield opened


@pytest.fixture
def families(lab: Lab, http, walks: dict[str, Walk]) -> list[Family]:  # noqa: F811
    found = []
    for name, walk in walks.items():
        created = http.post("/connectors", json={"name": f"{name}-{lab.database}", **walk.draft})
        assert created.status_code == 201, created.text
        found.append(Family(name, walk, EndpointId(created.json()["id"]), lab))
    return found


def test_ac1_one_planning_interface_serves_databases_jira_and_confluence(families: list[Family]):
    for family in families:
        source = build_source(family.lab.ports, TENANT, family.endpoint_id)
        try:
            assert isinstance(source, SupportsIncrementalPlanning)
            listed = [unit.unit_id for unit in source.list_units(IngestionContext(TENANT))]
            assert family.walk.unit_id in listed
            unit = source.describe_unit(UnitId(family.walk.unit_id))
            plan, again = planned_twice_at_once(source, unit, family.policy)
            assert (plan.endpoint_id, plan.unit_id) == (family.endpoint_id, unit.unit_id)
            assert re.search(STRATEGIES[family.name], plan.strategy), plan.strategy
            keys = [one.key for one in plan.slices]
            assert len(keys) == len(set(keys)) > 1
            assert [one.sequence for one in plan.slices] == list(range(len(keys)))
            assert [one.to_json() for one in again.slices] == [one.to_json() for one in plan.slices]
        finally:
            source.close()


def test_ac2_only_handles_and_statistics_leave_staging(
    families: list[Family],
    http,  # noqa: F811
    tmp_path: Path,
):
    metadata = families[0].lab.ports.metadata
    assert holds_rows(name_of(7)), "or nothing would be found"
    for family in families:
        run = family.load(http, "filesystem")
        assert run.rows == ROWS
        assert run.plan is not None
        assert run.target is not None
        unit = metadata.get_unit(TENANT, family.endpoint_id, UnitId(family.walk.unit_id))
        tasks = [
            SliceTask(
                tenant_id=TENANT,
                run_id=run.run_id,
                endpoint_id=family.endpoint_id,
                unit=unit,
                slice=slice_,
                policy=run.policy,
                staging_provider_id=run.staging_provider_id,
                vendor=run.stream.vendor,
            )
            for slice_ in run.plan.slices
        ]
        payloads = [
            *map(repr, tasks),
            run.model_copy(update={"plan": None}).to_json(),
            PreparedTarget.from_json(run.target).to_json(),
            *(one.to_json() for one in metadata.list_slices(TENANT, run.run_id)),
            *(one.to_json() for one in run.plan.slices),
        ]
        for payload in payloads:
            assert len(payload) < MAX_PAYLOAD_BYTES
            assert not holds_rows(payload)
    session = FilesystemStaging(f"file://{tmp_path}").allocate("slice")
    session.writer().write_batch(pa.record_batch({"name": [name_of(7)] * 100_000}))
    handle = session.handle
    assert handle.rows == 100_000
    assert len(repr(handle)) < 1000
    assert not holds_rows(repr(handle))
    session.close()


def test_ac5_checkpoints_are_kept_under_one_pattern_and_read_by_every_planner(
    families: list[Family],
    http,  # noqa: F811
):
    kv = families[0].lab.ports.kv
    for family in families:
        first = family.load(http)
        vendor, unit = first.stream.vendor, family.walk.unit_id
        prefix = f"ingest::{vendor}::endpoint::{family.endpoint_id}::"
        assert kv.keys(TENANT, prefix) == [f"{prefix}unit::{unit}::sink::iceberg"]
        stored = kv.get(TENANT, first.stream.kv_key())
        assert stored is not None
        assert isinstance(stored.value, dict)
        assert stored.value["cursor"]
        again = family.load(http)
        assert again.rows == 0, "what the checkpoint covers is not loaded again"
        family.walk.add(ROWS + 1, MORE)
        last = family.load(http)
        assert last.rows == MORE - ROWS
        moved = kv.get(TENANT, first.stream.kv_key())
        assert moved is not None
        assert isinstance(moved.value, dict)
        assert moved.version > stored.version
        assert moved.value["cursor"] != stored.value["cursor"]


def test_ac6_the_one_gate_runs_rules_types_and_a_test_for_every_criterion():
    gate, rules = (ROOT / ".ci" / "run").read_text(), (ROOT / "Makefile").read_text()
    assert {"make lint types", "make test"} <= set(gate.splitlines())
    assert "MATIH_REQUIRE_SERVERS=1" in gate
    for tool in ("ruff check", "ruff format --check", "mypy", "pytest"):
        assert tool in rules
    named = " ".join(
        match
        for path in (ROOT / "tests").rglob("test_*.py")
        for match in re.findall(r"def (test_ac\d\w*)", path.read_text())
    )
    assert {f"ac{n}" for n in range(1, 7)} <= set(re.findall(r"ac\d", named))

"""Sources on the Jira test server, and what they read."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from matih_ray.model.checkpoint import Checkpoint
from matih_ray.model.ids import EndpointId, TenantId, UnitId
from matih_ray.model.plan import IngestionPlan, cursor_through
from matih_ray.model.policy import IngestionPolicy, RunMode
from matih_ray.planning.planner import make_plan
from matih_ray.sources.base import EndpointSpec
from matih_ray.sources.jira import JiraSource
from matih_ray.sources.provider_services import ProviderServices
from matih_ray.testing.devstack.jira import TOKEN, USER, JiraServer

# 2026-11-20 12:00 UTC
NOON_MS = 1_795_176_000_000
INCREMENTAL = IngestionPolicy(run_mode=RunMode.INCREMENTAL)
Row = dict[str, Any]


def spec_of(
    jira: JiraServer,
    services: ProviderServices | None = None,
    secrets: dict[str, str] | None = None,
    **config: Any,
) -> EndpointSpec:
    return EndpointSpec(
        tenant_id=TenantId("tenant"),
        endpoint_id=EndpointId("endpoint"),
        name="tracker",
        type="JIRA",
        config={"baseUrl": jira.url, "user": USER, **config},
        secrets={"apiToken": TOKEN} if secrets is None else secrets,
        services=services or ProviderServices(),
    )


class Loads:
    """Runs of one unit, one after the other, merged by id as a sink would."""

    def __init__(self, source: JiraSource, unit: str = "jira.issues") -> None:
        self.source = source
        self.unit = source.describe_unit(UnitId(unit))
        self.checkpoint: Checkpoint | None = None
        self.table: dict[str, Row] = {}
        self.read: list[Row] = []

    def run(self, policy: IngestionPolicy = INCREMENTAL) -> IngestionPlan:
        plan = make_plan(self.source, self.unit, self.checkpoint, policy)
        self.read = []
        for slice_ in plan.slices:
            for batch in self.source.read(self.unit, slice_, policy):
                self.read += pa.Table.from_batches([batch]).to_pylist()
        for row in self.read:
            known = self.table.get(row["id"])
            if known is None or known["_source_version"] <= row["_source_version"]:
                self.table[row["id"]] = row
        before = None if self.checkpoint is None else self.checkpoint.cursor
        cursor = cursor_through(before, plan.slices)
        self.checkpoint = Checkpoint(cursor=cursor, cursor_column=plan.cursor_column)
        return plan

    @property
    def alive(self) -> dict[str, Row]:
        return {id_: row for id_, row in self.table.items() if not row["_deleted"]}


def assert_true(loads: Loads, jira: JiraServer, *projects: str) -> None:
    """The table holds what the site holds."""
    upstream = {
        id_: (issue["key"], issue["fields"]["summary"], issue["fields"]["status"]["name"])
        for id_, issue in jira.issues().items()
        if not projects or issue["key"].split("-")[0] in projects
    }
    loaded = {id_: (row["key"], row["summary"], row["status"]) for id_, row in loads.alive.items()}
    assert loaded == upstream

"""Runs into the canonical data model on a cluster: Jira to PostgreSQL, whoever dies on the way.

Named after the acceptance criteria of the strategy specification: AC2 is Source → Staging → Sink
for such runs too, AC4 that mapping is the registry's and what runs a unit knows no vendor.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from matih_ray.control.authorization import Principal, Role
from matih_ray.control.building import build_source
from matih_ray.control.catalog import collect_catalog
from matih_ray.control.cdm_sinks import provision_cdm_sink
from matih_ray.control.loads import LoadRequest
from matih_ray.control.ports import Ports
from matih_ray.control.runs import start_run
from matih_ray.execution.steps import Step
from matih_ray.model.ids import EndpointId, SinkId, UnitId
from matih_ray.model.policy import DataMode, IngestionPolicy, RunMode, Verify
from matih_ray.model.run import RunRecord, RunState
from matih_ray.model.value import JsonValue
from matih_ray.state.base import EndpointRecord
from matih_ray.testing.devstack.jira import TOKEN, USER, JiraServer
from matih_ray.testing.devstack.postgres import PostgresServer
from tests.ray.lab import TENANT, Lab

PRINCIPAL = Principal("tests", TENANT, frozenset({Role.ADMIN}))
ISSUES = 600
CDM = IngestionPolicy(
    mode=DataMode.CDM,
    run_mode=RunMode.INCREMENTAL,
    target_slice_rows=200,
    commit_interval_s=0,
    verify=Verify.CHECKSUM,
)
NUMBERS = itertools.count()


@dataclass(frozen=True)
class Model:
    """A Jira site, the connector to it, and a provisioned sink."""

    lab: Lab
    jira: JiraServer
    server: PostgresServer
    database: str
    source: EndpointId
    sink: SinkId

    def start(self, unit: str = "jira.issues", policy: IngestionPolicy = CDM) -> RunRecord:
        request = LoadRequest(
            endpoint_id=self.source, unit_id=UnitId(unit), sink_id=self.sink, policy=policy
        )
        return start_run(PRINCIPAL, self.lab.ports, TENANT, request)

    def load(self, unit: str = "jira.issues", policy: IngestionPolicy = CDM) -> RunRecord:
        run = self.lab.wait(self.start(unit, policy).run_id)
        assert run.state is RunState.COMPLETED, run.error
        return run

    def rows(self, table: str, columns: str) -> list[tuple[object, ...]]:
        return self.server.execute(
            f"SELECT {columns} FROM cdm.cdm_{table} WHERE NOT is_deleted ORDER BY 1", self.database
        )

    def everything(self, table: str) -> list[tuple[object, ...]]:
        return self.server.execute(
            f"SELECT xmin::text, * FROM cdm.cdm_{table} ORDER BY cdm_id", self.database
        )

    def assert_true(self) -> None:
        """The table's live rows are the site's issues."""
        upstream = [
            (str(id_), issue["key"], issue["fields"]["summary"])
            for id_, issue in self.jira.issues().items()
        ]
        assert self.rows("work_item", "source_id, item_key, summary") == sorted(upstream)


@pytest.fixture(scope="module")
def jira() -> Iterator[JiraServer]:
    with JiraServer() as server:
        yield server


@pytest.fixture
def model(lab: Lab, jira: JiraServer, postgres: PostgresServer) -> Model:
    if not jira.issues():
        jira.do("add_project", key="SHOP")
        jira.do("generate", project="SHOP", count=ISSUES)
    database = f"model_{next(NUMBERS)}"
    postgres.create_database(database)
    url = f"postgresql://{postgres.user}@{postgres.host}:{postgres.port}/{database}"
    source = endpoint(lab.ports, "JIRA", {"baseUrl": jira.url, "user": USER}, {"apiToken": TOKEN})
    sink = SinkId(endpoint(lab.ports, "cdm.jdbc", {"connectionUrl": url}))
    collect_catalog(PRINCIPAL, lab.ports, TENANT, source)
    for model_id in ("cdm.work.item", "cdm.work.project", "cdm.work.user"):
        provision_cdm_sink(PRINCIPAL, lab.ports, TENANT, sink, model_id)
    return Model(lab, jira, postgres, database, source, sink)


def endpoint(
    ports: Ports, type_: str, config: dict[str, JsonValue], secrets: dict[str, str] | None = None
) -> EndpointId:
    endpoint_id, now = EndpointId(uuid.uuid4().hex), ports.clock()
    if secrets:
        ports.credentials.put(TENANT, endpoint_id, secrets)
    ports.metadata.put_endpoint(
        EndpointRecord(
            endpoint_id=endpoint_id,
            tenant_id=TENANT,
            name=f"{type_} {endpoint_id[:8]}",
            type=type_,
            config=config,
            credential_name=endpoint_id if secrets else None,
            created_at=now,
            updated_at=now,
        )
    )
    return endpoint_id


def test_ac2_and_ac4_rows_of_a_unit_are_mapped_by_the_registry_and_land_in_the_models_table(
    model: Model,
):
    run = model.load()
    model.assert_true()
    assert run.rows == len(model.jira.issues())
    model.load("jira.projects")
    projects = dict(model.rows("work_project", "cdm_id, project_key"))
    assert set(projects.values()) == {"SHOP"}
    referred = {id_ for (id_,) in model.rows("work_item", "DISTINCT project_cdm_id")}
    assert referred == set(projects)
    assert model.rows("work_item", "DISTINCT run_id") == [(run.run_id,)]


def test_running_again_changes_nothing_and_changes_arrive(model: Model):
    model.load()
    before = model.everything("work_item")
    model.load()
    model.load(policy=CDM.model_copy(update={"run_mode": RunMode.FULL}))
    assert model.everything("work_item") == before
    ids = sorted(int(id_) for id_ in model.jira.issues())
    model.jira.do("edit", id_=ids[0], fields={"summary": "edited"})
    model.jira.do("delete", id_=ids[1])
    model.jira.do("add_issues", project="SHOP", first_id=max(ids) + 1, summaries=["new"])
    model.load()
    model.assert_true()


@pytest.mark.parametrize(
    "step",
    [
        Step.READING,
        Step.WRITING,
        Step.WRITTEN,
        Step.COMMITTING,
        Step.COMMITTED,
        Step.CHECKPOINTED,
        Step.RECORDED,
    ],
)
def test_a_process_killed_at_any_step_costs_nothing_but_time(model: Model, step: Step):
    model.lab.faults.arm(step)
    model.load()
    assert not model.lab.faults.is_armed(step), "the fault never happened"
    model.assert_true()
    before = model.everything("work_item")
    model.load()
    assert model.everything("work_item") == before


def test_the_catalog_collects_the_models_of_units(model: Model):
    source = build_source(model.lab.ports, TENANT, model.source)
    try:
        unit = source.describe_unit(UnitId("jira.issues"))
    finally:
        source.close()
    stored = model.lab.ports.metadata.get_unit(TENANT, model.source, UnitId("jira.issues"))
    assert stored.cdm_model_id == unit.cdm_model_id == "cdm.work.item"

"""Runs into the canonical data model on a cluster: Jira to PostgreSQL, whoever dies on the way.

Named after the acceptance criteria of the strategy specification: AC2 is Source → Staging → Sink
for such runs too, AC4 that mapping is the registry's and what runs a unit knows no vendor. Walks of
all three sources are in `test_cdm_walks`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from matih_ray.control.building import build_source
from matih_ray.execution.steps import Step
from matih_ray.model.ids import UnitId
from matih_ray.testing.devstack.jira import JiraServer
from matih_ray.testing.devstack.postgres import PostgresServer
from tests.ray.cdm_lab import Model
from tests.ray.lab import TENANT, Lab
from tests.ray.upstream_jira import JiraUpstream

ISSUES = ["jira.issues"]
SIZE = 400


@pytest.fixture(scope="module")
def upstream() -> Iterator[JiraUpstream]:
    with JiraServer() as server:
        upstream = JiraUpstream(server, clock_h=0, zone="UTC")
        upstream.fill(SIZE)
        yield upstream


@pytest.fixture
def model(lab: Lab, upstream: JiraUpstream, postgres: PostgresServer) -> Model:
    return Model.open(lab, postgres, upstream)


def test_ac2_and_ac4_rows_of_a_unit_are_mapped_by_the_registry_and_land_in_the_models_table(
    model: Model,
):
    units = ["jira.issues", "jira.projects"]
    run, _ = model.load(units)
    model.assert_true(units)
    items, projects = model.table("cdm.work.item"), model.table("cdm.work.project")
    assert run.rows == len(items)
    assert {row["run_id"] for row in items.values()} == {run.run_id}
    referred = {row["project_cdm_id"] for row in items.values()}
    assert referred == {row["cdm_id"] for row in projects.values()}


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
    model.load(ISSUES)
    assert not model.lab.faults.is_armed(step), "the fault never happened"
    model.assert_true(ISSUES)
    before = model.table("cdm.work.item")
    model.load(ISSUES)
    assert model.table("cdm.work.item") == before


def test_the_catalog_collects_the_models_of_units(model: Model):
    source = build_source(model.lab.ports, TENANT, model.source)
    try:
        unit = source.describe_unit(UnitId("jira.issues"))
    finally:
        source.close()
    stored = model.lab.ports.metadata.get_unit(TENANT, model.source, UnitId("jira.issues"))
    assert stored.cdm_model_id == unit.cdm_model_id == "cdm.work.item"

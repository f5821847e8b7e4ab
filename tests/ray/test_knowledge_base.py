"""A run of Jira's issues into the knowledge base, whose process dies behind its first commit."""

from __future__ import annotations

from matih_ray.control import knowledge
from matih_ray.control.authorization import Principal, Role
from matih_ray.control.catalog import collect_catalog
from matih_ray.control.loads import LoadRequest
from matih_ray.control.runs import start_run
from matih_ray.execution.steps import Step
from matih_ray.model.ids import EndpointId, SinkId, UnitId
from matih_ray.model.knowledge import KnowledgeNode, NodeKind
from matih_ray.model.policy import DataMode, IngestionPolicy, RunMode, Verify
from matih_ray.model.run import RunState
from matih_ray.testing.devstack.jira import TOKEN, USER, JiraServer
from tests.ray.cdm_lab import endpoint
from tests.ray.lab import TENANT, Lab

PRINCIPAL = Principal("tests", TENANT, frozenset({Role.ADMIN}))
ISSUES = 300
CDM = IngestionPolicy(
    mode=DataMode.CDM,
    run_mode=RunMode.INCREMENTAL,
    target_slice_rows=100,
    commit_interval_s=0,
    verify=Verify.CHECKSUM,
)


def load(lab: Lab, source: EndpointId, unit: str, policy: IngestionPolicy = CDM) -> None:
    request = LoadRequest(
        endpoint_id=source, unit_id=UnitId(unit), sink_id=SinkId("kb"), policy=policy
    )
    run = lab.wait(start_run(PRINCIPAL, lab.ports, TENANT, request).run_id)
    assert run.state is RunState.COMPLETED, run.error


def issues(lab: Lab) -> list[KnowledgeNode]:
    page = knowledge.search(
        PRINCIPAL, lab.ports, TENANT, "KNOW-", kinds=[NodeKind.ISSUE], limit=500
    )
    return list(page.items)


def test_runs_fill_the_knowledge_base_once_and_lead_from_issues_to_their_connector(lab: Lab):
    with JiraServer() as jira:
        jira.do("add_project", key="KNOW")
        jira.do("generate", project="KNOW", count=ISSUES)
        config = {"baseUrl": jira.url, "user": USER}
        source = endpoint(lab.ports, "JIRA", config, {"apiToken": TOKEN})
        collect_catalog(PRINCIPAL, lab.ports, TENANT, source)
        lab.faults.arm(Step.COMMITTED)
        load(lab, source, "jira.issues")
        assert not lab.faults.is_armed(Step.COMMITTED), "the fault never happened"
        load(lab, source, "jira.projects")
        found = issues(lab)
        upstream = {one["key"]: one["fields"]["summary"] for one in jira.issues().values()}
        assert {one.key: one.title for one in found} == upstream
        load(lab, source, "jira.issues", CDM.model_copy(update={"run_mode": RunMode.FULL}))
        assert issues(lab) == found
    way = knowledge.path(
        PRINCIPAL, lab.ports, TENANT, found[0].node_id, f"connector:{source}", max_depth=4
    )
    assert [edge.kind for edge in way.edges] == ["in_project", "read_from", "part_of"]
    assert [node.kind for node in way.nodes] == [
        NodeKind.ISSUE,
        NodeKind.PROJECT,
        NodeKind.DATASET,
        NodeKind.CONNECTOR,
    ]

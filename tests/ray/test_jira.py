"""Jira on a cluster: a project that cannot be read is reported, and a spent quota is waited for."""

from __future__ import annotations

import time
from dataclasses import replace

from matih_ray.control.building import build_source
from matih_ray.execution.checkpoints import StoredCheckpoint
from matih_ray.execution.provider_actor import cluster_services
from matih_ray.model.ids import SinkId, UnitId
from matih_ray.model.policy import IngestionPolicy, RunMode
from matih_ray.model.run import RunState, unread_parts
from matih_ray.testing.devstack.jira import TOKEN, USER, JiraServer
from matih_ray.testing.iceberg import load_table
from tests.ray.cdm_lab import endpoint
from tests.ray.lab import RUN_TIMEOUT_S, TENANT, Lab

UNIT, PROJECTS = UnitId("jira.issues"), UnitId("jira.projects")
QUOTA = "jira-quota-tenant-based"
# Longer than a task waits by itself.
QUOTA_S = 25


def tracker_of(lab: Lab, jira: JiraServer) -> Lab:
    """The lab with a Jira connector in place of its database."""
    config = {"baseUrl": jira.url, "user": USER}
    endpoint_id = endpoint(lab.ports, "JIRA", config, {"apiToken": TOKEN})
    source = build_source(lab.ports, TENANT, endpoint_id)
    for unit_id in (UNIT, PROJECTS):
        lab.ports.metadata.put_unit(TENANT, source.describe_unit(unit_id))
    source.close()
    return replace(lab, endpoint_id=endpoint_id)


def test_an_unreadable_project_is_a_partial_result_and_a_quota_is_waited_for(lab: Lab) -> None:
    with JiraServer() as jira:
        jira.do("generate", project="SHOP", count=300)
        tracker = tracker_of(lab, jira)
        governor = cluster_services(TENANT, "JIRA").governor
        refused = governor.state().refused  # to others of the tenant
        headers = {"Retry-After": str(QUOTA_S), "RateLimit-Reason": QUOTA}
        jira.fault("POST .*/issue/bulkfetch", 429, headers)
        policy = IngestionPolicy(
            run_mode=RunMode.INCREMENTAL, filter={"projectKeys": ["NONE", "SHOP"]}
        )
        started = tracker.start(UNIT, policy)
        deadline = time.monotonic() + RUN_TIMEOUT_S
        while not jira.calls("issue/bulkfetch"):
            assert time.monotonic() < deadline, "nothing was asked"
            time.sleep(0.05)
        # planned while the quota is spent
        other = tracker.wait(tracker.start(PROJECTS, IngestionPolicy()))
        assert (other.state, other.rows) == (RunState.COMPLETED, 1), other.error
        run = tracker.wait(started)
        assert run.state is RunState.COMPLETED, run.error
        (part,) = unread_parts(run)
        assert (part.part, part.error.code) == ("NONE", "PART_UNREADABLE")
        assert run.rows == 300
        checkpoint = StoredCheckpoint(lab.ports, run.stream).value
        assert checkpoint is not None
        assert set(checkpoint.cursor["projects"]) == {"SHOP"}  # type: ignore[index,call-overload,arg-type]  # an object
        under_way = len(jira.calls("issue/bulkfetch")) - 3
        assert 1 <= under_way <= 3, "with the refused one of three pages, then all of them again"
        assert run.target is not None
        table = load_table(lab.ports, TENANT, SinkId("iceberg"), run.target)
        assert table.scan().to_arrow().num_rows == 300
        state = governor.state()
        assert state.refused == refused + 1

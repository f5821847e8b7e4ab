"""Checkpoints: shown before and after, reset only while nothing runs, and then for good."""

from __future__ import annotations

from pathlib import Path

import pytest

from matih_ray.execution.checkpoints import reconcile_previous_run
from matih_ray.model.ids import RunId
from matih_ray.model.run import RunState
from matih_ray.testing.fakes import InlineLauncher
from tests.api.lab import TENANT, Lab, assert_problem, open_lab


def stream(endpoint_id: str) -> dict[str, str]:
    return {"endpointId": endpoint_id, "unitId": "public.orders"}


def test_a_stream_without_runs_has_no_checkpoint(lab: Lab):
    endpoint_id = lab.endpoint()
    assert lab.call("GET", "/checkpoints", params=stream(endpoint_id)).json() == {
        **stream(endpoint_id),
        "sinkId": "iceberg",
        "checkpoint": None,
        "state": None,
        "lastRunId": None,
        "lastCompletedRunId": None,
    }
    assert lab.call("DELETE", "/checkpoints", params=stream(endpoint_id)).status_code == 204


def test_a_checkpoint_tells_cursor_and_run(running_lab: Lab):
    lab = running_lab
    endpoint_id = lab.endpoint()
    run_id = lab.start(endpoint_id, cursorColumn="id").json()["runId"]
    body = lab.call("GET", "/checkpoints", params=stream(endpoint_id)).json()
    assert body["checkpoint"] == {
        "version": 1,
        "cursor": 1000,
        "cursorColumn": "id",
        "runId": run_id,
        "through": 1,
        "details": {},
    }
    assert (body["state"], body["lastRunId"], body["lastCompletedRunId"]) == (
        "COMPLETED",
        run_id,
        run_id,
    )
    other = {**stream(endpoint_id), "sinkId": "another"}
    assert lab.call("GET", "/checkpoints", params=other).json()["checkpoint"] is None


@pytest.mark.parametrize("state", [RunState.QUEUED, RunState.RUNNING])
def test_a_checkpoint_is_not_reset_under_an_active_run(lab: Lab, state: RunState):
    endpoint_id = lab.endpoint()
    run_id = lab.start(endpoint_id).json()["runId"]
    if state is RunState.RUNNING:
        run = lab.ports.metadata.get_run(TENANT, RunId(run_id))
        lab.ports.metadata.update_run(run.model_copy(update={"state": state, "epoch": 1}))
    response = lab.call("DELETE", "/checkpoints", params=stream(endpoint_id))
    problem = assert_problem(response, 409, "RUN_OVERLAP")
    assert problem["context"] == {"runId": run_id, "state": state.value}
    other = {**stream(endpoint_id), "unitId": "public.items"}
    assert lab.call("DELETE", "/checkpoints", params=other).status_code == 204


def test_after_a_reset_everything_is_loaded_again(running_lab: Lab):
    lab = running_lab
    endpoint_id = lab.endpoint()
    policy = {"runMode": "incremental", "cursorColumn": "id"}
    rows = []
    for _ in range(2):
        for _ in range(2):
            run_id = lab.start(endpoint_id, **policy).json()["runId"]
            rows.append(lab.call("GET", f"/runs/{run_id}").json()["rows"])
        lab.call("DELETE", "/checkpoints", params=stream(endpoint_id))
    assert rows == [1000, 0, 1000, 0]


def test_a_reset_is_not_undone_by_a_run_that_ended_badly(tmp_path: Path):
    """The next run asks the sink how far a badly ended run got, unless the checkpoint was reset."""
    launcher = InlineLauncher(stop_after=2, stop_as=RunState.FAILED)
    for lab in open_lab(tmp_path / "home", launcher):
        endpoint_id = lab.endpoint()
        policy = {"runMode": "incremental", "cursorColumn": "id", "targetSliceRows": 300}
        failed = lab.start(endpoint_id, **policy).json()["runId"]
        run = lab.ports.metadata.get_run(TENANT, RunId(failed))
        assert run.target is not None
        lab.call("DELETE", "/checkpoints", params=stream(endpoint_id))
        next_run = run.model_copy(update={"run_id": RunId("next")})
        reconcile_previous_run(lab.ports, next_run)  # would fail here if it asked the sink
        body = lab.call("GET", "/checkpoints", params=stream(endpoint_id)).json()
        assert body["checkpoint"] is None
        assert lab.call("POST", f"/runs/{failed}/resume").status_code == 202


def test_an_unknown_endpoint_has_no_streams(lab: Lab):
    for method in ("GET", "DELETE"):
        assert_problem(lab.call(method, "/checkpoints", params=stream("none")), 404, "NOT_FOUND")


def test_the_stream_must_be_named(lab: Lab):
    response = lab.call("DELETE", "/checkpoints", params={"endpointId": "e"})
    assert_problem(response, 422, "VALIDATION_FAILED")

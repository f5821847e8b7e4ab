"""Runs over HTTP: started once, watched without polling, stopped and resumed only when safe."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from matih_ray.control.authorization import Role
from matih_ray.model.ids import RunId
from matih_ray.model.run import RunRecord, RunRequest, RunState
from matih_ray.testing.fakes import InlineLauncher
from tests.api.lab import TENANT, Lab, assert_problem, open_lab


def run_of(lab: Lab, run_id: str) -> RunRecord:
    return lab.ports.metadata.get_run(TENANT, RunId(run_id))


def change(lab: Lab, run_id: str, **changes) -> RunRecord:
    return lab.ports.metadata.update_run(run_of(lab, run_id).model_copy(update=changes))


def test_a_started_run_is_queued_launched_and_shown(lab: Lab):
    endpoint_id = lab.endpoint()
    answer = lab.start(endpoint_id, targetSliceRows=10)
    assert answer.status_code == 201
    run = answer.json()
    assert answer.headers["location"] == f"runs/{run['runId']}"
    assert run["state"] == "QUEUED"
    assert run["progress"] is None
    assert lab.launcher.launched == [(TENANT, run["runId"])]
    assert lab.call("GET", f"/runs/{run['runId']}").json() == run
    stream = run_of(lab, run["runId"]).stream
    assert stream.kv_key() == (
        f"ingest::test.memory::endpoint::{endpoint_id}::unit::public.orders::sink::iceberg"
    )


def test_a_finished_run_tells_its_counts(running_lab: Lab):
    lab = running_lab
    run_id = lab.start(lab.endpoint(), targetSliceRows=300).json()["runId"]
    run = lab.call("GET", f"/runs/{run_id}").json()
    assert run["state"] == "COMPLETED"
    assert (run["rows"], run["slicesCommitted"], run["slicesTotal"]) == (1000, 4, 4)
    assert (run["progress"], run["estimatedRows"]) == (1.0, 1000)
    assert (run["strategy"], run["target"]) == ("memory-range", "memory.orders")
    page = lab.call("GET", f"/runs/{run_id}/slices?limit=3").json()
    assert [(item["sequence"], item["rows"]) for item in page["items"]] == [
        (0, 300),
        (1, 300),
        (2, 300),
    ]
    rest = lab.client.get(lab.path(f"/runs/{run_id}/slices") + page["next"]).json()
    assert [(item["key"], item["rows"]) for item in rest["items"]] == [("id:900-1000", 100)]
    assert rest["next"] is None


def test_a_failed_run_tells_why(running_lab: Lab):
    lab = running_lab
    endpoint_id = lab.endpoint(failsAt="read", failsWith="PERMISSION_DENIED")
    run_id = lab.start(endpoint_id).json()["runId"]
    run = lab.call("GET", f"/runs/{run_id}").json()
    assert run["state"] == "FAILED"
    assert (run["error"]["code"], run["error"]["recovery"]) == ("PERMISSION_DENIED", "abort")


def test_a_unit_has_one_run_at_a_time(lab: Lab):
    endpoint_id = lab.endpoint()
    first = lab.start(endpoint_id).json()["runId"]
    problem = assert_problem(lab.start(endpoint_id), 409, "RUN_OVERLAP")
    assert problem["context"]["runId"] == first
    assert lab.start(endpoint_id, unit_id="public.items").status_code == 201
    assert len(lab.launcher.launched) == 2


def test_one_key_starts_one_run_however_often_and_at_once(lab: Lab):
    endpoint_id = lab.endpoint()
    body = {"endpointId": endpoint_id, "unitId": "public.orders"}
    headers = {"Idempotency-Key": "5ba3-retry"}

    def start(_: int):
        return lab.call("POST", "/runs", json=body, headers=headers)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(start, range(8)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["runId"] for answer in answers}) == 1
    assert len(lab.call("GET", "/runs").json()["items"]) == 1


def test_a_key_returns_its_run_even_after_it_has_ended(running_lab: Lab):
    lab = running_lab
    body = {"endpointId": lab.endpoint(), "unitId": "public.orders"}
    headers = {"Idempotency-Key": "k"}
    first = lab.call("POST", "/runs", json=body, headers=headers).json()
    again = lab.call("POST", "/runs", json=body, headers=headers).json()
    assert (again["runId"], again["state"]) == (first["runId"], "COMPLETED")
    other = lab.call("POST", "/runs", json=body, headers={"Idempotency-Key": "k2"}).json()
    assert other["runId"] != first["runId"]


def test_a_key_cannot_be_used_for_another_request(lab: Lab):
    body = {"endpointId": lab.endpoint(), "unitId": "public.orders"}
    headers = {"Idempotency-Key": "k"}
    lab.call("POST", "/runs", json=body, headers=headers)
    for different in ({"unitId": "public.items"}, {"policy": {"exactCount": True}}):
        response = lab.call("POST", "/runs", json={**body, **different}, headers=headers)
        problem = assert_problem(response, 422, "VALIDATION_FAILED")
        assert problem["context"]["field"] == "Idempotency-Key"


def test_keys_of_other_callers_are_other_keys(running_lab: Lab):
    lab = running_lab
    body = {"endpointId": lab.endpoint(), "unitId": "public.orders"}
    runs = {
        lab.call(
            "POST",
            "/runs",
            json=body,
            headers={"Idempotency-Key": "k", **lab.as_(Role.ADMIN, subject=subject)},
        ).json()["runId"]
        for subject in ("ann", "bob")
    }
    assert len(runs) == 2


@pytest.mark.parametrize("key", ["", "a b", "x" * 201])
def test_a_strange_key_is_refused(lab: Lab, key: str):
    body = {"endpointId": lab.endpoint(), "unitId": "public.orders"}
    response = lab.call("POST", "/runs", json=body, headers={"Idempotency-Key": key})
    assert_problem(response, 422, "VALIDATION_FAILED")


def test_runs_are_listed_newest_first_and_filtered(running_lab: Lab):
    lab = running_lab
    shop, shed = lab.endpoint("shop"), lab.endpoint("shed", failsAt="read")
    started = [
        lab.start(shop).json()["runId"],
        lab.start(shop, unit_id="public.items").json()["runId"],
        lab.start(shed).json()["runId"],
    ]

    def listed(**params) -> list[str]:
        return [run["runId"] for run in lab.call("GET", "/runs", params=params).json()["items"]]

    assert listed() == started[::-1]
    assert listed(endpointId=shop) == started[1::-1]
    assert listed(unitId="public.orders") == [started[2], started[0]]
    assert listed(state="FAILED") == [started[2]]
    assert listed(state=["FAILED", "COMPLETED"]) == started[::-1]
    page = lab.call("GET", "/runs", params={"state": ["FAILED", "COMPLETED"], "limit": 2}).json()
    assert page["next"] == "?state=FAILED&state=COMPLETED&offset=2&limit=2"
    rest = lab.client.get(lab.path("/runs") + page["next"]).json()
    assert [run["runId"] for run in rest["items"]] == [started[0]]


@pytest.mark.parametrize(("action", "state"), [("pause", "PAUSED"), ("cancel", "CANCELLED")])
def test_a_queued_run_stops_at_once(lab: Lab, action: str, state: str):
    run_id = lab.start(lab.endpoint()).json()["runId"]
    for _ in range(2):  # the second time it has stopped already
        answer = lab.call("POST", f"/runs/{run_id}/{action}")
        assert answer.status_code == 202
        assert answer.json()["state"] == state


@pytest.mark.parametrize("action", ["pause", "cancel"])
def test_a_running_run_is_asked(lab: Lab, action: str):
    run_id = lab.start(lab.endpoint()).json()["runId"]
    change(lab, run_id, state=RunState.RUNNING, epoch=1)
    answer = lab.call("POST", f"/runs/{run_id}/{action}").json()
    assert (answer["state"], answer["requested"]) == ("RUNNING", action.upper())


def test_a_cancel_outdoes_a_pause_and_not_the_other_way_round(lab: Lab):
    run_id = lab.start(lab.endpoint()).json()["runId"]
    change(lab, run_id, state=RunState.RUNNING, epoch=1)
    for action in ("pause", "cancel", "pause"):
        answer = lab.call("POST", f"/runs/{run_id}/{action}").json()
    assert answer["requested"] == "CANCEL"


def test_a_paused_run_can_be_cancelled(lab: Lab):
    run_id = lab.start(lab.endpoint()).json()["runId"]
    lab.call("POST", f"/runs/{run_id}/pause")
    assert lab.call("POST", f"/runs/{run_id}/cancel").json()["state"] == "CANCELLED"
    assert run_of(lab, run_id).finished_at is not None


@pytest.mark.parametrize(
    ("state", "action"),
    [
        (RunState.COMPLETED, "pause"),
        (RunState.COMPLETED, "cancel"),
        (RunState.COMPLETED, "resume"),
        (RunState.FAILED, "pause"),
        (RunState.FAILED, "cancel"),
        (RunState.CANCELLED, "pause"),
        (RunState.CANCELLED, "resume"),
    ],
)
def test_an_ended_run_is_not_brought_back(lab: Lab, state: RunState, action: str):
    run_id = lab.start(lab.endpoint()).json()["runId"]
    change(lab, run_id, state=RunState.RUNNING, epoch=1)
    change(lab, run_id, state=state)
    problem = assert_problem(lab.call("POST", f"/runs/{run_id}/{action}"), 409, "CONFLICT")
    assert problem["context"]["state"] == state.value


@pytest.mark.parametrize("action", ["pause", "cancel", "resume"])
def test_an_unknown_run_cannot_be_told_anything(lab: Lab, action: str):
    assert_problem(lab.call("POST", f"/runs/none/{action}"), 404, "NOT_FOUND")
    assert_problem(lab.call("GET", "/runs/none/slices"), 404, "NOT_FOUND")


def test_resuming_an_active_run_changes_nothing(lab: Lab):
    run_id = lab.start(lab.endpoint()).json()["runId"]
    assert lab.call("POST", f"/runs/{run_id}/resume").json()["version"] == 1
    assert len(lab.launcher.launched) == 1


def test_a_run_that_is_about_to_stop_is_not_resumed(lab: Lab):
    run_id = lab.start(lab.endpoint()).json()["runId"]
    change(lab, run_id, state=RunState.RUNNING, epoch=1, requested=RunRequest.PAUSE)
    assert_problem(lab.call("POST", f"/runs/{run_id}/resume"), 409, "CONFLICT")


def test_a_resumed_run_overlaps_like_a_new_one(lab: Lab):
    endpoint_id = lab.endpoint()
    first = lab.start(endpoint_id).json()["runId"]
    lab.call("POST", f"/runs/{first}/pause")
    second = lab.start(endpoint_id).json()["runId"]
    problem = assert_problem(lab.call("POST", f"/runs/{first}/resume"), 409, "RUN_OVERLAP")
    assert problem["context"]["runId"] == second


@pytest.mark.parametrize("stop_as", [RunState.PAUSED, RunState.FAILED])
def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path, stop_as: RunState):
    launcher = InlineLauncher(stop_after=2, stop_as=stop_as)
    for lab in open_lab(tmp_path / "home", launcher):
        run_id = lab.start(lab.endpoint(), targetSliceRows=300).json()["runId"]
        stopped = lab.call("GET", f"/runs/{run_id}").json()
        assert (stopped["state"], stopped["rows"], stopped["progress"]) == (stop_as, 600, 0.5)
        launcher.stop_after = None
        assert lab.call("POST", f"/runs/{run_id}/resume").status_code == 202
        done = lab.call("GET", f"/runs/{run_id}").json()
        assert (done["state"], done["rows"], done["error"]) == ("COMPLETED", 1000, None)


@pytest.mark.parametrize("stop_as", [RunState.PAUSED, RunState.FAILED, RunState.CANCELLED])
def test_a_full_append_is_not_started_behind_a_half_finished_one(tmp_path: Path, stop_as: RunState):
    launcher = InlineLauncher(stop_after=2, stop_as=stop_as)
    append = {"writeMode": "append", "targetSliceRows": 300}
    for lab in open_lab(tmp_path / "home", launcher):
        endpoint_id = lab.endpoint()
        stopped = lab.start(endpoint_id, **append).json()["runId"]
        launcher.stop_after = None
        problem = assert_problem(lab.start(endpoint_id, **append), 409, "CONFLICT")
        assert problem["context"]["runId"] == stopped
        assert "reset the checkpoint" in problem["detail"]
        stream = {"endpointId": endpoint_id, "unitId": "public.orders"}
        assert lab.call("DELETE", "/checkpoints", params=stream).status_code == 204
        assert lab.start(endpoint_id, **append).status_code == 201


def test_a_full_append_may_follow_what_cannot_double_rows(tmp_path: Path):
    launcher = InlineLauncher(stop_after=0)
    for lab in open_lab(tmp_path / "home", launcher):
        endpoint_id = lab.endpoint()
        append = {"writeMode": "append", "targetSliceRows": 300}
        assert lab.start(endpoint_id, **append).status_code == 201  # committed nothing
        launcher.stop_after = 2
        assert lab.start(endpoint_id, targetSliceRows=300).status_code == 201  # an overwrite
        launcher.stop_after = None
        assert lab.start(endpoint_id, **append).status_code == 201
        assert lab.start(endpoint_id, **append).status_code == 201  # twice, as asked


def test_a_run_is_not_resumed_once_another_has_loaded_its_stream(tmp_path: Path):
    launcher = InlineLauncher(stop_after=1)
    for lab in open_lab(tmp_path / "home", launcher):
        endpoint_id = lab.endpoint()
        policy = {"targetSliceRows": 300, "cursorColumn": "id"}
        first = lab.start(endpoint_id, **policy).json()["runId"]
        launcher.stop_after = None
        second = lab.start(endpoint_id, runMode="incremental", **policy).json()["runId"]
        assert lab.call("GET", f"/runs/{second}").json()["rows"] == 700
        problem = assert_problem(lab.call("POST", f"/runs/{first}/resume"), 409, "CONFLICT")
        assert problem["context"]["runId"] == second


def test_waiting_ends_with_the_next_change(lab: Lab):
    run_id = lab.start(lab.endpoint()).json()["runId"]
    answers = []
    waiting = threading.Thread(
        target=lambda: answers.append(lab.call("GET", f"/runs/{run_id}?waitS=30&sinceVersion=1"))
    )
    waiting.start()
    change(lab, run_id, state=RunState.RUNNING, epoch=1)
    waiting.join(timeout=60)
    assert answers[0].json()["state"] == "RUNNING"
    assert answers[0].json()["version"] == 2


@pytest.mark.parametrize(
    "query", ["", "?waitS=0&sinceVersion=1", "?waitS=30&sinceVersion=0", "?waitS=30"]
)
def test_nothing_is_waited_for_that_is_there(lab: Lab, query: str):
    run_id = lab.start(lab.endpoint()).json()["runId"]
    assert lab.call("GET", f"/runs/{run_id}{query}").json()["version"] == 1


def test_an_ended_run_is_not_waited_for(running_lab: Lab):
    lab = running_lab
    run_id = lab.start(lab.endpoint()).json()["runId"]
    answer = lab.call("GET", f"/runs/{run_id}?waitS=30&sinceVersion=999").json()
    assert answer["state"] == "COMPLETED"


def test_a_wait_that_sees_no_change_answers_as_it_is(lab: Lab):
    run_id = lab.start(lab.endpoint()).json()["runId"]
    answer = lab.call("GET", f"/runs/{run_id}?waitS=0.5&sinceVersion=1").json()
    assert (answer["state"], answer["version"]) == ("QUEUED", 1)


@pytest.mark.parametrize("wait_s", ["31", "-1", "forever", "nan"])
def test_waits_are_bounded(lab: Lab, wait_s: str):
    response = lab.call("GET", f"/runs/r1?waitS={wait_s}&sinceVersion=1")
    assert_problem(response, 422, "VALIDATION_FAILED")

"""Schedules over HTTP: they start runs when they are due, once for each time."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from matih_ray.control.schedules import start_due_runs
from matih_ray.model.run import RunState
from tests.api.lab import TENANT, Lab, assert_problem


def create(lab: Lab, endpoint_id: str, **changes: object):
    body = {
        "endpointId": endpoint_id,
        "unitId": "public.orders",
        "policy": {"runMode": "incremental", "cursorColumn": "id"},
        "timing": {"everyS": 600},
        **changes,
    }
    return lab.call("POST", "/schedules", json=body)


def made(lab: Lab, **changes: object) -> dict:
    answer = create(lab, lab.endpoint(), **changes)
    assert answer.status_code == 201, answer.text
    return answer.json()


def shown(lab: Lab, schedule: dict) -> dict:
    return lab.call("GET", f"/schedules/{schedule['scheduleId']}").json()


def at(lab: Lab, minutes: float):
    """The ports as they are some minutes from now."""
    moment = lab.ports.clock() + timedelta(minutes=minutes)
    return replace(lab.ports, clock=lambda: moment)


def runs(lab: Lab) -> list[dict]:
    return lab.call("GET", "/runs").json()["items"]


def test_a_schedule_starts_a_run_when_it_is_due_and_only_then(lab: Lab):
    schedule = made(lab)
    created, due = (datetime.fromisoformat(schedule[key]) for key in ("createdAt", "dueAt"))
    assert due - created == timedelta(seconds=600)
    assert start_due_runs(at(lab, 9)) == 0
    assert start_due_runs(at(lab, 10.1)) == 1
    assert start_due_runs(at(lab, 10.1)) == 0
    (run,) = runs(lab)
    assert run["policy"]["runMode"] == "incremental"
    after = shown(lab, schedule)
    assert after["last"]["outcome"] == "STARTED"
    assert after["last"]["runId"] == run["runId"]
    assert datetime.fromisoformat(after["dueAt"]) == created + timedelta(seconds=1200)


def test_times_that_passed_unseen_are_made_up_for_once(lab: Lab):
    schedule = made(lab)
    assert start_due_runs(at(lab, 60 * 24 * 3)) == 1
    assert len(runs(lab)) == 1
    due = datetime.fromisoformat(shown(lab, schedule)["dueAt"])
    assert due > lab.ports.clock() + timedelta(days=3)


def test_one_time_starts_one_run_even_if_it_was_not_noted(lab: Lab):
    """The process that started the run died before it wrote that down."""
    schedule = made(lab)
    before = lab.ports.metadata.get_schedule(TENANT, schedule["scheduleId"])
    assert start_due_runs(at(lab, 11)) == 1
    noted = lab.ports.metadata.get_schedule(TENANT, schedule["scheduleId"])
    lab.ports.metadata.put_schedule(before.model_copy(update={"version": noted.version}))
    assert start_due_runs(at(lab, 11)) == 1
    assert len(runs(lab)) == 1


@pytest.mark.parametrize(("overlap", "outcome"), [("skip", "SKIPPED"), ("wait", None)])
def test_an_active_run_is_not_overlapped(lab: Lab, overlap: str, outcome: str | None):
    schedule = made(lab, timing={"everyS": 600, "overlap": overlap})
    active = lab.start(schedule["endpointId"]).json()["runId"]
    assert start_due_runs(at(lab, 11)) == 1
    assert len(runs(lab)) == 1
    last = shown(lab, schedule)["last"]
    assert (last and last["outcome"]) == outcome
    record = lab.ports.metadata.get_run(TENANT, active)
    running = lab.ports.metadata.update_run(
        record.model_copy(update={"state": RunState.RUNNING, "epoch": 1})
    )
    lab.ports.metadata.update_run(running.model_copy(update={"state": RunState.COMPLETED}))
    assert start_due_runs(at(lab, 12)) == (1 if overlap == "wait" else 0)
    assert len(runs(lab)) == (2 if overlap == "wait" else 1)


def test_what_cannot_start_is_shown_and_tried_again_next_time(lab: Lab):
    schedule = made(lab)
    endpoint_id = schedule["endpointId"]
    lab.ports.metadata.replace_units(TENANT, endpoint_id, [])
    assert start_due_runs(at(lab, 11)) == 1
    last = shown(lab, schedule)["last"]
    assert last["outcome"] == "FAILED"
    assert "[UNKNOWN_UNIT]" in last["message"]
    assert lab.call("POST", f"/endpoints/{endpoint_id}/collect").status_code == 200
    assert start_due_runs(at(lab, 21)) == 1
    assert shown(lab, schedule)["last"]["outcome"] == "STARTED"


def test_a_disabled_schedule_is_never_due(lab: Lab):
    schedule = made(lab)
    path = f"/schedules/{schedule['scheduleId']}"
    assert lab.call("PATCH", path, json={"enabled": False}).json()["dueAt"] is None
    assert start_due_runs(at(lab, 1000)) == 0
    assert lab.call("PATCH", path, json={"enabled": True}).json()["dueAt"] is not None
    assert start_due_runs(at(lab, 1000)) == 1


def test_deleting_a_connector_stops_its_schedules(lab: Lab):
    schedule = made(lab)
    assert lab.call("DELETE", f"/connectors/{schedule['endpointId']}").status_code == 204
    assert_problem(lab.call("GET", f"/schedules/{schedule['scheduleId']}"), 404, "NOT_FOUND")
    assert start_due_runs(at(lab, 1000)) == 0


def test_a_schedule_is_changed_and_deleted(lab: Lab):
    schedule = made(lab)
    path = f"/schedules/{schedule['scheduleId']}"
    changed = lab.call("PATCH", path, json={"timing": {"cron": "0 2 * * *"}, "version": 1}).json()
    assert changed["timing"]["cron"] == "0 2 * * *"
    assert changed["policy"] == schedule["policy"]
    stale = lab.call("PATCH", path, json={"enabled": False, "version": 1})
    assert_problem(stale, 409, "STATE_CONFLICT")
    assert lab.call("GET", "/schedules").json()["items"] == [changed]
    assert lab.call("GET", "/schedules?endpointId=other").json()["items"] == []
    assert lab.call("DELETE", path).status_code == 204
    assert_problem(lab.call("DELETE", path), 404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"timing": {}}, "timing"),
        ({"timing": {"cron": "tomorrow"}}, "timing.cron"),
        ({"timing": {"everyS": 1}}, "body.timing.everyS"),
        ({"timing": {"everyS": 60, "often": True}}, "body.timing.often"),
        ({"policy": {"cursorColumn": "nope"}}, "policy.cursorColumn"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(lab: Lab, changes: dict, field: str):
    answer = create(lab, lab.endpoint(), **changes)
    problem = assert_problem(answer, 422, "VALIDATION_FAILED")
    assert field in (problem["context"].get("field"), *(e["field"] for e in problem["errors"]))


def test_a_stream_has_one_schedule(lab: Lab):
    schedule = made(lab)
    again = create(lab, schedule["endpointId"])
    assert_problem(again, 409, "CONFLICT")
    assert create(lab, schedule["endpointId"], unitId="public.items").status_code == 201
    assert_problem(create(lab, schedule["endpointId"], unitId="gone"), 404, "UNKNOWN_UNIT")

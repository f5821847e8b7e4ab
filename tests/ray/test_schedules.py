"""A schedule on a cluster: the supervisor starts its runs, and new rows arrive by themselves."""

from __future__ import annotations

import time

import httpx

from matih_ray.model.ids import RunId
from matih_ray.model.run import RunState
from tests.ray.lab import Lab, create_table
from tests.ray.test_connectors import http  # noqa: F401 a fixture

GIVE_UP_AFTER_S = 90


def test_new_rows_are_loaded_without_anybody_asking(lab: Lab, http: httpx.Client):  # noqa: F811
    create_table(lab.server, lab.database, "t", rows=20_000)
    unit_id = lab.unit("t")
    policy = {"runMode": "incremental", "cursorColumn": "id"}
    body = {"endpointId": lab.endpoint_id, "unitId": unit_id, "policy": policy}
    created = http.post("/schedules", json={**body, "timing": {"everyS": 10}})
    assert created.status_code == 201, created.text
    path = f"/schedules/{created.json()['scheduleId']}"
    seen: list[str] = []
    rows = 0
    deadline = time.monotonic() + GIVE_UP_AFTER_S
    while rows < 20_500 and time.monotonic() < deadline:
        last = http.get(path).json()["last"]
        if last is None or last["runId"] in (None, *seen):
            time.sleep(0.5)
            continue
        seen.append(last["runId"])
        run = lab.wait(RunId(last["runId"]))
        assert run.state is RunState.COMPLETED, run.error
        rows += run.rows
        if len(seen) == 1:
            assert rows == 20_000
            lab.server.execute(
                "INSERT INTO t SELECT g, g, 'new' FROM generate_series(20001, 20500) g",
                lab.database,
            )
    assert http.delete(path).status_code == 204
    assert rows == 20_500

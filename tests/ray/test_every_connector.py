"""Every connector type goes the whole way: create, test, discover, full run, incremental run that
appends, incremental run that merges changes; and the Iceberg table holds the source's rows, one for
one."""

from __future__ import annotations

import pytest

from matih_ray.model.ids import SinkId
from matih_ray.model.run import RunRecord, RunState
from matih_ray.registry import BUILT_INS
from matih_ray.testing.iceberg import load_table
from tests.ray.lab import TENANT, Lab
from tests.ray.test_connectors import http  # noqa: F401 a fixture
from tests.ray.walks import WALKS, Walk, changed_name_of, name_of

FIRST_ROWS = 3000
ALL_ROWS = 3700
# The first row is left alone: in OneDrive it is the folder that holds the others.
CHANGED = range(2, 202)


def loaded(
    lab: Lab, run: RunRecord, columns: tuple[str, str] = ("id", "name")
) -> list[tuple[int, str]]:
    """What the run's table holds, in order."""
    assert run.state is RunState.COMPLETED, run.error
    assert run.target is not None
    table = load_table(lab.ports, TENANT, SinkId("iceberg"), run.target)
    rows = table.scan().to_arrow().select(list(columns)).to_pylist()
    id_, name = columns
    return sorted((int(row[id_]), row[name]) for row in rows)


def expected(last: int, changed: range = range(0)) -> list[tuple[int, str]]:
    return [
        (number, changed_name_of(number) if number in changed else name_of(number))
        for number in range(1, last + 1)
    ]


def test_every_built_in_type_is_walked():
    assert set(WALKS) == set(BUILT_INS["sources"])


@pytest.mark.parametrize("name", WALKS)
def test_a_connector_goes_the_whole_way(lab: Lab, http, name: str):  # noqa: F811
    with WALKS[name]() as walk:
        walk.add(1, FIRST_ROWS)
        created = http.post("/connectors", json={"name": f"{name}-{lab.database}", **walk.draft})
        assert created.status_code == 201, created.text
        connector = created.json()
        assert (connector["status"], connector["discovery"]["state"]) == ("ACTIVE", "COMPLETED")
        tested = http.post(f"/connectors/{connector['id']}/test").json()
        assert tested["success"], tested
        schemas = http.get(f"/connectors/{connector['id']}/schemas?limit=500").json()["schemas"]
        assert walk.unit_id in [table["unitId"] for s in schemas for table in s["tables"]]
        policy = {"targetSliceRows": 1000, "encodings": dict(walk.encodings)}
        if walk.cursor is not None:
            policy["cursorColumn"] = walk.cursor
        if walk.incremental:  # a full run that the next one can go on from
            policy["runMode"] = "incremental" if walk.cursor is None else "full"
        run = started(lab, http, connector["id"], walk, policy)
        assert loaded(lab, run, walk.columns) == expected(FIRST_ROWS)
        walk.add(FIRST_ROWS + 1, ALL_ROWS)
        if walk.incremental:
            policy["runMode"] = "incremental"
        run = started(lab, http, connector["id"], walk, policy)
        assert loaded(lab, run, walk.columns) == expected(ALL_ROWS)
        if walk.incremental:
            assert run.rows == ALL_ROWS - FIRST_ROWS
        walk.change(CHANGED[0], CHANGED[-1])
        policy |= {"writeMode": "merge", "keyColumns": [walk.columns[0]]}
        if not walk.finds_changes:  # a full run brings them
            policy["runMode"] = "full"
        run = started(lab, http, connector["id"], walk, policy)
        assert loaded(lab, run, walk.columns) == expected(ALL_ROWS, CHANGED)
        if walk.incremental and walk.finds_changes:
            assert run.rows == len(CHANGED) or (walk.overlaps and run.rows > len(CHANGED))
        assert http.delete(f"/connectors/{connector['id']}").status_code == 204


def started(lab: Lab, http, connector_id: str, walk: Walk, policy: dict) -> RunRecord:  # noqa: F811
    """A run of the walk's unit, at its end."""
    body = {"endpointId": connector_id, "unitId": walk.unit_id, "policy": policy}
    answer = http.post("/runs", json=body)
    assert answer.status_code == 201, answer.text
    return lab.wait(answer.json()["runId"])

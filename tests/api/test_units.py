"""Units come from the catalog, under any id that a source may have, and plans start nothing."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from matih_ray.model.ids import EndpointId, UnitId
from matih_ray.testing.fakes import COLUMNS
from tests.api.lab import TENANT, Lab, assert_problem

NASTY_IDS = [
    "public.orders",
    "a/b/c",
    "/",
    "//x//",
    "../../etc/hosts",
    '"Quoted Schema"."Ta.ble"',
    "with space",
    " ",
    "percent%2Fsign%",
    "plus+and&amp=1?x#y",
    "line\nbreak",
    "ends with a line break\n",
    "tab\t\x1b[31mred",
    "ümläut 🦆",
    "units/units",
]


def test_nothing_is_listed_before_the_catalog_was_collected(lab: Lab):
    endpoint_id = lab.endpoint(collect=False)
    assert lab.call("GET", f"/endpoints/{endpoint_id}/units").json()["items"] == []


def test_collecting_makes_the_catalog_what_the_source_shows(lab: Lab):
    endpoint_id = lab.endpoint()
    collected = lab.call("POST", f"/endpoints/{endpoint_id}/collect").json()
    assert collected == {
        "endpointId": endpoint_id,
        "units": 3,
        "skippedTotal": 0,
        "skipped": [],
    }
    change = {"config": {"tables": {"only.this": 1}}}
    lab.call("PUT", f"/endpoints/{endpoint_id}", json=change)
    lab.call("POST", f"/endpoints/{endpoint_id}/collect")
    units = lab.call("GET", f"/endpoints/{endpoint_id}/units").json()["items"]
    assert [unit["unitId"] for unit in units] == ["only.this"]


def test_collecting_a_pattern_leaves_the_rest_as_it_is(lab: Lab):
    endpoint_id = lab.endpoint()
    change = {"config": {"tables": {"public.new": 1, "sales.other": 1}}}
    lab.call("PUT", f"/endpoints/{endpoint_id}", json=change)
    answer = lab.call("POST", f"/endpoints/{endpoint_id}/collect", params={"pattern": "public.*"})
    assert answer.json()["units"] == 1
    units = lab.call("GET", f"/endpoints/{endpoint_id}/units").json()["items"]
    assert [unit["unitId"] for unit in units] == [
        "public.items",
        "public.new",
        "public.orders",
        "sales.empty",
    ]


def test_a_source_that_cannot_be_listed_leaves_the_catalog_as_it_was(lab: Lab):
    endpoint_id = lab.endpoint()
    change = {"config": {"failsAt": "list", "failsWith": "AUTHENTICATION_FAILED"}}
    lab.call("PUT", f"/endpoints/{endpoint_id}", json=change)
    response = lab.call("POST", f"/endpoints/{endpoint_id}/collect")
    assert_problem(response, 502, "AUTHENTICATION_FAILED")
    assert len(lab.call("GET", f"/endpoints/{endpoint_id}/units").json()["items"]) == 3


def test_units_that_may_not_be_described_are_a_reported_partial_result(lab: Lab):
    endpoint_id = lab.endpoint(collect=False, failsAt="describe", failsWith="PERMISSION_DENIED")
    answer = lab.call("POST", f"/endpoints/{endpoint_id}/collect").json()
    assert (answer["units"], answer["skippedTotal"]) == (0, 3)
    assert {item["error"]["code"] for item in answer["skipped"]} == {"PERMISSION_DENIED"}
    assert [item["unitId"] for item in answer["skipped"]] == [
        "public.items",
        "public.orders",
        "sales.empty",
    ]


def test_a_source_that_breaks_while_describing_fails_the_collection(lab: Lab):
    endpoint_id = lab.endpoint(collect=False, failsAt="describe", failsWith="TIMEOUT")
    assert_problem(lab.call("POST", f"/endpoints/{endpoint_id}/collect"), 504, "TIMEOUT")


def test_units_are_paged_and_filtered_by_a_glob(lab: Lab):
    endpoint_id = lab.endpoint(tables={f"s{n % 2}.t{n:03}": n for n in range(30)})
    url, seen = lab.path(f"/endpoints/{endpoint_id}/units?pattern=s1.*&limit=4"), []
    while url:
        page = lab.client.get(url).json()
        seen += [unit["unitId"] for unit in page["items"]]
        url = page["next"] and lab.path(f"/endpoints/{endpoint_id}/units") + page["next"]
    assert seen == [f"s1.t{n:03}" for n in range(1, 30, 2)]


@pytest.mark.parametrize("unit_id", NASTY_IDS, ids=ascii)
def test_any_unit_id_can_be_shown_planned_run_and_reset(running_lab: Lab, unit_id: str):
    lab = running_lab
    endpoint_id = lab.endpoint(tables={unit_id: 10, "decoy": 1})
    unit = lab.call("GET", f"/endpoints/{endpoint_id}/units/{quote(unit_id, safe='')}")
    assert unit.status_code == 200, unit.text
    assert unit.json()["unitId"] == unit_id
    request = {"endpointId": endpoint_id, "unitId": unit_id}
    assert lab.call("POST", "/plans", json=request).json()["unitId"] == unit_id
    started = lab.call("POST", "/runs", json=request).json()
    runs = lab.call("GET", "/runs", params={"unitId": unit_id}).json()["items"]
    assert [(run["runId"], run["rows"]) for run in runs] == [(started["runId"], 10)]
    assert lab.call("GET", "/checkpoints", params=request).json()["checkpoint"]["through"] == 1
    assert lab.call("DELETE", "/checkpoints", params=request).status_code == 204
    assert lab.call("GET", "/checkpoints", params=request).json()["checkpoint"] is None


@pytest.mark.parametrize("unit_id", [".", ".."])
def test_an_id_that_is_a_path_segment_of_its_own_is_found_by_pattern(lab: Lab, unit_id: str):
    endpoint_id = lab.endpoint(tables={unit_id: 10, "decoy": 1})
    found = lab.call("GET", f"/endpoints/{endpoint_id}/units", params={"pattern": unit_id}).json()
    assert [unit["unitId"] for unit in found["items"]] == [unit_id]


def test_a_unit_shows_how_each_column_arrives(lab: Lab):
    endpoint_id = lab.endpoint()
    unit = lab.call("GET", f"/endpoints/{endpoint_id}/units/public.orders").json()
    assert unit["columns"] == [column.to_dict() for column in COLUMNS]
    assert unit["primaryKey"] == ["id"]


def test_an_unknown_unit_is_said_to_be_unknown(lab: Lab):
    endpoint_id = lab.endpoint()
    response = lab.call("GET", f"/endpoints/{endpoint_id}/units/public.nothing")
    problem = assert_problem(response, 404, "UNKNOWN_UNIT")
    assert problem["context"]["unitId"] == "public.nothing"
    body = {"endpointId": endpoint_id, "unitId": "public.nothing"}
    for path in ("/plans", "/runs"):
        assert_problem(lab.call("POST", path, json=body), 404, "UNKNOWN_UNIT")


def test_a_plan_starts_nothing(lab: Lab):
    endpoint_id = lab.endpoint()
    body = {
        "endpointId": endpoint_id,
        "unitId": "public.orders",
        "policy": {"targetSliceRows": 400},
    }
    plan = lab.call("POST", "/plans", json=body).json()
    assert [slice_["params"] for slice_ in plan["slices"]] == [
        {"lower": 0, "upper": 400},
        {"lower": 400, "upper": 800},
        {"lower": 800, "upper": 1000},
    ]
    assert lab.call("POST", "/plans", json=body).json() == plan
    assert lab.launcher.launched == []
    assert lab.call("GET", "/runs").json()["items"] == []


def test_an_incremental_plan_starts_behind_the_checkpoint(running_lab: Lab):
    lab = running_lab
    endpoint_id = lab.endpoint()
    lab.start(endpoint_id, cursorColumn="id")
    lab.ports.metadata.get_unit(TENANT, EndpointId(endpoint_id), UnitId("public.orders"))
    change = {"config": {"tables": {"public.orders": 1100}}}
    lab.call("PUT", f"/endpoints/{endpoint_id}", json=change)
    body = {
        "endpointId": endpoint_id,
        "unitId": "public.orders",
        "policy": {"runMode": "incremental", "cursorColumn": "id"},
    }
    plan = lab.call("POST", "/plans", json=body).json()
    assert [slice_["params"] for slice_ in plan["slices"]] == [{"lower": 1000, "upper": 1100}]


@pytest.mark.parametrize(
    ("change", "status", "code", "field"),
    [
        ({"sinkId": "nowhere"}, 422, "VALIDATION_FAILED", "sinkId"),
        ({"stagingProviderId": "tape"}, 422, "VALIDATION_FAILED", "stagingProviderId"),
        ({"endpointId": "none"}, 404, "NOT_FOUND", None),
        ({"policy": {"columns": ["nope"]}}, 422, "VALIDATION_FAILED", "policy.columns"),
        ({"policy": {"columns": []}}, 422, "VALIDATION_FAILED", "policy.columns"),
        ({"policy": {"cursorColumn": "nope"}}, 422, "VALIDATION_FAILED", "policy.cursorColumn"),
        ({"policy": {"encodings": {"no": "text"}}}, 422, "VALIDATION_FAILED", "policy.encodings"),
        ({"policy": {"mode": "cdm"}}, 422, "CDM_MODEL_MISSING", "policy.mode"),
        ({"policy": {"colour": "red"}}, 422, "VALIDATION_FAILED", "body.policy.colour"),
        ({"policy": {"targetSliceRows": -1}}, 422, "VALIDATION_FAILED", None),
        ({"policy": {"targetFileBytes": -1}}, 422, "VALIDATION_FAILED", None),
        (
            {"policy": {"runMode": "incremental", "writeMode": "overwrite"}},
            422,
            "VALIDATION_FAILED",
            "body.policy",
        ),
        ({"unit": "public.orders"}, 422, "VALIDATION_FAILED", "body.unit"),
    ],
)
@pytest.mark.parametrize("path", ["/plans", "/runs"])
def test_a_load_that_does_not_fit_is_refused(
    lab: Lab, path: str, change: dict, status: int, code: str, field: str | None
):
    body = {"endpointId": lab.endpoint(), "unitId": "public.orders", **change}
    problem = assert_problem(lab.call("POST", path, json=body), status, code)
    if field is not None:
        assert problem["context"]["field"] == field
    assert lab.launcher.launched == []


def test_a_plan_that_cannot_be_made_is_a_typed_answer(lab: Lab):
    body = {
        "endpointId": lab.endpoint(),
        "unitId": "public.orders",
        "policy": {"runMode": "cdc"},
    }
    assert_problem(lab.call("POST", "/plans", json=body), 422, "PLAN_INVALID")

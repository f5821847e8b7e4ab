"""Our own Confluence speaks the vendor's API: each answer fits the vendor's description of it, and
each request of the source asks only for what is described there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import jsonschema
import pytest

from matih_ray.testing.devstack.confluence_site import TOKEN, USER, ConfluenceSite
from tests.fixtures.openapi_operations import Operations
from tests.integration.confluence_lab import Mirror

FIXTURE = Path(__file__).parents[1] / "fixtures" / "confluence.openapi.json.gz"
DESCRIBED = Operations(FIXTURE, closed=True)
PATHS = [name.removeprefix("GET ") for name in DESCRIBED.names]
ROOT = "/wiki/api/v2"


@pytest.fixture(scope="module")
def site() -> Iterator[ConfluenceSite]:
    with ConfluenceSite() as site:
        for number in range(60):
            site.put(str(100 + number), f"page {number}", "<p/>", parent="100" if number else None)
            site.comment(
                str(500 + number), str(100 + number), "c", "inline" if number % 2 else "footer"
            )
            site.label(str(100 + number), "plan")
        site.put("100", "second version")
        yield site


def described(path: str) -> str:
    """The description's path of a request's."""
    parts = path.removeprefix(ROOT).split("/")
    return "/".join("{id}" if part.isdigit() else part for part in parts)


@pytest.mark.parametrize("path", PATHS)
def test_an_answer_fits_the_description(site: ConfluenceSite, path: str):
    ids = {"/spaces/{id}/pages": "1", "/pages/{id}/versions": "100", "/labels/{id}/pages": "9000"}
    url = f"{site.url}{ROOT}{path.replace('{id}', ids.get(path, ''))}"
    query = {"body-format": "storage", "limit": "20", "description-format": "plain"}
    answer = httpx.get(url, params=query, auth=(USER, TOKEN), trust_env=False)
    assert answer.status_code == 200
    assert answer.json()["results"]
    assert DESCRIBED.problems(f"GET {path}", 200, answer.json()) == []


def test_what_does_not_fit_is_noticed(site: ConfluenceSite):
    answer = httpx.get(f"{site.url}{ROOT}/pages", auth=(USER, TOKEN), trust_env=False).json()
    answer["results"][0]["spaceKey"] = "SHOP"
    (problem,) = DESCRIBED.problems("GET /pages", 200, answer)
    assert "spaceKey" in problem


def test_requests_ask_for_what_is_described(site: ConfluenceSite):
    site.asked.clear()
    for unit in ("pages", "revisions", "links", "comments", "labels", "spaces"):
        mirror = Mirror(site, unit, spaceKeys=["SHOP"])
        mirror.run()
        site.tick(hours=1)
        site.put("101", f"again for {unit}")
        mirror.run()
        mirror.source.close()
    seen = set()
    for request in site.asked:
        path = described(request.url.path)
        seen.add(path)
        known = DESCRIBED.parameters(f"GET {path}")
        for name, value in request.query_params.items():
            assert name in known, f"{path} has no parameter {name}"
            _check(known[name], value)
    assert seen == set(PATHS)


def _check(schema: dict, value: str) -> None:
    """A parameter's text against its schema; lists are separated by commas."""
    if schema.get("type") == "array":
        kind = schema["items"].get("type")
        jsonschema.validate([int(v) if kind == "integer" else v for v in value.split(",")], schema)
    else:
        jsonschema.validate(int(value) if schema.get("type") == "integer" else value, schema)

"""`matih connectors …` against a real control API."""

from __future__ import annotations

import json

import pytest

from matih_ray.control.building import endpoint_spec
from matih_ray.control.discovery import begin_discovery
from matih_ray.model.ids import EndpointId
from tests.api.lab import PASSWORD, TABLES, TENANT, Lab
from tests.unit.test_cli_commands import Matih, lab, launcher, matih  # noqa: F401 fixtures

TABLES_SET = f"tables:={json.dumps(TABLES)}"
FAILING = ("--set", "failsAt=test", "--set", "failsWith=AUTHENTICATION_FAILED")


@pytest.fixture
def shop(lab: Lab, matih: Matih, monkeypatch: pytest.MonkeyPatch) -> str:  # noqa: F811
    """A connector's id."""
    monkeypatch.setenv("MATIH_SECRET_PASSWORD", PASSWORD)
    options = ("--set", TABLES_SET, "--set", "username=reader", "--set", "owner=sales")
    added = matih("connectors", "add", "shop", "--type", "MEMORY", *options, "--json")
    assert added.code == 0, added.err
    assert PASSWORD not in added.out + added.err
    return added.json["id"]


def test_a_connector_is_added_tested_and_discovered(lab: Lab, matih: Matih, shop: str):  # noqa: F811
    spec = endpoint_spec(lab.ports, TENANT, EndpointId(shop))
    assert spec.secrets == {"username": "reader", "password": PASSWORD}
    listed = matih("connectors", "list").rows
    assert [row[:4] for row in listed[1:]] == [["shop", "MEMORY", "ACTIVE", "3"]]
    assert matih("connectors", "list", "--json").json[0]["id"] == shop
    for reference in ("shop", shop):
        shown = dict(row for row in matih("connectors", "show", reference).rows if len(row) == 2)
        assert (shown["status"], shown["metadata.owner"]) == ("ACTIVE", "sales")


def test_a_connector_that_cannot_connect_is_not_added(lab: Lab, matih: Matih):  # noqa: F811
    refused = matih("connectors", "add", "shop", "--type", "MEMORY", "--no-ask", *FAILING)
    assert refused.code != 0
    assert "told to fail at test" in refused.err
    assert len(matih("connectors", "list").rows) == 1


def test_schemas_show_what_was_discovered(matih: Matih, shop: str):  # noqa: F811
    rows = matih("connectors", "schemas", "shop").rows
    assert rows[1:] == [
        ["public", "items", "TABLE", "4", "50", "2000"],
        ["public", "orders", "TABLE", "4", "1000", "40000"],
        ["sales", "empty", "TABLE", "4", "0", "0"],
    ]
    assert [schema["name"] for schema in matih("connectors", "schemas", shop, "--json").json] == [
        "public",
        "sales",
    ]
    discovered = matih("connectors", "discover", "shop", "--json").json
    assert discovered["discovery"]["state"] == "COMPLETED"


def test_a_test_shows_its_stages_and_exits_by_its_outcome(lab: Lab, matih: Matih, shop: str):  # noqa: F811
    good = matih("connectors", "test", "shop")
    assert (good.code, good.rows[-1]) == (0, ["ok: Memory 1.0"])
    lab.endpoint("bad", collect=False, failsAt="test", failsWith="TIMEOUT")
    bad = matih("connectors", "test", "bad")
    assert (bad.code, bad.rows[-1]) == (1, ["failed: told to fail at test [TIMEOUT]"])
    assert "firewalls" in bad.err
    assert matih("connectors", "test", "bad", "--json").json["errorCode"] == "TIMEOUT"


def test_credentials_are_rotated_from_the_environment(
    lab: Lab,  # noqa: F811
    matih: Matih,  # noqa: F811
    shop: str,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("MATIH_SECRET_PASSWORD", "another")
    assert matih("connectors", "rotate", "shop").code == 0
    spec = endpoint_spec(lab.ports, TENANT, EndpointId(shop))
    assert spec.secrets == {"username": "reader", "password": "another"}
    assert matih("connectors", "rotate", "shop", "--username", "bob").code == 0
    assert endpoint_spec(lab.ports, TENANT, EndpointId(shop)).config["user"] == "bob"


def test_a_connector_is_deleted_after_a_yes(matih: Matih, shop: str):  # noqa: F811
    refused = matih("connectors", "delete", "shop")
    assert (refused.code, "say --yes" in refused.err) == (2, True)
    assert matih("connectors", "delete", shop, "--yes").code == 0
    assert matih("connectors", "show", "shop").code == 2


def test_types_tell_what_they_need(lab: Lab, matih: Matih):  # noqa: F811
    rows = {row[0]: row for row in matih("connectors", "types").rows}
    assert rows["POSTGRESQL"][:3] == ["POSTGRESQL", "yes", "password"]
    assert "host" in rows["POSTGRESQL"][3]
    names = [plugin["name"] for plugin in matih("connectors", "types", "--json").json]
    assert names == sorted(names)


def test_a_running_discovery_is_cancelled_from_the_command_line(lab: Lab, matih: Matih, shop: str):  # noqa: F811
    assert begin_discovery(lab.ports, TENANT, EndpointId(shop))
    cancelled = matih("connectors", "discover", "shop", "--cancel", "--json").json
    assert cancelled["discovery"]["state"] == "CANCELLED"


def test_usage_is_shown(matih: Matih, shop: str):  # noqa: F811
    shown = dict(matih("connectors", "usage", "shop").rows)
    assert (shown["runs"], shown["rows"]) == ("0", "0")
    assert matih("connectors", "usage", shop, "--days", "7", "--json").json["runs"] == 0


def test_a_webhook_is_set_shown_tried_and_removed(
    lab: Lab,  # noqa: F811
    matih: Matih,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
):
    refused = matih("notifications", "set-webhook")
    assert "MATIH_SECRET_URL" in refused.err
    url = "http://127.0.0.1:9/hooks/token-4711"
    monkeypatch.setenv("MATIH_SECRET_URL", url)
    made = matih("notifications", "set-webhook")
    assert made.code == 0, made.err
    assert made.rows[1][0].startswith("whsec_")
    shown = matih("notifications", "webhook")
    assert "127.0.0.1" in shown.out
    tried = matih("notifications", "test-webhook")
    assert (tried.code, "failed: " in tried.out) == (1, True)
    assert "token-4711" not in made.out + shown.out + tried.out + tried.err
    assert matih("notifications", "list", "--json").json == []
    assert matih("notifications", "remove-webhook", "--yes").code == 0
    assert matih("notifications", "webhook").code != 0

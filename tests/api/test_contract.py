"""Requests made up from the OpenAPI description: none is answered 5xx or off its schema.

The description is all that is known about the application; the paths' tenant is the token's, and a
connector, an endpoint and a run exist, so that made-up requests get somewhere.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from matih_ray.api.limits import Limits
from matih_ray.control.authorization import Role
from matih_ray.registry import Registry
from matih_ray.testing.fakes import InlineLauncher, MemorySource
from tests.api.lab import TENANT, bearer, open_lab
from tests.api.test_authorization import ROUTES, TENANT_ROUTES

if sys.version_info < (3, 11):  # what schemathesis needs
    pytest.skip("schemathesis needs Python 3.11", allow_module_level=True)

import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks as conformance

# Types that connect to nothing: made-up hosts must not be looked for.
OFFLINE = Registry(
    {
        "sources": {"MEMORY": f"{MemorySource.__module__}:MemorySource"},
        "sinks": {"iceberg": "matih_ray.sinks.iceberg:IcebergSink"},
        "staging": {"object_store": "matih_ray.staging.object_store:ObjectStoreStaging"},
        "mappers": {},
    }
)
EXAMPLES = int(os.environ.get("EXAMPLES", "25"))
# The same requests each time, unless a seed asks for others: a search of its own is
# `SEED=$RANDOM EXAMPLES=1000 make test TESTS=tests/api/test_contract.py`.
CONTRACT_SEED = int(os.environ.get("SEED", "0"))
TENANT_PATHS = {(method, path) for method, path, _ in TENANT_ROUTES}
CHECKS = (
    not_a_server_error,
    conformance.status_code_conformance,
    conformance.content_type_conformance,
    conformance.response_schema_conformance,
)


@dataclass(frozen=True)
class Contract:
    """The description, and what exists in the application by the name of its path parameter."""

    schema: schemathesis.openapi.OpenApiSchema
    headers: dict[str, str]
    known: dict[str, str]

    def path(self, case: schemathesis.Case, *, existing: bool) -> dict[str, str]:
        """Made-up identifiers or those that exist. The tenant always does: else all was 403."""
        made_up = dict(case.path_parameters or {})
        # what exists shall go on existing
        chosen = self.known if existing and case.method != "DELETE" else {"tenantId": TENANT}
        return {name: chosen.get(name, value) for name, value in made_up.items()}


@pytest.fixture(scope="module")
def contract(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Contract]:
    home: Path = tmp_path_factory.mktemp("contract")
    for lab in open_lab(home, InlineLauncher(), Limits(long_poll_s=0.1), OFFLINE):
        endpoint_id = lab.endpoint()
        run_id = lab.start(endpoint_id).json()["runId"]
        yield Contract(
            schemathesis.openapi.from_asgi("/api/v1/openapi.json", lab.app),
            bearer(lab.ports.settings, Role.DATA_ENGINEER),
            {
                "tenantId": TENANT,
                "endpointId": endpoint_id,
                "connectorId": endpoint_id,
                "unitId": "public.orders",
                "runId": run_id,
            },
        )


@pytest.mark.parametrize(("method", "path"), sorted(ROUTES))
def test_no_made_up_request_breaks_the_description(contract: Contract, method: str, path: str):
    tenants = "/tenants/{tenantId}" if (method, path) in TENANT_PATHS else ""
    operation = contract.schema[f"/api/v1{tenants}{path}"][method]

    @seed(CONTRACT_SEED)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.explicit, Phase.generate),  # a found case is small enough as it is
    )
    @given(case=operation.as_strategy(), existing=st.booleans())
    def send(case: schemathesis.Case, *, existing: bool) -> None:
        case.path_parameters = contract.path(case, existing=existing)
        case.call_and_validate(headers=contract.headers, checks=CHECKS)

    send()

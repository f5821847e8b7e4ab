"""GraphQL over HTTP: one path for all operations of a tenant."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Request

from matih_ray.api.graphql import GraphqlAnswer, GraphqlRequest, execute
from matih_ray.api.graphql.context import OperationContext
from matih_ray.api.requests import PrincipalOf, RuntimeOf, TenantPath
from matih_ray.control.authorization import Action, authorize

router = APIRouter(prefix="/tenants/{tenantId}/graphql", tags=["graphql"])

_OPERATION = {
    "units": {
        "summary": "Units of an endpoint and where they stand",
        "value": {
            "query": "query($id: ID!) { ingestionUnits(endpointId: $id) "
            "{ items { unitId estimatedRows status { state } } } }",
            "variables": {"id": "0b1f…"},
        },
    }
}


@router.post("", summary="Execute a GraphQL operation")
def execute_graphql(
    tenant_id: TenantPath,
    operation: Annotated[GraphqlRequest, Body(openapi_examples=_OPERATION)],
    request: Request,
    principal: PrincipalOf,
    runtime: RuntimeOf,
) -> GraphqlAnswer:
    """Answers 200 with `errors` when the operation fails; each has the problem that REST would
    answer under `extensions`."""
    authorize(principal, Action.READ, tenant_id)
    context = OperationContext(principal, tenant_id, runtime.ports, request.state.request_id)
    return execute(operation, context)

"""REST and GraphQL under the source contract: pages by number and offset, and a cursor."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from matih_ray.model.ids import EndpointId, TenantId
from matih_ray.model.policy import IngestionPolicy, RunMode
from matih_ray.sources.base import EndpointSpec
from matih_ray.sources.http import GraphqlSource, RestSource
from matih_ray.testing.contracts.source import SourceCase, SourceContract
from matih_ray.testing.devstack.http_apis import HttpApis

SECRET = "a-secret-nobody-may-see"
RECORDS = 2300
INCREMENTAL = IngestionPolicy(run_mode=RunMode.INCREMENTAL, cursor_column="id")
ITEM = "{ id name detail }"


@pytest.fixture(scope="module")
def api() -> Iterator[HttpApis]:
    records = [
        {"id": n, "name": f"name {n}", "price": n / 8, "detail": {"tags": ["a", n]}}
        for n in range(1, RECORDS + 1)
    ]
    with HttpApis(records) as api:
        api.accepts = lambda request: (
            200 if SECRET in (request.headers.get("Authorization", "") + str(request.url)) else 401
        )
        yield api


def rest_case(api: HttpApis, style: str, *policies: IngestionPolicy) -> SourceCase:
    declared = {"page": {"sizeParam": "limit"}, "offset": {}}[style]
    stream = {
        "name": "items",
        "path": f"/pages/{style}",
        "recordPath": "data",
        "primaryKey": ["id"],
        "pagination": {"style": style, "size": 300, "totalPath": "meta.total", **declared},
        "cursor": {
            "field": "id",
            "type": "integer",
            "param": "since",
            "upperParam": "until",
            "probe": {"sort": "newest"},
            "start": 0,
        },
    }
    empty = {"name": "nothing", "path": "empty", "recordPath": "data"}
    spec = EndpointSpec(
        tenant_id=TenantId("tenant"),
        endpoint_id=EndpointId("endpoint"),
        name="test",
        type="REST",
        config={
            "baseUrl": api.url,
            "auth": {"kind": "apiKey", "location": "query", "name": "api_key"},
            "streams": [stream, empty],
        },
        secrets={"apiKey": SECRET},
    )
    return SourceCase(
        build=lambda: RestSource(spec),
        unit_id="items",
        unknown_unit_id="nowhere",
        empty_unit_id="nothing",
        target_rows=600,
        policies=policies or (IngestionPolicy(),),
        open_connections=api.connections,
        secret=SECRET,
    )


class TestNumberedPages(SourceContract):
    @pytest.fixture
    def case(self, api: HttpApis) -> SourceCase:
        return rest_case(api, "page", IngestionPolicy(), INCREMENTAL)


class TestOffsets(SourceContract):
    @pytest.fixture
    def case(self, api: HttpApis) -> SourceCase:
        return rest_case(api, "offset")


class TestGraphql(SourceContract):
    @pytest.fixture
    def case(self, api: HttpApis) -> SourceCase:
        arguments = "($offset: Int!, $limit: Int!)"
        listed = f"query {arguments} {{ total listed(offset: $offset, limit: $limit) {ITEM} }}"
        nothing = f"query {arguments} {{ nothing(offset: $offset, limit: $limit) {ITEM} }}"
        spec = EndpointSpec(
            tenant_id=TenantId("tenant"),
            endpoint_id=EndpointId("endpoint"),
            name="test",
            type="GRAPHQL",
            config={
                "url": f"{api.url}/graphql",
                "auth": {"kind": "bearer"},
                "streams": [
                    {
                        "name": "items",
                        "query": listed,
                        "recordPath": "listed",
                        "pagination": "offset",
                        "pageSize": 300,
                        "totalPath": "total",
                        "primaryKey": ["id"],
                    },
                    {
                        "name": "nothing",
                        "query": nothing,
                        "recordPath": "nothing",
                        "pagination": "offset",
                    },
                ],
            },
            secrets={"token": SECRET},
        )
        return SourceCase(
            build=lambda: GraphqlSource(spec),
            unit_id="items",
            unknown_unit_id="nowhere",
            empty_unit_id="nothing",
            target_rows=600,
            open_connections=api.connections,
            secret=SECRET,
        )

"""A REST catalog that answers to OAuth client credentials with a scope, and vends credentials of
its storage. Guarded by our own devstack catalog."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from matih_ray.errors import CommitRejectedError, MatihError
from matih_ray.model.policy import WriteMode
from matih_ray.settings import Settings
from matih_ray.testing.contracts.sink_lab import (
    assert_rows,
    batch,
    marker,
    target,
    write,
)
from matih_ray.testing.devstack.dynamodb import ACCESS_KEY_ID, REGION
from matih_ray.testing.devstack.iceberg_guard import Guard
from matih_ray.testing.devstack.iceberg_rest import IcebergRestServer
from matih_ray.testing.devstack.object_stores import SECRET_ACCESS_KEY, S3Server
from matih_ray.testing.iceberg import IcebergLake

GUARD = Guard()


class Lake(IcebergLake):
    """A guarded catalog as one client of it sees it."""

    def __init__(self, home: Path, server: IcebergRestServer, **properties: str) -> None:
        told = {
            "credential": f"{GUARD.client_id}:{GUARD.client_secret}",
            "scope": GUARD.scope,
            "oauth2-server-uri": f"{server.uri}/v1/oauth/tokens",
            **{name.replace("_", "-"): value for name, value in properties.items()},
        }
        super().__init__(
            Settings(
                home=home,
                iceberg_catalog_type="rest",
                iceberg_catalog_uri=server.uri,
                iceberg_properties=json.dumps(told),
            )
        )


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with S3Server() as server:
        server.create_bucket("lake")
        yield server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, s3: S3Server) -> Iterator[IcebergRestServer]:
    """Its storage is one that clients know nothing of: address and keys are vended."""
    storage = {
        "s3.endpoint": s3.url,
        "s3.region": REGION,
        "s3.access-key-id": ACCESS_KEY_ID,
        "s3.secret-access-key": SECRET_ACCESS_KEY,
    }
    guard = Guard(warehouse="s3://lake/guarded", own=storage, vended=storage)
    with IcebergRestServer(tmp_path_factory.mktemp("rest"), guard) as running:
        yield running


@pytest.fixture
def lake(tmp_path: Path, server: IcebergRestServer) -> Lake:
    return Lake(tmp_path, server)


@pytest.mark.parametrize("mode", list(WriteMode), ids=lambda mode: mode.value)
def test_rows_are_loaded_with_a_token_and_with_vended_credentials(lake, mode):
    sink = lake.sink()
    prepared = sink.prepare(target(mode=mode))
    for number in (1, 2):
        receipt = write(sink, prepared, [batch(number * 100, 100)])
        sink.commit(prepared, [receipt], marker(number))
    table = lake.table(prepared)
    assert table.io.properties["s3.access-key-id"] == ACCESS_KEY_ID
    assert "s3.access-key-id" not in lake.settings.iceberg_properties.get_secret_value()
    assert_rows(lake, prepared, batch(100, 100), batch(200, 100))
    assert SECRET_ACCESS_KEY not in table.metadata.model_dump_json() + prepared.to_json()
    assert SECRET_ACCESS_KEY not in receipt.to_json() + repr(vars(sink))


def test_a_token_that_has_expired_is_asked_for_again(lake, server):
    sink = lake.sink()
    prepared = sink.prepare(target())
    receipts = [write(sink, prepared, [batch(n * 10, 10)]) for n in range(3)]
    given = server.tokens_given()
    for number, receipt in enumerate(receipts, 1):
        server.expire_tokens()
        sink.commit(prepared, [receipt], marker(number))
        assert sink.last_marker(prepared) == marker(number)
    assert server.tokens_given() >= given + 3
    assert_rows(lake, prepared, batch(0, 30))


@pytest.mark.parametrize(
    "properties",
    [
        {"credential": f"{GUARD.client_id}:wr0ng-s3cret"},
        {"scope": "PRINCIPAL_ROLE:nobody"},
        {"credential": "", "token": "wr0ng-s3cret"},
    ],
    ids=["secret", "scope", "token"],
)
def test_a_refusal_is_told_without_the_secret(tmp_path, server, lake, properties):
    prepared = lake.sink().prepare(target())
    receipt = write(lake.sink(), prepared, [batch(0, 10)])
    if properties.get("credential") == "":
        stranger = Lake(tmp_path, server)
        told = {"token": properties["token"]}
        stranger.settings = stranger.settings.model_copy(
            update={
                "iceberg_properties": type(stranger.settings.iceberg_properties)(json.dumps(told))
            }
        )
    else:
        stranger = Lake(tmp_path, server, **properties)
    for call in (
        lambda: stranger.sink().prepare(target()),
        lambda: stranger.sink().commit(prepared, [receipt], marker(1)),
    ):
        with pytest.raises(MatihError, match="refuses the credentials") as caught:
            call()
        shown = caught.value.message + str(caught.value.context)
        assert "wr0ng-s3cret" not in shown
        assert GUARD.client_secret not in shown
        assert not isinstance(caught.value, CommitRejectedError)
    assert lake.sink().last_marker(prepared) is None

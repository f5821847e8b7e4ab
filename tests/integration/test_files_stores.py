"""Azure Blob Storage and Google Cloud Storage, for real: what only they do, and what goes wrong.

What all stores share is tested on S3 in `test_files_s3`, and by the contract on each of them.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from matih_ray.errors import (
    AuthenticationFailedError,
    ConnectionRefusedByHostError,
    DatabaseNotFoundError,
    DnsResolutionError,
    HostNotAllowedError,
    MatihError,
    SourceChangedError,
    SourcePermissionError,
    SourceTimeoutError,
    TlsHandshakeError,
    ValidationError,
)
from matih_ray.model.ids import EndpointId, TenantId, UnitId
from matih_ray.model.policy import IngestionPolicy
from matih_ray.planning.planner import make_plan
from matih_ray.settings import Settings
from matih_ray.sources.base import EndpointSpec
from matih_ray.sources.files.azure import AzureBlobSource
from matih_ray.sources.files.gcs import GcsSource
from matih_ray.sources.files.source import FileSource
from matih_ray.sources.host_policy import Address, HostPolicy
from matih_ray.testing.devstack.google_gate import GoogleGate
from matih_ray.testing.devstack.object_stores import (
    ACCOUNT,
    ACCOUNT_KEY,
    AzuriteServer,
    GcsServer,
)
from matih_ray.testing.devstack.ports import free_port
from tests.integration.certificates import Authority

FULL = IngestionPolicy()
NUMBERS = count()
TOKEN = "a token nobody may see"
WRONG_KEY = f"AAAA{ACCOUNT_KEY[4:]}"
SourceOf = Callable[..., FileSource]


@pytest.fixture(scope="module")
def azurite() -> Iterator[AzuriteServer]:
    with AzuriteServer() as server:
        yield server


@pytest.fixture(scope="module")
def gcs() -> Iterator[GcsServer]:
    with GcsServer() as server:
        yield server


@pytest.fixture(scope="module")
def gate(gcs: GcsServer) -> Iterator[GoogleGate]:
    with GoogleGate(gcs.url) as gate:
        gate.readers.add(TOKEN)
        yield gate


def spec(type_: str, config: dict[str, Any], secrets: dict[str, str], policy: HostPolicy):
    config = {"connectTimeoutS": 2, "readTimeoutS": 1, **config}
    return EndpointSpec(
        TenantId("t"), EndpointId("e"), "test", type_, config, secrets, host_policy=policy
    )


def azure_source(
    url: str, container: str, policy: HostPolicy | None = None, **secrets: str
) -> AzureBlobSource:
    config = {"account": ACCOUNT, "container": container, "endpointOverride": url}
    secrets = secrets or {"accountKey": ACCOUNT_KEY}
    return AzureBlobSource(spec("AZURE_BLOB", config, secrets, policy or HostPolicy()))


def gcs_source(
    url: str, bucket: str, policy: HostPolicy | None = None, **secrets: str
) -> GcsSource:
    config = {"bucket": bucket, "endpointOverride": url}
    secrets = secrets or {"accessToken": TOKEN}
    return GcsSource(spec("GCS", config, secrets, policy or HostPolicy()))


@pytest.fixture(params=["AZURE_BLOB", "GCS"])
def store(request: pytest.FixtureRequest) -> tuple[Any, str, SourceOf]:
    """A server, where sources find it, and the sources."""
    if request.param == "AZURE_BLOB":
        server = request.getfixturevalue("azurite")
        return server, server.url, azure_source
    gate = request.getfixturevalue("gate")
    return request.getfixturevalue("gcs"), gate.url, gcs_source


def bucket_in(server: Any) -> str:
    name = f"bucket-{next(NUMBERS)}"
    server.create_bucket(name)
    return name


def refused(source: FileSource, kind: type[MatihError]) -> MatihError:
    with pytest.raises(MatihError) as caught:
        source.test()
    assert type(caught.value) is kind, caught.value
    text = f"{caught.value} {caught.value.context}"
    assert not any(secret in text for secret in (ACCOUNT_KEY, WRONG_KEY, TOKEN, "sig=", "PRIVATE"))
    return caught.value


def read_rows(source: FileSource, unit_id: str) -> list[dict[str, Any]]:
    unit = source.describe_unit(UnitId(unit_id))
    plan = make_plan(source, unit, None, FULL)
    batches = [batch for s in plan.slices for batch in source.read(unit, s, FULL)]
    return [row for batch in batches for row in batch.to_pylist()]


def test_awkward_names_and_folder_markers_are_read_and_other_folders_are_not(store):
    server, url, source_of = store
    bucket = bucket_in(server)
    name = "lake/o r/ü+%20&#?x=1.csv"
    server.put(bucket, name, b"a,b\n1,x\n")
    server.put(bucket, "lake/o r/", b"")
    server.put(bucket, "lakeside/other.csv", b"a\n9\n")
    source = source_of(url, bucket)
    source._config = source._config.model_copy(update={"prefix": "lake"})
    (row,) = read_rows(source, "o r")
    assert (row["a"], row["b"], row["_file_path"]) == (1, "x", name)


def test_an_overwritten_file_of_the_same_size_is_noticed_whenever_it_happens(store):
    server, url, source_of = store
    bucket = bucket_in(server)
    server.put(bucket, "t/1.csv", b"a\n1\n")
    source = source_of(url, bucket)
    unit = source.describe_unit(UnitId("t"))
    plan = make_plan(source, unit, None, FULL)
    opened = source.open_store()
    (file,) = opened.list_files("t/")
    assert opened.read(file, 2, 1) == b"1"
    server.put(bucket, "t/1.csv", b"a\n2\n")
    with pytest.raises(SourceChangedError, match=r"t/1\.csv was changed"):
        list(source.read(unit, plan.slices[0], FULL))
    with pytest.raises(SourceChangedError, match=r"t/1\.csv was changed"):
        opened.read(file, 2, 1)  # in the middle of a file
    opened.close()


def test_a_missing_bucket_a_closed_port_and_an_unknown_host_are_told_apart(store):
    _, url, source_of = store
    refused(source_of(url, "no-such-bucket"), DatabaseNotFoundError)
    refused(source_of("http://no-such-host.invalid", "bucket"), DnsResolutionError)
    refused(source_of(f"http://127.0.0.1:{free_port()}", "bucket"), ConnectionRefusedByHostError)
    refused(source_of(url.replace("http", "https"), "bucket"), TlsHandshakeError)


def test_a_server_that_does_not_answer_is_a_timeout(store):
    _, _, source_of = store
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        refused(source_of(f"http://127.0.0.1:{port}", "bucket"), SourceTimeoutError)
        refused(source_of(f"https://127.0.0.1:{port}", "bucket"), SourceTimeoutError)


def test_a_host_that_the_operator_denies_is_not_connected_to(store):
    _, url, source_of = store
    policy = HostPolicy.of(Settings(hosts_denied="127.0.0.0/8"))
    refused(source_of(url, "bucket", policy), HostNotAllowedError)


class OneName(HostPolicy):
    """Knows a name that nobody else does, as a resolver would that changes its mind."""

    def resolve_allowed(self, host: str, port: int) -> tuple[Address, ...]:
        assert host == f"{ACCOUNT}.files.invalid"
        return super().resolve_allowed("127.0.0.1", port)


def test_the_checked_address_is_connected_to_and_no_other(store):
    server, url, source_of = store
    bucket = bucket_in(server)
    server.put(bucket, "t/1.csv", b"a\n1\n")
    # as at Azure the account is part of the host's name; the rest is what Google would not mind
    named = url.replace("127.0.0.1", f"{ACCOUNT}.files.invalid").removesuffix(f"/{ACCOUNT}")
    assert [row["a"] for row in read_rows(source_of(named, bucket, OneName()), "t")] == [1]


def test_a_missing_credential_is_not_replaced_by_the_machines_own(store):
    _, url, source_of = store
    refused(source_of(url, "bucket", other=""), AuthenticationFailedError)


def test_keys_and_signatures_of_azure_are_told_from_rights(azurite: AzuriteServer):
    bucket = bucket_in(azurite)
    azurite.put(bucket, "t/1.csv", b"a\n1\n")
    signed = azurite.signature(bucket, "rl")
    reader = azure_source(azurite.url, bucket, sasToken=f"?{signed}")
    assert reader.test().latency_ms > 0
    assert [row["a"] for row in read_rows(reader, "t")] == [1]
    wrong = {
        "a wrong key": {"accountKey": WRONG_KEY},
        "no key at all": {"accountKey": "not base64"},
        "an expired signature": {"sasToken": azurite.signature(bucket, "rl", hours=-1)},
        "a changed signature": {"sasToken": signed.replace("sp=rl", "sp=rwl")},
    }
    for secrets in wrong.values():
        refused(azure_source(azurite.url, bucket, **secrets), AuthenticationFailedError)
    for permissions in ("r", "l"):  # neither listing nor reading alone is enough
        token = azurite.signature(bucket, permissions)
        refused(azure_source(azurite.url, bucket, sasToken=token), SourcePermissionError)
    with pytest.raises(ValidationError, match="not both"):
        azure_source(azurite.url, bucket, accountKey=ACCOUNT_KEY, sasToken=signed)


def test_a_signature_is_in_no_log_of_whatever_level(
    azurite: AzuriteServer, caplog: pytest.LogCaptureFixture
):
    bucket = bucket_in(azurite)
    azurite.put(bucket, "t/1.csv", b"a\n1\n")
    token = azurite.signature(bucket, "rl")
    with caplog.at_level(logging.DEBUG):
        source = azure_source(azurite.url, bucket, sasToken=token)
        source.test()
        assert [row["a"] for row in read_rows(source, "t")] == [1]
    (signature,) = [part for part in token.split("&") if part.startswith("sig=")]
    assert caplog.records
    assert signature not in caplog.text


def test_a_certificate_is_checked_against_the_given_authority(tmp_path: Path):
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    pair = authority.server("server")
    with AzuriteServer(pair.certificate, pair.key) as server:
        url = server.url.replace("127.0.0.1", "localhost")  # the name in the certificate
        config = {"account": ACCOUNT, "container": "bucket", "endpointOverride": url}

        def source(root: Path) -> AzureBlobSource:
            trusted = {**config, "sslRootCert": str(root)}
            secrets = {"accountKey": ACCOUNT_KEY}
            return AzureBlobSource(spec("AZURE_BLOB", trusted, secrets, HostPolicy()))

        # past TLS: the container is not there
        refused(source(authority.root), DatabaseNotFoundError)
        error = refused(source(other.root), TlsHandshakeError)
        assert error.context["verify_code"] in (19, 20, 21)


def test_tokens_and_keys_of_google_are_told_from_rights(gcs: GcsServer, gate: GoogleGate):
    bucket = bucket_in(gcs)
    gcs.put(bucket, "t/1.csv", b"a\n1\n")
    account = gcs_source(gate.url, bucket, serviceAccountKey=gate.key_file())
    assert [row["a"] for row in read_rows(account, "t")] == [1]
    gate.strangers.add("stranger")
    refused(gcs_source(gate.url, bucket, accessToken="stranger"), SourcePermissionError)
    refused(gcs_source(gate.url, bucket, accessToken="unknown"), AuthenticationFailedError)
    refused(gcs_source(gate.url, bucket, serviceAccountKey="{}"), AuthenticationFailedError)
    stolen = gate.key_file(rsa.generate_private_key(public_exponent=65537, key_size=2048))
    refused(gcs_source(gate.url, bucket, serviceAccountKey=stolen), AuthenticationFailedError)


def test_a_key_file_cannot_send_for_its_token_where_the_operator_denies(
    gcs: GcsServer, gate: GoogleGate
):
    key = gate.key_file().replace(f"{gate.url}/token", "http://169.254.169.254/token")
    refused(gcs_source(gate.url, "bucket", serviceAccountKey=key), HostNotAllowedError)

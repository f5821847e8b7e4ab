"""What REST and GraphQL sources say when an API, its network or its certificate fails."""

from __future__ import annotations

import datetime as dt
import email.utils
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import Response

from matih_ray.errors import (
    AuthenticationFailedError,
    ConnectionRefusedByHostError,
    DatabaseNotFoundError,
    DnsResolutionError,
    HostNotAllowedError,
    SourceError,
    SourcePermissionError,
    SourceRejectedError,
    SourceTimeoutError,
    SourceUnavailableError,
    TlsHandshakeError,
    ValidationError,
)
from matih_ray.testing.devstack.http_apis import BrokenOff, HttpApis
from matih_ray.testing.devstack.ports import free_port
from tests.integration.certificates import DAY, Authority
from tests.integration.http_lab import (
    QUICK,
    close_sources,
    declared,
    everything,
    graphql,
    rest,
    table,
)

STREAMS = [everything(schema=declared(id="integer"))]


@pytest.fixture
def api() -> Iterator[HttpApis]:
    with HttpApis([{"id": 1}, {"id": 2}]) as api:
        yield api
        close_sources()


def failing(status: int, times: int = 1, **headers: str) -> list[Response]:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return [Response(status_code=status, headers=names) for _ in range(times)]


# --- connecting ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, AuthenticationFailedError),
        (403, SourcePermissionError),
        (404, DatabaseNotFoundError),
        (400, SourceRejectedError),
        (429, SourceUnavailableError),
        (500, SourceUnavailableError),
        (504, SourceTimeoutError),
    ],
)
def test_a_status_has_its_code(api: HttpApis, status: int, kind: type[SourceError]):
    source = rest(api.url, streams=STREAMS)
    api.next_answers.extend(failing(status))
    with pytest.raises(kind, match=rf"GET {api.url}/everything: status {status}") as caught:
        source.test()
    assert caught.value.code == kind.code
    assert len(api.asked) == 1


def test_a_closed_port_is_refused():
    with pytest.raises(ConnectionRefusedByHostError):
        rest(f"http://127.0.0.1:{free_port()}", streams=STREAMS).test()
    close_sources()


def test_a_name_that_nobody_knows_is_an_error_of_dns():
    with pytest.raises(DnsResolutionError):
        rest("http://no-such-host.invalid", streams=STREAMS).test()
    close_sources()


def test_a_server_that_says_nothing_times_out():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(SourceTimeoutError):
            rest(url, streams=STREAMS, limits={"requestTimeoutS": 0.2}).test()
        close_sources()


@pytest.mark.parametrize("fault", ["unknown authority", "expired", "wrong name", "no tls"])
def test_a_wrong_certificate_is_an_error_of_tls(tmp_path: Path, fault: str):
    authority = Authority(tmp_path)
    pair = authority.server(
        "server",
        host="elsewhere" if fault == "wrong name" else "localhost",
        until=-DAY / 2 if fault == "expired" else DAY,
    )
    secure = fault != "no tls"
    with HttpApis(
        certificate=pair.certificate if secure else None, key=pair.key if secure else None
    ) as api:
        url = api.url.replace("http://127.0.0.1", "https://localhost")
        trusted = None if fault == "unknown authority" else str(authority.root)
        with pytest.raises(TlsHandshakeError, match="TLS"):
            rest(url, streams=STREAMS, sslRootCert=trusted).test()
        close_sources()


def test_a_certificate_of_the_given_authority_is_trusted(tmp_path: Path):
    authority = Authority(tmp_path)
    pair = authority.server("server")
    with HttpApis([{"id": 1}], certificate=pair.certificate, key=pair.key) as api:
        source = rest(api.url, streams=STREAMS, sslRootCert=str(authority.root))
        assert source.test().server_version == "HTTP/1.1 uvicorn"
        close_sources()
    with pytest.raises(ValidationError, match="sslRootCert"):
        rest(api.url, streams=STREAMS, sslRootCert=str(pair.key))


# --- rate limits and retries -----------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 503, 403])
def test_retry_after_is_waited_for(api: HttpApis, status: int):
    api.next_answers.extend(failing(status, Retry_After="1"))
    started = time.monotonic()
    assert table(rest(api.url, streams=STREAMS)).num_rows == 2
    assert time.monotonic() - started >= 1.0


def test_retry_after_may_be_a_date(api: HttpApis):
    until = dt.datetime.now(dt.timezone.utc) + dt.timedelta(seconds=2)
    api.next_answers.extend(
        failing(503, Retry_After=email.utils.format_datetime(until, usegmt=True))
    )
    started = time.monotonic()
    assert table(rest(api.url, streams=STREAMS)).num_rows == 2
    # both the header and the server's own time have whole seconds
    assert time.monotonic() - started >= 0.9


def test_a_wait_beyond_the_deadline_is_not_begun(api: HttpApis):
    api.next_answers.extend(failing(429, Retry_After="3600"))
    with pytest.raises(SourceUnavailableError) as caught:
        table(rest(api.url, streams=STREAMS))
    assert caught.value.context["retry_after_s"] == 3600.0
    assert len(api.asked) == 1


def test_retries_end(api: HttpApis):
    api.next_answers.extend(failing(502, times=9))
    with pytest.raises(SourceUnavailableError, match="502"):
        table(rest(api.url, streams=STREAMS, limits={**QUICK, "maxRetries": 3}))
    assert len(api.asked) == 4


def test_what_cannot_help_is_not_retried(api: HttpApis):
    api.next_answers.extend(failing(400))
    with pytest.raises(SourceRejectedError):
        table(rest(api.url, streams=STREAMS))
    assert len(api.asked) == 1


def test_requests_keep_the_configured_pace(api: HttpApis):
    stream = {
        "name": "items", "path": "pages/offset", "recordPath": "data",
        "schema": declared(id="integer"), "pagination": {"style": "offset", "size": 1},
    }  # fmt: skip
    started = time.monotonic()
    table(rest(api.url, streams=[stream], limits={"requestsPerS": 10}))
    assert len(api.asked) == 3
    assert time.monotonic() - started >= 0.2


# --- answers ---------------------------------------------------------------------------------


def test_a_page_that_breaks_off_is_asked_for_again(api: HttpApis):
    api.next_answers.append(BrokenOff(b'[{"id": 7}, {"id": 8}]'))
    assert table(rest(api.url, streams=STREAMS))["id"].to_pylist() == [1, 2]
    assert len(api.asked) == 2


def test_pages_that_always_break_off_are_an_error_and_no_short_read(api: HttpApis):
    api.next_answers.extend(BrokenOff(b'[{"id": 7}, {"id": 8}]') for _ in range(9))
    with pytest.raises(SourceUnavailableError, match="broke off"):
        table(rest(api.url, streams=STREAMS, limits={**QUICK, "maxRetries": 2}))
    assert len(api.asked) == 3


def test_a_server_that_stops_between_pages_is_an_error():
    stream = {
        "name": "items", "path": "pages/offset", "recordPath": "data",
        "schema": declared(id="integer"), "pagination": {"style": "offset", "size": 1},
    }  # fmt: skip
    with HttpApis([{"id": n} for n in range(9)]) as api:
        source = rest(api.url, streams=[stream])
        unit = source.describe_unit("items")
        pages = source._pages(source._stream("items")).pages({})
        assert next(pages) == [{"id": 0}]
    with pytest.raises(SourceUnavailableError):
        list(pages)
    assert unit.unit_id == "items"
    close_sources()


def test_an_answer_larger_than_the_limit_is_refused(api: HttpApis):
    api.records = [{"id": n} for n in range(1000)]
    with pytest.raises(SourceError, match="maxResponseBytes"):
        table(rest(api.url, streams=STREAMS, limits={"maxResponseBytes": 1000}))


def test_a_compressed_answer_counts_with_its_full_size(api: HttpApis):
    import gzip

    packed = gzip.compress(b"[" + b" " * 1_000_000 + b"]")
    assert len(packed) < 2000
    api.next_answers.append(Response(packed, headers={"Content-Encoding": "gzip"}))
    with pytest.raises(SourceError, match="maxResponseBytes"):
        table(rest(api.url, streams=STREAMS, limits={"maxResponseBytes": 10_000}))


@pytest.mark.parametrize(
    "target", ["http://127.0.0.2:{port}/everything", "http://localhost:{port}/"]
)
def test_a_redirect_to_another_host_is_not_followed(api: HttpApis, target: str):
    api.next_answers.extend(failing(302, Location=target.format(port=api.port)))
    with pytest.raises(SourceRejectedError, match="another host"):
        table(rest(api.url, streams=STREAMS, auth={"kind": "bearer"}, secrets={"token": "t"}))
    assert len(api.asked) == 1


def test_a_redirect_within_the_host_is_followed_and_a_loop_ends(api: HttpApis):
    api.next_answers.extend(failing(307, Location="/everything"))
    source = rest(api.url, streams=STREAMS)
    assert table(source).num_rows == 2
    api.next_answers.extend(failing(307, times=20, Location="/everything"))
    with pytest.raises(SourceRejectedError, match="redirects"):
        table(source)


def test_a_next_page_on_another_host_is_not_asked_for(api: HttpApis):
    stream = everything(recordPath="data", pagination={"style": "nextUrl", "nextPath": "next"})
    api.next_answers.append(Response('{"data": [], "next": "http://127.0.0.2/steal"}'))
    with pytest.raises(SourceRejectedError, match="another host"):
        table(rest(api.url, streams=[{**stream, "schema": declared(id="integer")}]))


# --- authorization servers -------------------------------------------------------------------


def test_tokens_are_not_asked_for_at_a_metadata_address(api: HttpApis):
    source = rest(
        api.url, streams=STREAMS, auth={"kind": "oauth2", "clientId": "me"},
        authUrl="http://169.254.169.254/token", secrets={"clientSecret": "s3"},
    )  # fmt: skip
    with pytest.raises(HostNotAllowedError):
        source.test()


def test_an_authorization_server_that_refuses_is_an_error_of_authentication(api: HttpApis):
    source = rest(
        api.url, streams=STREAMS, auth={"kind": "oauth2", "clientId": "me"},
        authUrl=f"{api.url}/everything", secrets={"clientSecret": "hush-hush"},
    )  # fmt: skip
    api.accepts = lambda _request: 401
    with pytest.raises(AuthenticationFailedError, match="no token") as caught:
        source.test()
    assert "hush-hush" not in str(caught.value)


# --- GraphQL ---------------------------------------------------------------------------------


def asking(api: HttpApis, query: str, path: str = "broken"):
    stream = {"name": "items", "query": query, "recordPath": path, "pagination": "none"}
    return graphql(f"{api.url}/graphql", streams=[stream])


def test_partial_data_is_refused(api: HttpApis):
    api.records = [{"id": 1, "name": "one"}]
    with pytest.raises(SourceRejectedError, match="part of the data"):
        asking(api, "{ listed { id } broken }", "listed").describe_unit("items")


def test_an_invalid_query_is_refused(api: HttpApis):
    with pytest.raises(SourceRejectedError, match="errors"):
        asking(api, "{ nowhere }").describe_unit("items")


@pytest.mark.parametrize(
    ("code", "kind"),
    [("UNAUTHENTICATED", AuthenticationFailedError), ("FORBIDDEN", SourcePermissionError)],
)
def test_error_codes_of_graphql_servers_are_known(
    api: HttpApis, code: str, kind: type[SourceError]
):
    body = f'{{"errors": [{{"message": "no", "extensions": {{"code": "{code}"}}}}], "data": null}}'
    api.next_answers.append(Response(body))
    with pytest.raises(kind):
        asking(api, "{ total }").test()


@pytest.mark.parametrize("body", ["[]", "{}", '{"data": []}', '{"errors": "no"}'])
def test_an_answer_that_is_not_graphqls_is_refused(api: HttpApis, body: str):
    api.next_answers.append(Response(body))
    with pytest.raises(SourceRejectedError):
        asking(api, "{ total }").test()


def test_a_connection_test_asks_for_the_minimum(api: HttpApis):
    assert asking(api, "{ total }").test().server_version == "HTTP/1.1 uvicorn"
    assert len(api.asked) == 1

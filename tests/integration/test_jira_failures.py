"""Jira refuses, fails, forgets tokens and asks to wait; nothing else gets lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from matih_ray.errors import (
    AuthenticationFailedError,
    ConnectionRefusedByHostError,
    DatabaseNotFoundError,
    DnsResolutionError,
    MatihError,
    QuotaSpentError,
    SourceError,
    SourcePermissionError,
    SourceTimeoutError,
    SourceUnavailableError,
    TlsHandshakeError,
    ValidationError,
)
from matih_ray.model.ids import UnitId
from matih_ray.model.policy import IngestionPolicy
from matih_ray.planning.planner import make_plan
from matih_ray.sources.jira import JiraSource
from matih_ray.sources.provider_services import ProcessSecrets, ProviderServices
from matih_ray.testing.devstack.http_apis import HttpApis
from matih_ray.testing.devstack.jira import (
    CLIENT_ID,
    CLIENT_SECRET,
    REFRESH_TOKEN,
    TOKEN,
    JiraServer,
)
from matih_ray.testing.devstack.ports import free_port
from tests.integration.certificates import Authority
from tests.integration.jira_lab import NOON_MS, Loads, assert_true, spec_of

QUICK = {"retryBackoffS": 0.01, "maxRetries": 4, "requestTimeoutS": 30}
OAUTH = {"clientSecret": CLIENT_SECRET, "refreshToken": REFRESH_TOKEN}
SEARCH = "POST .*/search/jql"


@pytest.fixture(scope="module")
def server() -> Iterator[JiraServer]:
    with JiraServer() as server:
        yield server


@pytest.fixture
def jira(server: JiraServer) -> JiraServer:
    server.do("reset")
    server.do("set", frozen_ms=NOON_MS)
    server.do("generate", project="SHOP", count=40)
    return server


def source_of(jira: JiraServer, **more: Any) -> JiraSource:
    return JiraSource(spec_of(jira, **{"limits": QUICK, **more}))


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (401, AuthenticationFailedError),
        (403, SourcePermissionError),
        (404, DatabaseNotFoundError),
        (408, SourceTimeoutError),
        (500, SourceUnavailableError),
        (503, SourceUnavailableError),
    ],
)
def test_a_refused_test_has_a_stable_code(
    jira: JiraServer, status: int, expected: type[MatihError]
) -> None:
    jira.fault("GET .*/myself", status, times=9)
    source = source_of(jira)
    with pytest.raises(expected) as caught:
        source.test()
    assert type(caught.value) is expected
    source.close()


def test_a_wrong_token_is_an_authentication_failure(jira: JiraServer) -> None:
    source = source_of(jira, secrets={"apiToken": "wrong"})
    with pytest.raises(AuthenticationFailedError) as caught:
        source.test()
    assert "wrong" not in str(caught.value)
    source.close()


@pytest.mark.parametrize("config", [{"user": None}, {"auth": "oauth2"}, {"overlapS": 5}])
def test_a_configuration_that_cannot_be_is_refused(
    jira: JiraServer, config: dict[str, Any]
) -> None:
    with pytest.raises(ValidationError):
        JiraSource(spec_of(jira, **config))


@pytest.mark.parametrize(
    ("config", "secrets"),
    [
        ({}, {}),
        ({"auth": "oauth2Refresh", "clientId": "c"}, {"clientSecret": "s"}),
        ({"auth": "oauth2Refresh", "clientId": "c"}, {"refreshToken": "s"}),
        ({"auth": "oauth2", "clientId": "c"}, {"apiToken": "s"}),
    ],
)
def test_a_missing_secret_is_named(
    jira: JiraServer, config: dict[str, Any], secrets: dict[str, str]
) -> None:
    with pytest.raises(ValidationError, match="is missing"):
        JiraSource(spec_of(jira, secrets=secrets, **config))


def test_nobody_listening_is_connection_refused(jira: JiraServer) -> None:
    source = source_of(jira, baseUrl=f"http://127.0.0.1:{free_port()}")
    with pytest.raises(ConnectionRefusedByHostError):
        source.test()


def test_an_unknown_host_is_a_name_that_cannot_be_resolved(jira: JiraServer) -> None:
    source = source_of(jira, baseUrl="http://no-such-site.invalid")
    with pytest.raises(DnsResolutionError):
        source.test()


def test_an_untrusted_certificate_is_refused(jira: JiraServer, tmp_path: Path) -> None:
    pair = Authority(tmp_path).server("localhost")
    with HttpApis(certificate=pair.certificate, key=pair.key) as api:
        source = source_of(jira, baseUrl=api.url)
        with pytest.raises(TlsHandshakeError):
            source.test()
        source.close()


def test_what_is_no_jira_site_is_told(jira: JiraServer) -> None:
    jira.fault("GET .*/myself", 200, body=["hello"])
    source = source_of(jira)
    with pytest.raises(SourceError, match="Jira site"):
        source.test()
    source.close()


@pytest.mark.parametrize("status", [429, 500, 503])
def test_failures_that_pass_are_outlasted(jira: JiraServer, status: int) -> None:
    jira.fault(".*", status, {"Retry-After": "0"}, times=12, every=3)
    source = source_of(jira)
    loads = Loads(source)
    loads.run()
    assert_true(loads, jira)
    source.close()


def test_a_burst_is_waited_for_as_long_as_the_server_says(jira: JiraServer) -> None:
    headers = {"Retry-After": "1", "RateLimit-Reason": "jira-burst-based"}
    jira.fault(SEARCH, 429, headers)
    services = ProviderServices()
    source = source_of(jira, services=services)
    Loads(source).run()
    state = services.governor.state()
    assert (state.refused, state.parked) == (1, None)
    source.close()


def test_a_spent_quota_parks_everybody_and_burns_no_retries(jira: JiraServer) -> None:
    reset = datetime.fromtimestamp(NOON_MS / 1000, timezone.utc) + timedelta(minutes=25)
    headers = {
        # no Retry-After: the reset has minutes only, and the server's clock is another than ours
        "X-RateLimit-Reset": f"{reset:%Y-%m-%dT%H:%MZ}",
        "RateLimit-Reason": "jira-quota-tenant-based",
    }
    jira.fault(SEARCH, 429, headers)
    services = ProviderServices()
    source, other = source_of(jira, services=services), source_of(jira, services=services)
    with pytest.raises(QuotaSpentError) as caught:
        Loads(source).run()
    assert caught.value.context["reason"] == "jira-quota-tenant-based"
    assert 1490 <= float(caught.value.context["retry_after_s"]) <= 1500  # type: ignore[arg-type]  # a number
    asked = len(jira.calls())
    with pytest.raises(QuotaSpentError):
        other.filter_options()
    assert len(jira.calls()) == asked, "others have to wait without asking"
    assert services.governor.state().parked == "jira-quota-tenant-based"
    assert len(jira.calls("search/jql")) == 1
    source.close()
    other.close()


def oauth(jira: JiraServer, services: ProviderServices, **more: Any) -> JiraSource:
    config = {"auth": "oauth2Refresh", "clientId": CLIENT_ID, "authUrl": f"{jira.url}/oauth/token"}
    return source_of(jira, services=services, secrets=OAUTH, **config, **more)


def test_tokens_that_expire_while_reading_are_renewed(jira: JiraServer) -> None:
    keeper = ProcessSecrets(OAUTH)
    source = oauth(jira, ProviderServices(secrets=keeper))
    loads = Loads(source)
    plan = make_plan(source, loads.unit, None, IngestionPolicy())
    assert jira.do("grants") == 1
    jira.do("expire_tokens")
    rows = [b for s in plan.slices for b in source.read(loads.unit, s, IngestionPolicy())]
    assert sum(batch.num_rows for batch in rows) == 40
    assert jira.do("grants") == 2
    stored = keeper.read()
    assert stored["refreshToken"] not in (REFRESH_TOKEN, "")
    assert stored["clientSecret"] == CLIENT_SECRET
    source.close()


def test_many_tasks_renew_a_token_once(jira: JiraServer) -> None:
    services = ProviderServices(secrets=ProcessSecrets(OAUTH))
    sources = [oauth(jira, services) for _ in range(6)]
    failures: list[BaseException] = []

    def ask(source: JiraSource) -> None:
        try:
            source.test()
        except MatihError as error:
            failures.append(error)

    for round_ in (1, 2):
        threads = [threading.Thread(target=ask, args=(source,)) for source in sources]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not failures
        assert jira.do("grants") == round_
        jira.do("expire_tokens")
    for source in sources:
        source.close()


def test_a_refresh_token_that_is_used_up_needs_a_person(jira: JiraServer) -> None:
    jira.do("set", refresh_token="another")
    source = oauth(jira, ProviderServices(secrets=ProcessSecrets(OAUTH)))
    with pytest.raises(AuthenticationFailedError, match="authorize the connector anew"):
        source.test()
    source.close()


def test_a_service_account_gets_tokens_by_itself(jira: JiraServer) -> None:
    config = {"auth": "oauth2", "clientId": CLIENT_ID, "authUrl": f"{jira.url}/oauth/token"}
    source = source_of(jira, secrets={"clientSecret": CLIENT_SECRET}, **config)
    assert source.test().server_version.startswith("Jira Cloud")
    source.close()


def test_secrets_are_not_in_errors(jira: JiraServer) -> None:
    jira.fault(".*", 400, body={"errorMessages": [f"your token {TOKEN} is bad"]}, times=99)
    source = source_of(jira)
    with pytest.raises(SourceError) as caught:
        make_plan(source, source.describe_unit(UnitId("jira.issues")), None, IngestionPolicy())
    assert TOKEN not in str(caught.value) + repr(caught.value.context)
    source.close()

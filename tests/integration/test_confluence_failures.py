"""What the Confluence source says and does when the site or one of its spaces refuses."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from fastapi import Response

from matih_ray.errors import (
    AuthenticationFailedError,
    ConnectionRefusedByHostError,
    DnsResolutionError,
    PlanError,
    QuotaSpentError,
    SourceError,
    SourcePermissionError,
    SourceTimeoutError,
    TlsHandshakeError,
    ValidationError,
)
from matih_ray.model.policy import IngestionPolicy, RunMode
from matih_ray.sources.confluence import ConfluenceSource
from matih_ray.testing.devstack.confluence_site import ConfluenceSite
from matih_ray.testing.devstack.faked_site import too_many_requests
from matih_ray.testing.devstack.ports import free_port
from tests.integration.confluence_lab import Mirror, spec

QUICK = {"retryBackoffS": 0.001, "maxRetries": 0}


@pytest.fixture
def site() -> Iterator[ConfluenceSite]:
    with ConfluenceSite() as site:
        site.add_space("2", "OPS", "Operations")
        for number in range(60):
            site.put(str(1000 + number), f"page {number}", space="12"[number % 2])
        site.tick(hours=1)
        yield site


def failing_test(site: ConfluenceSite, **config) -> SourceError:
    source = ConfluenceSource(spec(site, **{"limits": QUICK, **config}))
    with pytest.raises(SourceError) as caught:
        source.test()
    source.close()
    return caught.value


def test_a_wrong_token_is_an_authentication_failure(site):
    source = ConfluenceSource(spec(site, token="wrong"))
    with pytest.raises(AuthenticationFailedError) as caught:
        source.test()
    assert "wrong" not in str(caught.value)
    source.close()


def test_a_token_is_needed(site):
    with pytest.raises(ValidationError, match="apiToken is missing"):
        ConfluenceSource(spec(site, token=""))


def test_a_closed_port(site):
    error = failing_test(site, baseUrl=f"http://127.0.0.1:{free_port()}")
    assert isinstance(error, ConnectionRefusedByHostError)


def test_an_unknown_host(site):
    assert isinstance(failing_test(site, baseUrl="http://site.invalid"), DnsResolutionError)


def test_a_port_that_does_not_speak_tls(site):
    error = failing_test(site, baseUrl=f"https://127.0.0.1:{site.port}")
    assert isinstance(error, TlsHandshakeError)


def test_a_server_that_says_nothing(site):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        limits = {**QUICK, "requestTimeoutS": 0.2}
        assert isinstance(failing_test(site, baseUrl=url, limits=limits), SourceTimeoutError)


def test_a_space_that_cannot_be_seen(site):
    error = failing_test(site, spaceKeys=["NOWHERE"])
    assert isinstance(error, SourcePermissionError)
    assert "NOWHERE" in error.message


@pytest.mark.parametrize("fault", ["forbidden", "hidden"])
def test_a_space_that_refuses_is_reported_and_keeps_its_place(site, fault):
    mirror = Mirror(site)
    mirror.run()
    getattr(site, fault).add("2")
    site.put("1000", "first")
    site.put("1001", "not readable now")
    mirror.run()
    assert mirror.unread == ["2"]
    assert mirror.pages()["1000"] == ("1", 2, "first")
    assert len(mirror.living()) == 60, "nothing is taken for deleted"
    getattr(site, fault).clear()
    site.tick(hours=1)
    mirror.run()
    assert (mirror.unread, mirror.pages()) == ([], site.truth())
    mirror.source.close()


def test_a_named_space_that_is_not_there_is_reported(site):
    mirror = Mirror(site, spaceKeys=["SHOP", "NOWHERE"])
    mirror.run()
    assert mirror.unread == ["NOWHERE"]
    assert mirror.pages() == site.truth("1")
    mirror.source.close()


def test_when_nothing_can_be_read_the_run_fails(site):
    mirror = Mirror(site)
    site.forbidden |= {"1", "2"}
    with pytest.raises(SourcePermissionError):
        mirror.plan()
    mirror.source.close()


def test_cursors_that_lead_in_a_circle_end(site):
    mirror = Mirror(site, pageSize=10)
    site.circles = True
    with pytest.raises(SourceError, match="circle"):
        mirror.plan()
    mirror.source.close()


def test_the_next_page_may_be_told_in_a_header_only(site):
    mirror = Mirror(site, pageSize=10)
    site.link_header_only = True
    mirror.run()
    assert mirror.pages() == site.truth()
    mirror.source.close()


def test_a_storm_of_refusals_is_waited_out(site):
    mirror = Mirror(site, limits={"retryBackoffS": 0.001, "maxRetries": 20})
    plan = mirror.plan()
    site.next_answers.extend(too_many_requests(0, "jira-burst-based") for _ in range(12))
    mirror.run(plan)
    assert mirror.pages() == site.truth()
    mirror.source.close()


def test_a_spent_quota_parks_the_slice(site):
    mirror = Mirror(site)
    plan = mirror.plan()
    site.next_answers.append(too_many_requests(600, "jira-quota-tenant-based"))
    with pytest.raises(QuotaSpentError) as caught:
        mirror.run(plan)
    assert 500 < float(caught.value.context["retry_after_s"]) <= 600
    mirror.source.close()


def test_another_servers_answer_is_not_an_empty_site(site):
    mirror = Mirror(site)
    site.next_answers.append(Response('{"values": []}', media_type="application/json"))
    with pytest.raises(SourceError, match="no list `results`"):
        mirror.plan()
    mirror.source.close()


@pytest.mark.parametrize(
    ("unit", "policy"),
    [
        ("pages", IngestionPolicy(filter={"a": 1})),
        ("pages", IngestionPolicy(columns=("title",))),
        ("pages", IngestionPolicy(run_mode=RunMode.CDC)),
        ("pages", IngestionPolicy(cursor_column="updated", run_mode=RunMode.INCREMENTAL)),
        ("labels", IngestionPolicy(run_mode=RunMode.INCREMENTAL)),
    ],
)
def test_a_policy_that_does_not_fit_is_refused(site, unit, policy):
    mirror = Mirror(site, unit)
    mirror.policy = policy
    with pytest.raises((ValidationError, PlanError)):
        mirror.plan()
    mirror.source.close()

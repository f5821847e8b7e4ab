"""What the OneDrive source says and does when Graph, its tokens or a drive refuse."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from matih_ray.errors import (
    AuthenticationFailedError,
    ConnectionRefusedByHostError,
    DatabaseNotFoundError,
    DnsResolutionError,
    PlanError,
    SourceError,
    SourcePermissionError,
    SourceTimeoutError,
    TlsHandshakeError,
    ValidationError,
)
from matih_ray.model.ids import UnitId
from matih_ray.model.policy import IngestionPolicy, RunMode
from matih_ray.planning.planner import make_plan
from matih_ray.sources.onedrive import OneDriveSource
from matih_ray.sources.read_ahead import CALLS_AT_ONCE
from matih_ray.testing.devstack.faked_site import too_many_requests
from matih_ray.testing.devstack.graph_drives import DRIVE, GraphDrives
from matih_ray.testing.devstack.ports import free_port
from tests.integration.onedrive_lab import Mirror, spec

QUICK = {"retryBackoffS": 0.001, "maxRetries": 0}


@pytest.fixture
def graph() -> Iterator[GraphDrives]:
    with GraphDrives() as graph:
        graph.add_drive("b!other", "bob@contoso.example")
        for number in range(30):
            graph.put(f"i{number}", f"{number}.txt")
            graph.put(f"o{number}", f"{number}.txt", drive="b!other")
        yield graph


def failing_test(graph: GraphDrives, **config) -> SourceError:
    source = OneDriveSource(spec(graph, **{"limits": QUICK, **config}))
    with pytest.raises(SourceError) as caught:
        source.test()
    source.close()
    return caught.value


def test_a_wrong_secret_is_an_authentication_failure(graph):
    source = OneDriveSource(spec(graph, secret="wrong"))
    with pytest.raises(AuthenticationFailedError, match="clientSecret") as caught:
        source.test()
    assert "wrong" not in str(caught.value)
    source.close()


def test_a_secret_is_needed(graph):
    with pytest.raises(ValidationError, match="clientSecret is missing"):
        OneDriveSource(spec(graph, secret=""))


def test_something_to_read_is_needed(graph):
    with pytest.raises(ValidationError, match="name drives"):
        OneDriveSource(spec(graph, drives=[]))


@pytest.mark.parametrize("id_", ["a/b", "..%2fb", "a?b", "a b", ""])
def test_an_id_cannot_lead_elsewhere(graph, id_):
    with pytest.raises(ValidationError):
        OneDriveSource(spec(graph, drives=[id_]))


def test_a_closed_port(graph):
    error = failing_test(graph, graphUrl=f"http://127.0.0.1:{free_port()}/v1.0")
    assert isinstance(error, ConnectionRefusedByHostError)


def test_an_unknown_host(graph):
    error = failing_test(graph, graphUrl="http://graph.invalid/v1.0")
    assert isinstance(error, DnsResolutionError)


def test_a_port_that_does_not_speak_tls(graph):
    error = failing_test(graph, graphUrl=f"https://127.0.0.1:{graph.port}/v1.0")
    assert isinstance(error, TlsHandshakeError)


def test_a_server_that_says_nothing(graph):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1.0"
        limits = {**QUICK, "requestTimeoutS": 0.2}
        assert isinstance(failing_test(graph, graphUrl=url, limits=limits), SourceTimeoutError)


def test_a_drive_that_is_not_there(graph):
    assert isinstance(failing_test(graph, drives=["b!nowhere"]), DatabaseNotFoundError)


def test_a_drive_that_may_not_be_read(graph):
    graph.forbidden.add(DRIVE)
    assert isinstance(failing_test(graph), SourcePermissionError)


def test_drives_are_found_by_their_owners(graph):
    mirror = Mirror(graph, users=["ada@contoso.example"], sites=["bob@contoso.example"])
    mirror.run()
    assert mirror.paths() == graph.truth()
    assert mirror.paths("b!other") == graph.truth("b!other")
    mirror.source.close()


def test_owners_are_asked_several_at_a_time_and_each_refusal_is_its_own(graph):
    people = [f"{number}@contoso.example" for number in range(12)]
    for number in range(0, 12, 2):
        graph.add_drive(f"b!{number}", people[number])
    source = OneDriveSource(spec(graph, users=people))
    graph.latency_s = 0.02
    unit = source.describe_unit(UnitId("onedrive.drives"))
    plan = make_plan(source, unit, None, IngestionPolicy())
    refused = {str(slice_.params["drive"]) for slice_ in plan.slices[1:]}
    assert refused == {f"users/{people[number]}" for number in range(1, 12, 2)}
    read = source.read(unit, plan.slices[0], IngestionPolicy())
    found = {row["id"] for batch in read for row in batch.to_pylist()}
    assert found == {f"b!{number}" for number in range(0, 12, 2)}
    assert 2 <= graph.most_under_way <= CALLS_AT_ONCE
    source.close()


@pytest.mark.parametrize("faults", ["forbidden", "unknown"])
def test_a_drive_that_refuses_is_reported_and_keeps_its_place(graph, faults):
    mirror = Mirror(graph, drives=[DRIVE, "b!other"])
    mirror.run()
    getattr(graph, faults).add("b!other")
    graph.put("more", "more.txt")
    graph.put("more", "more.txt", drive="b!other")
    mirror.run()
    assert mirror.unread == ["drives/b!other"]
    assert mirror.paths() == graph.truth()
    getattr(graph, faults).clear()
    mirror.run()
    assert mirror.unread == []
    assert mirror.paths("b!other") == graph.truth("b!other")
    mirror.source.close()


def test_a_drive_that_refuses_after_planning_is_reported_too(graph):
    mirror = Mirror(graph, drives=[DRIVE, "b!other"])
    plan = mirror.plan()
    graph.forbidden.add("b!other")
    mirror.run(plan)
    assert "b!other" in mirror.unread
    graph.forbidden.clear()
    mirror.run()
    assert mirror.paths("b!other") == graph.truth("b!other")
    assert mirror.paths() == graph.truth()
    mirror.source.close()


def test_a_drive_that_is_not_among_the_owners_any_more_is_reported(graph):
    mirror = Mirror(graph, users=["ada@contoso.example", "bob@contoso.example"])
    mirror.run()
    graph.drives["b!other"].owner = "ada@contoso.example"
    mirror.run()
    assert mirror.unread == ["users/bob@contoso.example"]
    mirror.source.close()


def test_when_nothing_can_be_read_the_run_fails(graph):
    mirror = Mirror(graph, drives=[DRIVE, "b!other"])
    graph.forbidden |= {DRIVE, "b!other"}
    with pytest.raises(SourcePermissionError):
        mirror.plan()
    mirror.source.close()


def test_links_that_lead_in_a_circle_end(graph):
    mirror = Mirror(graph)
    graph.circles = True
    with pytest.raises(SourceError, match="circle"):
        mirror.plan()
    mirror.source.close()


def test_a_token_that_is_withdrawn_is_renewed(graph):
    mirror = Mirror(graph)
    asked = 0

    def withdraw(_request):
        nonlocal asked
        asked += 1
        if asked in (3, 9):
            graph.accepted.clear()

    graph.before = withdraw
    mirror.run()
    assert graph.granted == 3
    assert mirror.paths() == graph.truth()
    mirror.source.close()


def test_a_token_is_renewed_before_its_end(graph):
    graph.token_lifetime_s = 1  # used for half of it
    mirror = Mirror(graph)
    mirror.run()
    assert not [r for r in graph.asked if r.headers.get("Authorization") == "Bearer "]
    mirror.source.close()


def test_a_storm_of_refusals_is_waited_out(graph):
    mirror = Mirror(graph, limits={"retryBackoffS": 0.001, "maxRetries": 20})
    plan = mirror.plan()
    graph.next_answers.extend(too_many_requests() for _ in range(12))
    mirror.run(plan)
    assert mirror.paths() == graph.truth()
    mirror.source.close()


def test_the_drives_themselves_are_a_unit(graph):
    source = OneDriveSource(spec(graph, drives=[DRIVE, "b!other"]))
    unit = source.describe_unit(UnitId("onedrive.drives"))
    policy = IngestionPolicy()
    plan = make_plan(source, unit, None, policy)
    rows = [r for s in plan.slices for b in source.read(unit, s, policy) for r in b.to_pylist()]
    assert [(row["id"], row["drive_type"]) for row in rows] == [
        ("b!other", "business"),
        (DRIVE, "business"),
    ]
    assert rows[0]["quota_total_bytes"] == 2**40
    with pytest.raises(PlanError, match="always read whole"):
        make_plan(source, unit, None, IngestionPolicy(run_mode=RunMode.INCREMENTAL))
    source.close()


@pytest.mark.parametrize(
    "policy",
    [
        IngestionPolicy(filter={"a": 1}),
        IngestionPolicy(columns=("name",)),
        IngestionPolicy(columns=("id", "nothing")),
        IngestionPolicy(encodings={"name": "json"}),
        IngestionPolicy(run_mode=RunMode.CDC),
        IngestionPolicy(cursor_column="updated", run_mode=RunMode.INCREMENTAL),
    ],
)
def test_a_policy_that_does_not_fit_is_refused(graph, policy):
    mirror = Mirror(graph)
    mirror.policy = policy
    with pytest.raises((ValidationError, PlanError)):
        mirror.plan()
    mirror.source.close()


def test_columns_can_be_chosen(graph):
    mirror = Mirror(graph)
    unit = mirror.source.describe_unit(UnitId("onedrive.items"))
    policy = IngestionPolicy(columns=("id", "name"))
    plan = make_plan(mirror.source, unit, None, policy)
    batch = next(iter(mirror.source.read(unit, plan.slices[0], policy)))
    assert batch.schema.names == ["id", "name"]
    mirror.source.close()

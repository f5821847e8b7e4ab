"""The contract of what is known about connectors, and of limits on their number."""

from __future__ import annotations

from datetime import timedelta

import pytest

from matih_ray.errors import ConflictError, NotFoundError, PlanLimitError, StateConflictError
from matih_ray.model.connector import (
    ConnectorState,
    ConnectorTest,
    ConnectorUsage,
    Discovery,
    DiscoveryState,
    Notification,
    NotificationKind,
)
from matih_ray.model.ids import EndpointId, TenantId
from matih_ray.model.run import RunState
from matih_ray.state.base import Delivery, EndpointLimit, EndpointRecord, MetadataStore
from matih_ray.testing.contracts.state_samples import (
    NOON,
    THREADS,
    endpoint,
    finish,
    new_tenant,
    run,
    stream,
    together,
)


def _state(record: EndpointRecord) -> ConnectorState:
    running = Discovery(state=DiscoveryState.RUNNING, started_at=NOON)
    return ConnectorState(
        tenant_id=record.tenant_id, endpoint_id=record.endpoint_id, discovery=running
    )


def _limit(record: EndpointRecord, most: int) -> EndpointLimit:
    return EndpointLimit(plan="SMALL", types=frozenset({record.type}), max_endpoints=most)


class ConnectorContract:
    """States of connectors, and limits."""

    def test_what_is_known_about_a_connector_comes_back(self, metadata: MetadataStore) -> None:
        record = metadata.put_endpoint(endpoint(new_tenant()))
        assert metadata.get_connector_state(record.tenant_id, record.endpoint_id) is None
        stored = metadata.put_connector_state(_state(record))
        assert stored.version == 1
        assert metadata.get_connector_state(record.tenant_id, record.endpoint_id) == stored
        found = metadata.list_connector_states(
            record.tenant_id, [record.endpoint_id, EndpointId("other")]
        )
        assert found == {record.endpoint_id: stored}
        assert metadata.list_connector_states(TenantId("x"), [record.endpoint_id]) == {}
        short = metadata.list_connector_states(
            record.tenant_id, [record.endpoint_id], with_history=False
        )
        assert short[record.endpoint_id].history == ()
        assert metadata.list_connector_states(record.tenant_id, []) == {}

    def test_replacing_a_connectors_state_needs_its_version(self, metadata: MetadataStore) -> None:
        record = metadata.put_endpoint(endpoint(new_tenant()))
        first = metadata.put_connector_state(_state(record))
        second = metadata.put_connector_state(first.model_copy(update={"testing_until": NOON}))
        for stale in (first, _state(record)):
            with pytest.raises(StateConflictError):
                metadata.put_connector_state(stale)
        assert metadata.get_connector_state(record.tenant_id, record.endpoint_id) == second
        # the endpoint's own version is the caller's and is left alone
        assert metadata.get_endpoint(record.tenant_id, record.endpoint_id).version == 1

    def test_the_state_goes_with_the_connector(self, metadata: MetadataStore) -> None:
        record = metadata.put_endpoint(endpoint(new_tenant()))
        stored = metadata.put_connector_state(_state(record))
        metadata.delete_endpoint(record.tenant_id, record.endpoint_id)
        assert metadata.get_connector_state(record.tenant_id, record.endpoint_id) is None
        with pytest.raises(NotFoundError):
            metadata.put_connector_state(_state(record))
        with pytest.raises(StateConflictError):
            metadata.put_connector_state(stored)

    def test_endpoints_are_listed_by_type(self, metadata: MetadataStore) -> None:
        tenant = new_tenant()
        first = metadata.put_endpoint(endpoint(tenant))
        other = endpoint(tenant, name="lake", type="iceberg", endpoint_id=EndpointId("e-lake"))
        metadata.put_endpoint(other)
        assert metadata.list_endpoints(tenant, types={first.type}) == [first]
        assert metadata.list_endpoints(tenant, types=()) == []

    def test_endpoints_made_at_once_do_not_exceed_a_limit(self, metadata: MetadataStore) -> None:
        tenant = new_tenant()
        made: list[EndpointRecord] = []
        refused: list[PlanLimitError] = []

        def make(number: int) -> None:
            record = endpoint(tenant, name=f"n{number}", endpoint_id=EndpointId(f"e{number}"))
            try:
                made.append(metadata.put_endpoint(record, _limit(record, 2)))
            except PlanLimitError as error:
                refused.append(error)

        together(THREADS, make)
        assert len(made) == 2
        assert len(refused) == THREADS - 2
        assert refused[0].context == {"plan": "SMALL", "max_connectors": 2}
        # changes do not count, other tenants and other types neither
        metadata.put_endpoint(made[0], _limit(made[0], 2))
        metadata.put_endpoint(endpoint(new_tenant()), _limit(made[0], 1))
        metadata.put_endpoint(
            endpoint(tenant, name="lake", type="iceberg", endpoint_id=EndpointId("e-lake")),
            EndpointLimit(plan="SMALL", types=frozenset({"iceberg"}), max_endpoints=1),
        )

    def test_a_taken_name_is_said_within_the_limit(self, metadata: MetadataStore) -> None:
        tenant = new_tenant()
        first = metadata.put_endpoint(endpoint(tenant))
        again = endpoint(tenant, name=first.name, endpoint_id=EndpointId("e-again"))
        with pytest.raises(ConflictError):
            metadata.put_endpoint(again, _limit(again, 5))

    def test_connectors_that_are_due_are_found_longest_due_first(
        self, metadata: MetadataStore
    ) -> None:
        kind = f"TYPE-{new_tenant()}"  # the store is shared with other tests
        records = [metadata.put_endpoint(endpoint(new_tenant(), type=kind)) for _ in range(4)]
        for record, minutes in zip(records, (5, -5, -10), strict=False):
            due_at = NOON + timedelta(minutes=minutes)
            metadata.put_connector_state(_state(record).model_copy(update={"due_at": due_at}))
        _, late, later, never = records
        assert metadata.find_due_connectors([kind], NOON) == [never, later, late]
        assert metadata.find_due_connectors([kind], NOON, limit=1) == [never]
        assert metadata.find_due_connectors([], NOON) == []

    def test_notifications_are_newest_first_and_the_oldest_go(
        self, metadata: MetadataStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("matih_ray.state.sql_connectors.MAX_NOTIFICATIONS", 3)
        tenant = new_tenant()
        made = [_notification(tenant, minutes) for minutes in range(5)]
        for notification in made:
            metadata.put_notification(notification)
        metadata.put_notification(made[4])
        assert metadata.list_notifications(tenant) == made[:1:-1]
        assert metadata.list_notifications(tenant, offset=1, limit=1) == [made[3]]
        assert metadata.list_notifications(new_tenant()) == []

    def test_due_deliveries_are_found_until_they_are_done(self, metadata: MetadataStore) -> None:
        tenant = new_tenant()
        early, late, never = (_notification(tenant, minutes) for minutes in range(3))
        # years before every other test's, so that they come first
        start = NOON - timedelta(days=36_500)
        metadata.put_notification(late, deliver_at=start + timedelta(seconds=1))
        metadata.put_notification(early, deliver_at=start)
        metadata.put_notification(never)
        assert metadata.find_due_deliveries(start) == [Delivery(early, 0)]
        found = metadata.find_due_deliveries(start + timedelta(seconds=1))
        assert found == [Delivery(early, 0), Delivery(late, 0)]
        metadata.note_delivery(found[0], start + timedelta(seconds=5))
        metadata.note_delivery(found[1], None)
        assert metadata.find_due_deliveries(start + timedelta(seconds=4)) == []
        again = metadata.find_due_deliveries(start + timedelta(seconds=5))
        assert again == [Delivery(early, 1)]
        metadata.note_delivery(again[0], None)
        assert metadata.list_notifications(tenant) == [never, late, early]

    def test_usage_adds_up_the_runs_of_one_endpoint(self, metadata: MetadataStore) -> None:
        tenant, mine = new_tenant(), EndpointId("e-1")
        since = NOON - timedelta(days=30)
        done, lost = RunState.COMPLETED, RunState.FAILED
        for unit_id, state, rows, at in (
            ("u-1", done, 3_000_000_000, NOON),
            ("u-2", done, 2, NOON),
            ("u-3", lost, 10, NOON - timedelta(days=1)),
            ("u-4", done, 100, since - timedelta(seconds=1)),
        ):
            queued = metadata.create_run(
                run(stream(tenant, unit_id), created_at=at, rows=rows, bytes=5)
            )
            finish(metadata, queued, state)
        metadata.create_run(run(stream(new_tenant(), "u-1"), rows=7))
        assert metadata.usage_of(tenant, mine, since) == ConnectorUsage(
            connector_id=mine,
            since=since,
            runs=3,
            completed_runs=2,
            failed_runs=1,
            rows=3_000_000_012,
            bytes=15,
            last_used_at=NOON,
        )
        unused = metadata.usage_of(tenant, EndpointId("e-2"), since)
        assert unused == ConnectorUsage(connector_id=EndpointId("e-2"), since=since)


def _notification(tenant: TenantId, minutes: int) -> Notification:
    at = NOON + timedelta(minutes=minutes)
    connector = EndpointId("c")
    return Notification(
        notification_id=f"n{minutes}",
        tenant_id=tenant,
        connector_id=connector,
        kind=NotificationKind.CONNECTOR_ERROR,
        message="in error",
        test=ConnectorTest(connector_id=connector, success=False, message="no", tested_at=at),
        created_at=at,
    )

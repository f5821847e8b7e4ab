"""Connectors (seed 001): endpoints with a life: created tested, tested again, discovered, disabled.

Creating is validate, store credentials, test, save, discover, in this order. Each step that fails
takes back those before it, so that there is never a connector without its test result nor a secret
that no connector names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr

from matih_ray.control import discovery
from matih_ray.control.authorization import Action, Principal, authorize
from matih_ray.control.connectivity import TEST_DEADLINE
from matih_ray.control.connector_credentials import TemporaryCredentials
from matih_ray.control.connector_fields import (
    ConnectorSettings,
    StoredParts,
    login_fields,
    stored_parts,
)
from matih_ray.control.connector_health import note_test
from matih_ray.control.connector_types import ConnectorType, connector_type, source_type
from matih_ray.control.discovery import begin_discovery, changed_state
from matih_ray.control.endpoints import MAX_NAME_CHARS, checked_name, delete_endpoint
from matih_ray.control.idempotency import Claim, claimed
from matih_ray.control.pages import Page, page_of
from matih_ray.control.ports import Ports
from matih_ray.control.source_calls import SourceCalls
from matih_ray.control.tiers import connector_limit
from matih_ray.errors import (
    ConflictError,
    ConnectorTestError,
    NotFoundError,
    StateConflictError,
    ValidationError,
)
from matih_ray.model.connector import (
    ConnectorState,
    ConnectorStatus,
    ConnectorTest,
)
from matih_ray.model.ids import EndpointId, TenantId
from matih_ray.model.value import JsonValue, Value
from matih_ray.state.base import EndpointRecord


class ConnectorDraft(ConnectorSettings):
    """A new connector. `credentials` never come back."""

    name: Annotated[
        str, Field(min_length=1, max_length=MAX_NAME_CHARS), AfterValidator(checked_name)
    ]
    type: Annotated[str, Field(description="Connector type, such as SNOWFLAKE")]
    credentials: dict[str, SecretStr] = {}


class ConnectorChange(ConnectorSettings):
    """All settings of a connector anew. Without `credentials` the stored ones stay.

    `status` INACTIVE disables the connector, ACTIVE enables it again. `version`, when given, must
    be the stored one.
    """

    credentials: dict[str, SecretStr] | None = None
    status: Literal["ACTIVE", "INACTIVE"] | None = None
    version: int | None = None


class CredentialsChange(Value):
    """All credentials of a connector anew."""

    credentials: dict[str, SecretStr]


class Connector(Value):
    """A connector and what is known about it."""

    record: EndpointRecord
    state: ConnectorState
    status: ConnectorStatus


def create_connector(
    principal: Principal,
    ports: Ports,
    calls: SourceCalls,
    tenant_id: TenantId,
    draft: ConnectorDraft,
    idempotency_key: str | None = None,
) -> Connector:
    """Test a connector and save it if the test succeeds; discovery is started.

    With a key, repeating the request gives the same connector.

    Raises:
        ValidationError: A field is wrong.
        PlanLimitError: The tenant's plan does not allow it.
        ConflictError: The name is taken, or the key belongs to another request.
        ConnectorTestError: The test failed; context names its code. Nothing was saved.
    """
    authorize(principal, Action.CONNECT, tenant_id)
    type_ = _source_type_of(ports, draft.type)
    limit = connector_limit(ports, tenant_id, type_.name)
    parts = stored_parts(type_, draft, draft.credentials)
    with claimed(ports, tenant_id, "connector", idempotency_key, draft) as claim:
        if claim.done:
            return get_connector(principal, ports, tenant_id, EndpointId(claim.resource_id))
        if ports.metadata.find_endpoint(tenant_id, draft.name) is not None:
            raise ConflictError(
                f"another connector is named {draft.name!r}; choose another name", field="name"
            )
        record = _new_record(ports, tenant_id, draft, type_, parts, claim)
        with TemporaryCredentials(ports, type_, record, draft.credentials) as credentials:
            candidate = credentials.named
            outcome = _tested(ports, calls, candidate)
            stored = ports.metadata.put_endpoint(candidate, limit)
            credentials.keep()
        note_test(ports, stored, outcome)
    _discover(ports, calls, stored)
    return get_connector(principal, ports, tenant_id, stored.endpoint_id)


def update_connector(
    principal: Principal,
    ports: Ports,
    calls: SourceCalls,
    tenant_id: TenantId,
    connector_id: EndpointId,
    change: ConnectorChange,
) -> Connector:
    """Replace a connector's settings if they pass the test; discovery is started again.

    Raises:
        NotFoundError: No such connector.
        ValidationError: A field is wrong.
        StateConflictError: Somebody else changed it.
        ConnectorTestError: The test failed; the connector is as it was.
    """
    authorize(principal, Action.CONNECT, tenant_id)
    before = _record(ports, tenant_id, connector_id)
    if change.version not in (None, before.version):
        raise StateConflictError(
            f"connector {connector_id} has version {before.version}, not {change.version}; "
            "read it again",
            endpoint_id=connector_id,
            version=before.version,
        )
    type_ = connector_type(ports, before.type)
    if change.credentials is None:
        parts = stored_parts(type_, change, {}, _login(ports, before))
    else:
        parts = stored_parts(type_, change, change.credentials)
    enabled = before.enabled if change.status is None else change.status == "ACTIVE"
    after = before.model_copy(
        update={
            "config": parts.config,
            "attributes": parts.attributes,
            "enabled": enabled,
            "updated_at": ports.clock(),
        }
    )
    return _replaced(principal, ports, calls, before, after, change.credentials)


def rotate_credentials(
    principal: Principal,
    ports: Ports,
    calls: SourceCalls,
    tenant_id: TenantId,
    connector_id: EndpointId,
    change: CredentialsChange,
) -> Connector:
    """Replace a connector's credentials if they pass the test.

    Raises:
        NotFoundError: No such connector.
        ValidationError: A field is wrong.
        ConnectorTestError: The test failed; the old credentials stay.
    """
    authorize(principal, Action.CONNECT, tenant_id)
    before = _record(ports, tenant_id, connector_id)
    type_ = connector_type(ports, before.type)
    settings = ConnectorSettings(metadata={**before.attributes, **before.config})
    parts = stored_parts(type_, settings, change.credentials)
    after = before.model_copy(update={"config": parts.config, "updated_at": ports.clock()})
    return _replaced(principal, ports, calls, before, after, change.credentials)


def check_connector(
    principal: Principal,
    ports: Ports,
    calls: SourceCalls,
    tenant_id: TenantId,
    connector_id: EndpointId,
) -> ConnectorTest:
    """Test a connector and note the outcome, good or bad. Raises `NotFoundError`."""
    authorize(principal, Action.CONNECT, tenant_id)
    record = _record(ports, tenant_id, connector_id)
    until = ports.clock() + TEST_DEADLINE
    changed_state(
        ports,
        tenant_id,
        connector_id,
        lambda state: state.model_copy(update={"testing_until": until}),
    )
    outcome = calls.test(ports, record)
    note_test(ports, record, outcome)
    return outcome


def discover_connector(
    principal: Principal,
    ports: Ports,
    calls: SourceCalls,
    tenant_id: TenantId,
    connector_id: EndpointId,
) -> Connector:
    """Start a discovery, unless one is running.

    Raises:
        NotFoundError: No such connector.
        ConflictError: It is disabled.
    """
    authorize(principal, Action.CONNECT, tenant_id)
    record = _record(ports, tenant_id, connector_id)
    if not record.enabled:
        raise ConflictError(
            f"connector {record.name} is disabled; set its status to ACTIVE first",
            endpoint_id=connector_id,
        )
    _discover(ports, calls, record)
    return get_connector(principal, ports, tenant_id, connector_id)


def cancel_discovery(
    principal: Principal, ports: Ports, tenant_id: TenantId, connector_id: EndpointId
) -> Connector:
    """Cancel a running discovery; the catalog stays as it was. Raises `NotFoundError`."""
    authorize(principal, Action.CONNECT, tenant_id)
    _record(ports, tenant_id, connector_id)
    discovery.cancel_discovery(ports, tenant_id, connector_id)
    return get_connector(principal, ports, tenant_id, connector_id)


def get_connector(
    principal: Principal, ports: Ports, tenant_id: TenantId, connector_id: EndpointId
) -> Connector:
    """One connector. Raises `NotFoundError`."""
    authorize(principal, Action.READ, tenant_id)
    record = _record(ports, tenant_id, connector_id)
    return _known(ports, record, ports.metadata.get_connector_state(tenant_id, connector_id))


def list_connectors(
    principal: Principal, ports: Ports, tenant_id: TenantId, *, offset: int, limit: int
) -> Page[Connector]:
    """A page of the tenant's connectors, ordered by name: two statements for any number.

    Without the histories of their tests.
    """
    authorize(principal, Action.READ, tenant_id)
    sources = frozenset(ports.registry.names("sources"))

    def read(start: int, count: int) -> list[Connector]:
        records = ports.metadata.list_endpoints(tenant_id, offset=start, limit=count, types=sources)
        states = ports.metadata.list_connector_states(
            tenant_id, [record.endpoint_id for record in records], with_history=False
        )
        return [_known(ports, record, states.get(record.endpoint_id)) for record in records]

    return page_of(read, offset, limit)


def delete_connector(
    principal: Principal, ports: Ports, tenant_id: TenantId, connector_id: EndpointId
) -> None:
    """Remove a connector with its credentials, catalog and checkpoints.

    Raises:
        NotFoundError: No such connector.
        ConflictError: It has an active run.
    """
    authorize(principal, Action.CONNECT, tenant_id)
    _record(ports, tenant_id, connector_id)
    delete_endpoint(principal, ports, tenant_id, connector_id)


def status_of(ports: Ports, record: EndpointRecord, state: ConnectorState) -> ConnectorStatus:
    """The seed's status: disabled, being tested, or what the last test says."""
    if not record.enabled:
        return ConnectorStatus.INACTIVE
    if state.testing_until is not None and ports.clock() < state.testing_until:
        return ConnectorStatus.TESTING
    last = state.last_test
    if last is None or not last.success:
        return ConnectorStatus.ERROR
    slow = last.latency_ms is not None and last.latency_ms > ports.settings.connector_warning_ms
    return ConnectorStatus.WARNING if slow else ConnectorStatus.ACTIVE


def _replaced(
    principal: Principal,
    ports: Ports,
    calls: SourceCalls,
    before: EndpointRecord,
    after: EndpointRecord,
    new_credentials: Mapping[str, SecretStr] | None,
) -> Connector:
    """Test the changed connector and switch to it in one compare-and-set."""
    type_ = connector_type(ports, before.type)
    with TemporaryCredentials(ports, type_, after, new_credentials) as credentials:
        candidate = credentials.named
        outcome = _tested(ports, calls, candidate) if candidate.enabled else None
        stored = ports.metadata.put_endpoint(candidate)
        credentials.keep()
    if before.credential_name not in (None, stored.credential_name):
        ports.credentials.delete(before.tenant_id, str(before.credential_name))
    if outcome is not None:
        note_test(ports, stored, outcome)
        _discover(ports, calls, stored)
    return get_connector(principal, ports, stored.tenant_id, stored.endpoint_id)


def _new_record(
    ports: Ports,
    tenant_id: TenantId,
    draft: ConnectorDraft,
    type_: ConnectorType,
    parts: StoredParts,
    claim: Claim,
) -> EndpointRecord:
    now = ports.clock()
    return EndpointRecord(
        endpoint_id=EndpointId(claim.resource_id),
        tenant_id=tenant_id,
        name=draft.name,
        type=type_.name,
        config=parts.config,
        attributes=parts.attributes,
        created_at=now,
        updated_at=now,
    )


def _tested(ports: Ports, calls: SourceCalls, candidate: EndpointRecord) -> ConnectorTest:
    outcome = calls.test(ports, candidate)
    if not outcome.success:
        raise ConnectorTestError(
            f"{outcome.message}. {outcome.remediation or ''}".strip(),
            error_code=outcome.error_code,
            stage=next((s.name for s in outcome.stages if s.state == "FAILED"), None),
        )
    return outcome


def _discover(ports: Ports, calls: SourceCalls, record: EndpointRecord) -> None:
    if begin_discovery(ports, record.tenant_id, record.endpoint_id):
        calls.start_discovery(ports, record.tenant_id, record.endpoint_id)


def _login(ports: Ports, record: EndpointRecord) -> dict[str, JsonValue]:
    names: Iterable[str] = ()
    if record.credential_name is not None:
        names = ports.credentials.get(record.tenant_id, record.credential_name)
    return login_fields(record.config, names)


def _record(ports: Ports, tenant_id: TenantId, connector_id: EndpointId) -> EndpointRecord:
    """A stored connector; endpoints that are sinks are none."""
    record = ports.metadata.get_endpoint(tenant_id, connector_id)
    try:
        source_type(ports, record)
    except ValidationError:
        raise NotFoundError(
            f"no connector {connector_id}; the endpoint of that id is a sink",
            endpoint_id=connector_id,
        ) from None
    return record


def _source_type_of(ports: Ports, name: str) -> ConnectorType:
    type_ = connector_type(ports, name)
    if type_.kind != "sources":
        raise ValidationError(f"{name} is a sink; create it as an endpoint", field="type")
    return type_


def _known(ports: Ports, record: EndpointRecord, state: ConnectorState | None) -> Connector:
    known = state or ConnectorState(tenant_id=record.tenant_id, endpoint_id=record.endpoint_id)
    return Connector(record=record, state=known, status=status_of(ports, record, known))

"""Endpoints: a tenant's configured connectors.

Secrets go to the credential store under a name made for this one version of them, and only that
name is kept with the endpoint. Changing secrets therefore writes new ones, switches the endpoint
to them in one compare-and-set and then deletes the old: at every moment an endpoint points at
complete credentials. The name of an endpoint cannot be changed, because tables are named after it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated

import structlog
from pydantic import AfterValidator, Field, SecretStr

from matih_ray.control.authorization import Action, Principal, authorize
from matih_ray.control.building import build_source
from matih_ray.control.change_logs import drop_logs, last_by_log
from matih_ray.control.connector_types import (
    ConnectorType,
    checked_config,
    checked_secrets,
    connector_type,
    source_type,
)
from matih_ray.control.pages import Page, page_of
from matih_ray.control.ports import Ports
from matih_ray.control.streams import unit_states
from matih_ray.control.tiers import connector_limit
from matih_ray.errors import ConflictError, MatihError, StateConflictError
from matih_ray.model.ids import EndpointId, TenantId
from matih_ray.model.run import RunState
from matih_ray.model.value import JsonValue, Value
from matih_ray.sources.base import ConnectionTest
from matih_ray.state.base import EndpointLimit, EndpointRecord

MAX_NAME_CHARS = 100
# Names become parts of table names and of file paths.
_BAD_NAME = re.compile(r"[\x00-\x1f\x7f/\\]|^\s|\s$|^\.")

log = structlog.get_logger(__name__)


def checked_name(name: str) -> str:
    """A name that tables and files can be called after. Raises `ValueError`."""
    if _BAD_NAME.search(name):
        raise ValueError("no control characters, slashes, outer spaces or leading dot")
    return name


class EndpointDraft(Value):
    """A new endpoint. `secrets` never come back; `config` must not hold any."""

    name: Annotated[
        str, Field(min_length=1, max_length=MAX_NAME_CHARS), AfterValidator(checked_name)
    ]
    type: Annotated[str, Field(description="Connector type, such as POSTGRESQL")]
    config: dict[str, JsonValue]
    secrets: dict[str, SecretStr] = {}


class EndpointChange(Value):
    """A whole new configuration of an endpoint.

    Without `secrets` the stored ones stay; with them they are all replaced. `version`, when given,
    must be the stored one.
    """

    config: dict[str, JsonValue]
    secrets: dict[str, SecretStr] | None = None
    version: int | None = None


def create_endpoint(
    principal: Principal, ports: Ports, tenant_id: TenantId, draft: EndpointDraft
) -> EndpointRecord:
    """Store a connector and its credentials; nothing is connected yet.

    Raises:
        ValidationError: Type, configuration or secrets are wrong.
        ConflictError: The tenant has an endpoint of that name.
        PlanLimitError: The tenant's plan does not allow it.
    """
    authorize(principal, Action.CONNECT, tenant_id)
    type_ = connector_type(ports, draft.type)
    now = ports.clock()
    record = EndpointRecord(
        endpoint_id=EndpointId(ports.new_id()),
        tenant_id=tenant_id,
        name=draft.name,
        type=type_.name,
        config=checked_config(type_, draft.config),
        created_at=now,
        updated_at=now,
    )
    limit = connector_limit(ports, tenant_id, type_.name) if type_.kind == "sources" else None
    return _stored(ports, type_, record, draft.secrets, limit)


def update_endpoint(
    principal: Principal,
    ports: Ports,
    tenant_id: TenantId,
    endpoint_id: EndpointId,
    change: EndpointChange,
) -> EndpointRecord:
    """Replace an endpoint's configuration; runs under way see it with their next connection.

    Raises:
        NotFoundError: No such endpoint.
        ValidationError: Configuration or secrets are wrong.
        StateConflictError: Somebody else changed it.
    """
    authorize(principal, Action.CONNECT, tenant_id)
    before = ports.metadata.get_endpoint(tenant_id, endpoint_id)
    if change.version not in (None, before.version):
        raise StateConflictError(
            f"endpoint {endpoint_id} has version {before.version}, not {change.version}; "
            "read it again",
            endpoint_id=endpoint_id,
            version=before.version,
        )
    type_ = connector_type(ports, before.type)
    config = checked_config(type_, change.config)
    after = before.model_copy(update={"config": config, "updated_at": ports.clock()})
    if change.secrets is None:
        return ports.metadata.put_endpoint(after)
    stored = _stored(
        ports, type_, after.model_copy(update={"credential_name": None}), change.secrets
    )
    if before.credential_name is not None:
        ports.credentials.delete(tenant_id, before.credential_name)
    return stored


def get_endpoint(
    principal: Principal, ports: Ports, tenant_id: TenantId, endpoint_id: EndpointId
) -> EndpointRecord:
    """One endpoint, without secrets. Raises `NotFoundError`."""
    authorize(principal, Action.READ, tenant_id)
    return ports.metadata.get_endpoint(tenant_id, endpoint_id)


def list_endpoints(
    principal: Principal,
    ports: Ports,
    tenant_id: TenantId,
    *,
    name: str | None,
    offset: int,
    limit: int,
) -> Page[EndpointRecord]:
    """A page of the tenant's endpoints; with `name`, the one endpoint of that name or none."""
    authorize(principal, Action.READ, tenant_id)
    if name is not None:
        found = ports.metadata.find_endpoint(tenant_id, name)
        return page_of(lambda start, _: [found] if found and not start else [], offset, limit)
    return page_of(
        lambda start, count: ports.metadata.list_endpoints(tenant_id, offset=start, limit=count),
        offset,
        limit,
    )


def delete_endpoint(
    principal: Principal, ports: Ports, tenant_id: TenantId, endpoint_id: EndpointId
) -> None:
    """Remove an endpoint, its catalog, checkpoints and credentials; ledger and tables stay. What
    the source keeps for runs by its log goes too, if it can be reached.

    Raises:
        NotFoundError: No such endpoint.
        ConflictError: It has an active run; context names it.
    """
    authorize(principal, Action.CONNECT, tenant_id)
    record = ports.metadata.get_endpoint(tenant_id, endpoint_id)
    active = ports.metadata.list_runs(
        tenant_id, endpoint_id=endpoint_id, states=(RunState.QUEUED, RunState.RUNNING), limit=1
    )
    if active:
        raise ConflictError(
            f"run {active[0].run_id} of this endpoint is {active[0].state.value}; "
            "cancel it or wait until it ends",
            run_id=active[0].run_id,
        )
    states = list(unit_states(ports, tenant_id, endpoint_id))
    logs = last_by_log(ports, states)
    source = build_source(ports, tenant_id, endpoint_id) if logs else None
    ports.metadata.delete_endpoint(tenant_id, endpoint_id)
    if source is not None:
        drop_logs(source, logs)
        source.close()
    if record.credential_name is not None:
        ports.credentials.delete(tenant_id, record.credential_name)
    for state in states:
        ports.kv.delete(tenant_id, state.stream.kv_key())


def check_endpoint(
    principal: Principal, ports: Ports, tenant_id: TenantId, endpoint_id: EndpointId
) -> ConnectionTest:
    """Connect and authenticate with the stored credentials.

    Raises:
        NotFoundError: No such endpoint.
        ValidationError: The endpoint is a sink.
        SourceError: The connection failed, with one of the stable codes.
    """
    authorize(principal, Action.CONNECT, tenant_id)
    source_type(ports, ports.metadata.get_endpoint(tenant_id, endpoint_id))
    source = build_source(ports, tenant_id, endpoint_id)
    try:
        return source.test()
    finally:
        source.close()


def _stored(
    ports: Ports,
    type_: ConnectorType,
    record: EndpointRecord,
    secrets: Mapping[str, SecretStr],
    limit: EndpointLimit | None = None,
) -> EndpointRecord:
    """Store the secrets, then the record that names them; no secrets are left if that fails."""
    plain = {name: secret.get_secret_value() for name, secret in secrets.items()}
    checked = checked_secrets(type_, plain)
    if not checked:
        return ports.metadata.put_endpoint(record, limit)
    name = f"endpoint-{record.endpoint_id}-{ports.new_id()}"
    ports.credentials.put(record.tenant_id, name, checked)
    try:
        return ports.metadata.put_endpoint(
            record.model_copy(update={"credential_name": name}), limit
        )
    except MatihError:
        _discard(ports, record.tenant_id, name)
        raise


def _discard(ports: Ports, tenant_id: TenantId, name: str) -> None:
    """Delete credentials that nothing names; the reason for it is the error to report."""
    try:
        ports.credentials.delete(tenant_id, name)
    except MatihError as error:
        log.warning("credentials_left_behind", name=name, code=error.code)

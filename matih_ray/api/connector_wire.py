"""Answers about connectors, in the shapes of seed 001 (more fields, never fewer).

May import what `wire` may, for the same reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import groupby

from pydantic import Field

from matih_ray.model.connector import ConnectorState, ConnectorStatus, Discovery, HealthPoint
from matih_ray.model.ids import EndpointId, TenantId
from matih_ray.model.unit import ColumnDescriptor, EndpointUnitDescriptor
from matih_ray.model.value import JsonValue, Value
from matih_ray.state.base import EndpointRecord

_PLAIN_MODES = ("disable", "prefer")
# Fields of the connector itself; what else is in its configuration is shown as `metadata`.
_OWN = ("host", "port", "database", "schema", "sslMode")


class ConnectorBody(Value):
    """A connector. Credentials are never shown, only the name they are kept under.

    `history` holds its last tests, newest first.
    """

    id: EndpointId
    tenant_id: TenantId
    name: str
    type: str
    host: str | None
    port: int | None
    database: str | None
    schema_: str | None = Field(alias="schema")
    credential_secret_name: str | None
    ssl_enabled: bool | None
    ssl_mode: str | None
    status: ConnectorStatus
    last_tested_at: datetime | None
    last_test_result: str | None
    metadata: dict[str, JsonValue]
    history: tuple[HealthPoint, ...]
    discovery: Discovery | None
    schemas_discovered: int | None
    tables_discovered: int | None
    version: int
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(
        cls, record: EndpointRecord, state: ConnectorState, status: ConnectorStatus
    ) -> ConnectorBody:
        """The public part of a connector and of what is known about it."""
        facts = {**record.attributes, **record.config}
        mode, port = facts.get("sslMode"), facts.get("port")
        discovery, test = state.discovery, state.last_test
        return cls(
            id=record.endpoint_id,
            tenant_id=record.tenant_id,
            name=record.name,
            type=record.type,
            host=_text(facts.get("host")),
            port=port if isinstance(port, int) else None,
            database=_text(facts.get("database")),
            schema_=_text(facts.get("schema")),
            credential_secret_name=record.credential_name,
            ssl_enabled=None if mode is None else mode not in _PLAIN_MODES,
            ssl_mode=_text(mode),
            status=status,
            last_tested_at=None if test is None else test.tested_at,
            last_test_result=None if test is None else test.message,
            metadata={name: value for name, value in facts.items() if name not in _OWN},
            history=state.history,
            discovery=discovery,
            schemas_discovered=None if discovery is None else discovery.schemas,
            tables_discovered=None if discovery is None else discovery.tables,
            version=record.version,
            created_at=record.created_at,
            updated_at=record.updated_at,
        )


class TableBody(Value):
    """A discovered table. `columns` is their number; `column_list` is there on request."""

    name: str
    type: str
    unit_id: str
    columns: int
    estimated_rows: int | None
    size_bytes: int | None
    primary_key: tuple[str, ...]
    column_list: tuple[ColumnDescriptor, ...] | None = None


class SchemaBody(Value):
    """A schema with those of its tables that are on this page."""

    name: str
    tables: tuple[TableBody, ...]


class SchemasBody(Value):
    """What discovery found, a page of tables at a time. `next` leads to the next page."""

    connector_id: EndpointId
    schemas: Sequence[SchemaBody]
    discovered_at: datetime | None
    discovery: Discovery | None
    next: str | None = None


def schemas_of(units: Iterable[EndpointUnitDescriptor], *, columns: bool) -> list[SchemaBody]:
    """Units grouped by their namespace, both in order."""
    ordered = sorted(units, key=lambda unit: (unit.namespace, unit.name))
    return [
        SchemaBody(name=name, tables=tuple(_table(unit, columns=columns) for unit in group))
        for name, group in groupby(ordered, key=lambda unit: unit.namespace)
    ]


def _table(unit: EndpointUnitDescriptor, *, columns: bool) -> TableBody:
    return TableBody(
        name=unit.name,
        type=unit.kind.upper(),
        unit_id=unit.unit_id,
        columns=len(unit.columns),
        estimated_rows=unit.estimated_rows,
        size_bytes=unit.estimated_bytes,
        primary_key=unit.primary_key,
        column_list=unit.columns if columns else None,
    )


def _text(value: JsonValue) -> str | None:
    return value if isinstance(value, str) else None

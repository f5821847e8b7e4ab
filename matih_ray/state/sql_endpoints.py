"""Endpoints and their catalog in SQL."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from matih_ray.errors import (
    ConflictError,
    MatihError,
    NotFoundError,
    PlanLimitError,
    StateConflictError,
    UnknownUnitError,
    ValidationError,
)
from matih_ray.model.ids import EndpointId, TenantId, UnitId
from matih_ray.model.unit import EndpointUnitDescriptor
from matih_ray.state.base import EndpointLimit, EndpointRecord
from matih_ray.state.names import check_page
from matih_ray.state.sql_part import SqlPart, remembered, stored_value
from matih_ray.state.sql_unit_configurations import is_disabled
from matih_ray.state.tables import catalog_dataset, endpoints

_ENDPOINT_COLUMNS = {"tenant_id", "endpoint_id", "name", "version"}


class SqlEndpoints(SqlPart):
    """Connectors as stored; see `MetadataStore` for each method."""

    def put_endpoint(
        self, record: EndpointRecord, limit: EndpointLimit | None = None
    ) -> EndpointRecord:
        """Insert (version 0) or replace by compare-and-set; returns it with its new version."""
        after = record.version + 1
        values = {
            "name": record.name,
            "type": record.type,
            "document": record.model_dump_json(by_alias=True, exclude=_ENDPOINT_COLUMNS),
            "version": after,
        }
        key = {"tenant_id": record.tenant_id, "endpoint_id": record.endpoint_id}
        with self._database.write(
            "store the endpoint", violated=lambda: self._endpoint_conflict(record)
        ) as connection:
            if record.version == 0:
                if limit is not None:
                    self._check_limit(connection, record, limit)
                connection.execute(insert(endpoints).values(**key, **values))
            else:
                changed = connection.execute(
                    update(endpoints)
                    .where(*_is_endpoint(record.tenant_id, record.endpoint_id))
                    .where(endpoints.c.version == record.version)
                    .values(**values)
                )
                if changed.rowcount == 0:
                    raise _changed(record)
        return record.model_copy(update={"version": after})

    def _check_limit(
        self, connection: Connection, record: EndpointRecord, limit: EndpointLimit
    ) -> None:
        """Count what the tenant has; whoever else inserts for it waits for this transaction."""
        if not self._database.is_sqlite:  # there a write transaction is alone anyway
            lock = func.hashtextextended(f"endpoints of {record.tenant_id}", 0)
            connection.execute(select(func.pg_advisory_xact_lock(lock)))
        counted = connection.scalar(
            select(func.count())
            .select_from(endpoints)
            .where(endpoints.c.tenant_id == record.tenant_id, endpoints.c.type.in_(limit.types))
        )
        if (counted or 0) >= limit.max_endpoints:
            raise PlanLimitError(
                f"the {limit.plan} plan allows {limit.max_endpoints} connectors and there are "
                f"{counted}; delete one or upgrade the plan",
                plan=limit.plan,
                max_connectors=limit.max_endpoints,
            )

    def _endpoint_conflict(self, record: EndpointRecord) -> MatihError:
        other = self.find_endpoint(record.tenant_id, record.name)
        if other is None or other.endpoint_id == record.endpoint_id:
            return _changed(record)
        return ConflictError(
            f"another endpoint is named {record.name!r}; choose another name",
            endpoint_id=other.endpoint_id,
            field="name",
        )

    def get_endpoint(self, tenant_id: TenantId, endpoint_id: EndpointId) -> EndpointRecord:
        """Raises `NotFoundError`."""
        query = select(endpoints).where(*_is_endpoint(tenant_id, endpoint_id))
        with self._database.read("read the endpoint") as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            raise _no_endpoint(endpoint_id)
        return endpoint_of(row)

    def find_endpoint(self, tenant_id: TenantId, name: str) -> EndpointRecord | None:
        """The endpoint of this name, if there is one."""
        query = select(endpoints).where(
            endpoints.c.tenant_id == tenant_id, endpoints.c.name == name
        )
        with self._database.read("find the endpoint") as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else endpoint_of(row)

    def list_endpoints(
        self,
        tenant_id: TenantId,
        *,
        types: Collection[str] | None = None,
        offset: int = 0,
        limit: int = 100,
    ) -> list[EndpointRecord]:
        """A page of endpoints, ordered by name."""
        check_page(offset, limit)
        query = (
            select(endpoints)
            .where(endpoints.c.tenant_id == tenant_id)
            .order_by(endpoints.c.name)
            .offset(offset)
            .limit(limit)
        )
        if types is not None:
            query = query.where(endpoints.c.type.in_(types))
        with self._database.read("list the endpoints") as connection:
            return [endpoint_of(row) for row in connection.execute(query)]

    def delete_endpoint(self, tenant_id: TenantId, endpoint_id: EndpointId) -> None:
        """Remove an endpoint and its catalog; its runs stay. Raises `NotFoundError`."""
        with self._database.write("delete the endpoint") as connection:
            gone = connection.execute(
                delete(endpoints).where(*_is_endpoint(tenant_id, endpoint_id))
            )
        if gone.rowcount == 0:
            raise _no_endpoint(endpoint_id)


class SqlCatalog(SqlPart):
    """The units of each endpoint. Writers of one endpoint's catalog take turns at its row."""

    def replace_units(
        self,
        tenant_id: TenantId,
        endpoint_id: EndpointId,
        units: Sequence[EndpointUnitDescriptor],
    ) -> None:
        """Make the endpoint's catalog exactly these units. Raises `NotFoundError`."""
        rows = {unit.unit_id: _unit_row(tenant_id, endpoint_id, unit) for unit in units}
        if len(rows) != len(units):
            raise ValidationError(
                f"{len(units) - len(rows)} units have the id of another unit", field="unitId"
            )
        with self._database.write("replace the catalog") as connection:
            _hold_endpoint(connection, tenant_id, endpoint_id)
            connection.execute(
                delete(catalog_dataset).where(
                    catalog_dataset.c.tenant_id == tenant_id,
                    catalog_dataset.c.endpoint_id == endpoint_id,
                )
            )
            if rows:
                connection.execute(insert(catalog_dataset), list(rows.values()))

    def put_unit(self, tenant_id: TenantId, unit: EndpointUnitDescriptor) -> None:
        """Insert or refresh one unit. Raises `NotFoundError`."""
        row = _unit_row(tenant_id, unit.endpoint_id, unit)
        statement = self._database.insert(catalog_dataset).values(**row)
        with self._database.write("store the unit") as connection:
            _hold_endpoint(connection, tenant_id, unit.endpoint_id)
            connection.execute(
                statement.on_conflict_do_update(
                    index_elements=list(catalog_dataset.primary_key),
                    set_={"document": statement.excluded.document},
                )
            )

    def get_unit(
        self, tenant_id: TenantId, endpoint_id: EndpointId, unit_id: UnitId
    ) -> EndpointUnitDescriptor:
        """Raises `UnknownUnitError`."""
        query = select(catalog_dataset.c.document).where(
            catalog_dataset.c.tenant_id == tenant_id,
            catalog_dataset.c.endpoint_id == endpoint_id,
            catalog_dataset.c.unit_id == unit_id,
        )
        with self._database.read("read the unit") as connection:
            document = connection.scalar(query)
        if document is None:
            raise UnknownUnitError(
                f"endpoint {endpoint_id} has no unit {unit_id!r} in its catalog; "
                "run discovery again if it is new",
                endpoint_id=endpoint_id,
                unit_id=unit_id,
            )
        return stored_value(EndpointUnitDescriptor, document)

    def list_units(
        self,
        tenant_id: TenantId,
        endpoint_id: EndpointId,
        *,
        enabled_only: bool = False,
        offset: int = 0,
        limit: int = 100,
    ) -> list[EndpointUnitDescriptor]:
        """A page of units, ordered by id; with `enabled_only` those that nobody has disabled."""
        check_page(offset, limit)
        query = (
            select(catalog_dataset.c.document)
            .where(
                catalog_dataset.c.tenant_id == tenant_id,
                catalog_dataset.c.endpoint_id == endpoint_id,
            )
            .order_by(catalog_dataset.c.unit_id)
            .offset(offset)
            .limit(limit)
        )
        if enabled_only:
            query = query.where(~is_disabled(catalog_dataset))
        with self._database.read("list the units") as connection:
            documents = connection.scalars(query).all()
        return [stored_value(EndpointUnitDescriptor, document) for document in documents]


def _is_endpoint(tenant_id: TenantId, endpoint_id: EndpointId) -> tuple[Any, Any]:
    return (endpoints.c.tenant_id == tenant_id, endpoints.c.endpoint_id == endpoint_id)


def _hold_endpoint(connection: Connection, tenant_id: TenantId, endpoint_id: EndpointId) -> None:
    query = select(endpoints.c.version).where(*_is_endpoint(tenant_id, endpoint_id))
    if connection.execute(query.with_for_update(key_share=True)).one_or_none() is None:
        raise _no_endpoint(endpoint_id)


def endpoint_of(row: Row[Any]) -> EndpointRecord:
    """The record of a row of `endpoints`."""
    return _endpoint(
        row.document,
        tenant_id=row.tenant_id,
        endpoint_id=row.endpoint_id,
        name=row.name,
        version=row.version,
    )


@remembered
def _endpoint(document: str, **columns: str | int) -> EndpointRecord:
    return stored_value(EndpointRecord, document, **columns)


def _unit_row(
    tenant_id: TenantId, endpoint_id: EndpointId, unit: EndpointUnitDescriptor
) -> dict[str, str]:
    if unit.endpoint_id != endpoint_id:
        raise ValidationError(
            f"unit {unit.unit_id!r} belongs to endpoint {unit.endpoint_id}, not {endpoint_id}",
            field="endpointId",
        )
    return {
        "tenant_id": tenant_id,
        "endpoint_id": endpoint_id,
        "unit_id": unit.unit_id,
        "document": unit.to_json(),
    }


def _no_endpoint(endpoint_id: EndpointId) -> NotFoundError:
    return NotFoundError(f"no endpoint {endpoint_id}", endpoint_id=endpoint_id)


def _changed(record: EndpointRecord) -> StateConflictError:
    return StateConflictError(
        f"endpoint {record.endpoint_id} was changed by somebody else since version "
        f"{record.version} was read; read it again",
        endpoint_id=record.endpoint_id,
        version=record.version,
    )

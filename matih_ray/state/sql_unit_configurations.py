"""Configurations of units in SQL; see `MetadataStore` for what each method promises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, Table, exists, insert, select, update

from matih_ray.errors import MatihError, NotFoundError, StateConflictError
from matih_ray.model.ids import EndpointId, TenantId, UnitId
from matih_ray.model.unit_configuration import UnitConfiguration
from matih_ray.state.names import check_page
from matih_ray.state.sql_part import SqlPart, stored_value
from matih_ray.state.tables import endpoints, unit_configurations

_KEY = ("tenant_id", "endpoint_id", "unit_id")
_COLUMNS = {*_KEY, "enabled", "version"}


class SqlUnitConfigurations(SqlPart):
    """What people chose for units."""

    def put_unit_configuration(self, configuration: UnitConfiguration) -> UnitConfiguration:
        """Insert (version 0) or replace by compare-and-set; returns it with its new version."""
        after = configuration.version + 1
        key = {name: getattr(configuration, name) for name in _KEY}
        values = {
            "enabled": configuration.enabled,
            "document": configuration.model_dump_json(by_alias=True, exclude=_COLUMNS),
            "version": after,
        }
        with self._database.write(
            "store the unit's configuration",
            violated=lambda: self._configuration_refused(configuration),
        ) as connection:
            if configuration.version == 0:
                connection.execute(insert(unit_configurations).values(**key, **values))
            else:
                statement = update(unit_configurations).values(**values)
                changed = connection.execute(
                    statement.where(
                        *(unit_configurations.c[name] == given for name, given in key.items()),
                        unit_configurations.c.version == configuration.version,
                    )
                )
                if changed.rowcount == 0:
                    raise _changed(configuration)
        return configuration.model_copy(update={"version": after})

    def get_unit_configurations(
        self, tenant_id: TenantId, endpoint_id: EndpointId, unit_ids: Sequence[UnitId]
    ) -> dict[UnitId, UnitConfiguration]:
        """The configurations of those units that have one."""
        if not unit_ids:
            return {}
        check_page(0, len(unit_ids))
        query = select(unit_configurations).where(
            unit_configurations.c.tenant_id == tenant_id,
            unit_configurations.c.endpoint_id == endpoint_id,
            unit_configurations.c.unit_id.in_(unit_ids),
        )
        with self._database.read("read the units' configurations") as connection:
            rows = connection.execute(query).all()
        return {row.unit_id: _configuration(row) for row in rows}

    def _configuration_refused(self, configuration: UnitConfiguration) -> MatihError:
        known = select(endpoints.c.endpoint_id).where(
            endpoints.c.tenant_id == configuration.tenant_id,
            endpoints.c.endpoint_id == configuration.endpoint_id,
        )
        with self._database.read("look for the endpoint") as connection:
            if connection.scalar(known) is None:
                endpoint_id = configuration.endpoint_id
                return NotFoundError(f"no endpoint {endpoint_id}", endpoint_id=endpoint_id)
        return _changed(configuration)


def is_disabled(units: Table) -> ColumnElement[bool]:
    """Whether somebody has disabled the unit that a row of `units` is of."""
    same = (unit_configurations.c[name] == units.c[name] for name in _KEY)
    return exists().where(*same, unit_configurations.c.enabled.is_(False))


def _changed(configuration: UnitConfiguration) -> StateConflictError:
    return StateConflictError(
        f"the configuration of {configuration.unit_id!r} was changed by somebody else; read it "
        "again",
        unit_id=configuration.unit_id,
        version=configuration.version,
    )


def _configuration(row: Row[Any]) -> UnitConfiguration:
    columns = {name: getattr(row, name) for name in _COLUMNS}
    return stored_value(UnitConfiguration, row.document, **columns)

"""A relation together with its dialect: one table as planning and reading see it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from matih_ray.errors import SourceChangedError
from matih_ray.model.ids import EndpointId, UnitId
from matih_ray.model.unit import ColumnDescriptor, EndpointUnitDescriptor
from matih_ray.sources.sql.dialect import BoundKind, Dialect, SqlColumn, SqlRelation, TypeMapping
from matih_ray.sources.sql.names import unit_id_of

# What grows as rows are added: numbers and times. Texts and binaries may be cursors if one insists.
_CURSOR_KINDS = frozenset(
    {
        BoundKind.INTEGER,
        BoundKind.DECIMAL,
        BoundKind.DATE,
        BoundKind.TIMESTAMP,
        BoundKind.TIMESTAMP_TZ,
    }
)


@dataclass(frozen=True)
class Table:
    """One table or view, and how its vendor's SQL is written."""

    dialect: Dialect
    relation: SqlRelation

    @property
    def unit_id(self) -> UnitId:
        """The id of its unit."""
        return unit_id_of(self.relation.schema, self.relation.name)

    @property
    def identifier(self) -> str:
        """Its name in SQL."""
        return self.dialect.identifier(self.relation)

    def column(self, name: str) -> SqlColumn | None:
        """The column of that name, if there is one."""
        return next((column for column in self.relation.columns if column.name == name), None)

    def existing_column(self, name: str) -> SqlColumn:
        """The column of that name, which was there when the plan was made.

        Raises:
            SourceChangedError: It is not there.
        """
        column = self.column(name)
        if column is None:
            raise SourceChangedError(
                f"column {name!r} of {self.unit_id} is gone since planning; start a new run",
                column=name,
            )
        return column

    def mapping(self, column: SqlColumn) -> TypeMapping:
        """How a column arrives when the policy does not say otherwise."""
        return self.dialect.mapping(column.native_type)

    def unit(self, endpoint_id: EndpointId) -> EndpointUnitDescriptor:
        """The relation as a unit of an endpoint."""
        relation = self.relation
        return EndpointUnitDescriptor(
            endpoint_id=endpoint_id,
            unit_id=self.unit_id,
            namespace=relation.schema,
            name=relation.name,
            kind=relation.kind,
            columns=tuple(self._descriptor(column) for column in relation.columns),
            primary_key=relation.primary_key,
            cursor_candidates=tuple(
                column.name
                for column in relation.columns
                if self.mapping(column).bound in _CURSOR_KINDS
            ),
            estimated_rows=relation.rows,
            estimated_bytes=relation.bytes,
        )

    def _descriptor(self, column: SqlColumn) -> ColumnDescriptor:
        mapping = self.mapping(column)
        return ColumnDescriptor(
            name=column.name,
            native_type=column.native_type,
            arrow_type=str(mapping.arrow),
            nullable=column.nullable,
            fidelity=mapping.fidelity,
            encoding=mapping.encoding,
        )

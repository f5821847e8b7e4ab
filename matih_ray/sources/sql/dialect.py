"""What a vendor adds: how its SQL is written, and how its driver is asked.

Bounds of slices travel as text in one form per `BoundKind`, whatever the vendor:

| kind         | form                                                            |
|--------------|-----------------------------------------------------------------|
| integer      | `-12`                                                           |
| decimal      | `-12.50`                                                        |
| date         | `2024-01-31`                                                    |
| timestamp    | `2024-01-31 23:59:59.123456`, no zone; up to nine decimals      |
| timestamp_tz | the same, in UTC                                                |
| text         | itself; only where the vendor compares exactly (see `Dialect`)  |
| binary       | hexadecimal digits in capitals                                  |
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Protocol

import pyarrow as pa

from matih_ray.model.unit import Fidelity


class BoundKind(str, Enum):
    """The form of a bound, and how it compares."""

    INTEGER = "integer"
    DECIMAL = "decimal"
    DATE = "date"
    TIMESTAMP = "timestamp"
    TIMESTAMP_TZ = "timestamp_tz"
    TEXT = "text"
    BINARY = "binary"


@dataclass(frozen=True)
class TypeMapping:
    """How a column arrives.

    `expression` is SQL with `{}` for the column's quoted name. `bound` is None where values cannot
    be bounds of slices: floats, texts under a collation, everything that arrives encoded.
    `bound_expression` is SQL of a bound as text, where bounds need more digits than `arrow` has.
    """

    arrow: pa.DataType
    fidelity: Fidelity
    encoding: str | None = None
    expression: str = "{}"
    bound: BoundKind | None = None
    bound_expression: str | None = None

    def as_bound(self) -> TypeMapping:
        """How a value arrives that becomes the bound of a slice."""
        if self.bound_expression is None:
            return self
        return replace(self, arrow=pa.string(), expression=self.bound_expression)


@dataclass(frozen=True)
class SqlColumn:
    """One column; `native_type` is the catalog's spelling with precision and scale."""

    name: str
    native_type: str
    nullable: bool


@dataclass(frozen=True)
class SqlRelation:
    """One table or view. `rows` and `bytes` are the catalog's estimates.

    `primary_key` is the declared one. Warehouses do not enforce it: it may repeat and be NULL.
    """

    schema: str
    name: str
    kind: str
    columns: tuple[SqlColumn, ...]
    primary_key: tuple[str, ...] = ()
    rows: int | None = None
    bytes: int | None = None


class Dialect(Protocol):
    """How one vendor's SQL is written. Pure."""

    def quoted(self, name: str) -> str:
        """A name as an identifier, exactly as the catalog spells it."""

    def identifier(self, relation: SqlRelation) -> str:
        """The relation's full name in SQL."""

    def literal(self, kind: BoundKind, text: str) -> str:
        """A checked bound as SQL of the type it is compared with."""

    def mapping(self, native_type: str) -> TypeMapping:
        """How a column of that type arrives; unknown types are encoded as text, never refused."""

    def overridden(self, native_type: str, encoding: str, column: str) -> TypeMapping:
        """The mapping under an encoding of `policy.encodings`.

        Raises:
            ValidationError: The type has no such encoding; lists those it has.
        """


class SqlSession(Protocol):
    """One connection of a vendor's driver, set up so that results are exact (UTC, no roundings).

    All methods raise `SourceError`s; a column or table that is gone is a `SourceChangedError`.
    """

    def names(self) -> Sequence[tuple[str, str]]:
        """(schema, name) of all tables and views that the account may read."""

    def relations(self, names: Sequence[tuple[str, str]]) -> Sequence[SqlRelation]:
        """Those of them that exist, with columns, keys and estimates; reads catalogs only."""

    def batches(self, statement: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """Rows of a SELECT as batches of this schema, of about `TARGET_BATCH_BYTES`.

        Columns are matched by position; results have other names or none.
        Leaving the iterator early cancels the statement; the session may be unusable then.
        """

    def close(self) -> None:
        """Close the connection, whatever state it is in."""

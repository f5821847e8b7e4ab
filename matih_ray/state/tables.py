"""The tables of the metadata store, the same on SQLite and PostgreSQL.

Each record is one row: what is queried, unique or changed on its own is a column, everything else
is the record's JSON text in `document`. Text rather than a database JSON type, because nothing
queries inside a document and text returns exactly what was stored (a JSON type drops repeated
keys, reorders others and refuses `\\u0000`). Columns are the truth for what they hold; a document
never repeats a column that changes.

SQLAlchemy Core rather than the ORM: every statement here is one compare-and-set or one page, so an
identity map and a unit of work would only hide when a statement is sent.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    text,
)
from sqlalchemy.types import TypeDecorator, TypeEngine

from matih_ray.errors import ValidationError
from matih_ray.state.names import MAX_KEY_BYTES, MAX_NAME_BYTES, checked_name


class Name(TypeDecorator[str]):
    """An identifier: ordered by bytes on every database, checked on its way into any statement.

    Raises:
        ValidationError: See `checked_name`.
    """

    impl = Text
    cache_ok = True

    def __init__(self, max_bytes: int = MAX_NAME_BYTES) -> None:
        super().__init__()
        self.max_bytes = max_bytes

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        # the locale's order would differ between servers, and from SQLite's
        return Text(collation="C") if dialect.name == "postgresql" else Text()

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002 (SQLAlchemy's signature)
        return None if value is None else checked_name(value, self.max_bytes)


class UtcTime(TypeDecorator[datetime]):
    """A moment in UTC: `timestamptz` on PostgreSQL, ordered text on SQLite."""

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return DateTime(timezone=dialect.name == "postgresql")

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValidationError("a time without a zone cannot be stored; use UTC")
        moment = value.astimezone(timezone.utc)
        return moment if dialect.name == "postgresql" else moment.replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if dialect.name == "postgresql":
            return value.astimezone(timezone.utc)
        return value.replace(tzinfo=timezone.utc)


metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    }
)


def _name(name: str, *, primary_key: bool = False, nullable: bool = False) -> Column[str]:
    return Column(name, Name, primary_key=primary_key, nullable=nullable)


endpoints = Table(
    "endpoints",
    metadata,
    _name("tenant_id", primary_key=True),
    _name("endpoint_id", primary_key=True),
    _name("name"),
    Column("document", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    _name("type", nullable=True),  # always set; software of revision 0001 knows nothing of it
    Index("uq_endpoints_tenant_id_name", "tenant_id", "name", unique=True),
)

# Apart from `endpoints`: every test changes it, and must not outdate a version that a caller holds.
connector_states = Table(
    "connector_states",
    metadata,
    _name("tenant_id", primary_key=True),
    _name("endpoint_id", primary_key=True),
    Column("due_at", UtcTime),
    Column("document", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Index("ix_connector_states_due_at", "due_at"),
    ForeignKeyConstraint(
        ["tenant_id", "endpoint_id"],
        ["endpoints.tenant_id", "endpoints.endpoint_id"],
        ondelete="CASCADE",
    ),
)

notifications = Table(
    "notifications",
    metadata,
    _name("tenant_id", primary_key=True),
    _name("notification_id", primary_key=True),
    Column("created_at", UtcTime, nullable=False),
    Column("document", Text, nullable=False),
    # when to send it to the tenant's webhook next, NULL when that is done or given up
    Column("deliver_at", UtcTime),
    Column("attempts", Integer),  # NULL is none
    Index("ix_notifications_tenant_id_created_at", "tenant_id", "created_at"),
    Index("ix_notifications_deliver_at", "deliver_at"),
)

schedules = Table(
    "schedules",
    metadata,
    _name("tenant_id", primary_key=True),
    _name("schedule_id", primary_key=True),
    _name("endpoint_id"),
    _name("unit_id"),
    _name("sink_id"),
    Column("due_at", UtcTime),
    Column("document", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Index("uq_schedules_stream", "tenant_id", "endpoint_id", "unit_id", "sink_id", unique=True),
    Index("ix_schedules_due_at", "due_at"),
    ForeignKeyConstraint(
        ["tenant_id", "endpoint_id"],
        ["endpoints.tenant_id", "endpoints.endpoint_id"],
        ondelete="CASCADE",
    ),
)

unit_configurations = Table(
    "unit_configurations",
    metadata,
    _name("tenant_id", primary_key=True),
    _name("endpoint_id", primary_key=True),
    _name("unit_id", primary_key=True),
    Column("enabled", Boolean, nullable=False),
    Column("document", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    ForeignKeyConstraint(
        ["tenant_id", "endpoint_id"],
        ["endpoints.tenant_id", "endpoints.endpoint_id"],
        ondelete="CASCADE",
    ),
)

stream_jobs = Table(
    "stream_jobs",
    metadata,
    _name("tenant_id", primary_key=True),
    _name("job_id", primary_key=True),
    Column("created_at", UtcTime, nullable=False),
    Column("due_at", UtcTime),
    Column("document", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Index("ix_stream_jobs_due_at", "due_at"),
)

catalog_dataset = Table(
    "catalog_dataset",
    metadata,
    _name("tenant_id", primary_key=True),
    _name("endpoint_id", primary_key=True),
    _name("unit_id", primary_key=True),
    Column("document", Text, nullable=False),
    ForeignKeyConstraint(
        ["tenant_id", "endpoint_id"],
        ["endpoints.tenant_id", "endpoints.endpoint_id"],
        ondelete="CASCADE",
    ),
)

# The states that hold a stream: no second run of the stream may have one of them. Literal text, so
# that SQLite sees that a query with this condition may use the partial indexes.
IS_ACTIVE = text("state IN ('QUEUED', 'RUNNING')")

# `alive_at` is the time of the last heartbeat, or of the last time the run was queued if that is
# later: what the search for orphans compares. `plan_digest` says which plan `run_plans` holds.
runs = Table(
    "runs",
    metadata,
    _name("tenant_id", primary_key=True),
    _name("run_id", primary_key=True),
    _name("vendor"),
    _name("endpoint_id"),
    _name("unit_id"),
    _name("sink_id"),
    _name("state"),
    _name("requested", nullable=True),
    Column("epoch", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("heartbeat_at", UtcTime),
    Column("alive_at", UtcTime, nullable=False),
    _name("plan_digest", nullable=True),
    Column("document", Text, nullable=False),
    Index(
        "uq_runs_active_stream",
        "tenant_id",
        "endpoint_id",
        "unit_id",
        "sink_id",
        unique=True,
        sqlite_where=IS_ACTIVE,
        postgresql_where=IS_ACTIVE,
    ),
    Index("ix_runs_tenant_id_created_at", "tenant_id", "created_at", "run_id"),
    Index(
        "ix_runs_endpoint_id_created_at",
        "tenant_id",
        "endpoint_id",
        "created_at",
        "run_id",
    ),
    Index("ix_runs_alive_at", "alive_at", sqlite_where=IS_ACTIVE, postgresql_where=IS_ACTIVE),
)

# A plan of 20,000 slices is several megabytes: apart from `runs`, so that it is written once and
# neither a heartbeat, a progress update nor a listing touches it.
run_plans = Table(
    "run_plans",
    metadata,
    _name("tenant_id", primary_key=True),
    _name("run_id", primary_key=True),
    Column("document", Text, nullable=False),
    ForeignKeyConstraint(
        ["tenant_id", "run_id"], ["runs.tenant_id", "runs.run_id"], ondelete="CASCADE"
    ),
)

run_slices = Table(
    "run_slices",
    metadata,
    _name("tenant_id", primary_key=True),
    _name("run_id", primary_key=True),
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("document", Text, nullable=False),
    ForeignKeyConstraint(
        ["tenant_id", "run_id"], ["runs.tenant_id", "runs.run_id"], ondelete="CASCADE"
    ),
)

unit_states = Table(
    "unit_states",
    metadata,
    _name("tenant_id", primary_key=True),
    _name("endpoint_id", primary_key=True),
    _name("unit_id", primary_key=True),
    _name("sink_id", primary_key=True),
    _name("vendor"),
    _name("state"),
    _name("last_run_id"),
    _name("last_completed_run_id", nullable=True),
    Column("updated_at", UtcTime, nullable=False),
)

# Nodes and edges of an endpoint go with it; those of built-in sinks have none.
_OF_ENDPOINT = (["tenant_id", "endpoint_id"], ["endpoints.tenant_id", "endpoints.endpoint_id"])

# A hidden row is a deleted node, or one that only owns edges.
kb_nodes = Table(
    "kb_nodes",
    metadata,
    _name("tenant_id", primary_key=True),
    _name("node_id", primary_key=True),
    _name("kind"),
    _name("endpoint_id", nullable=True),
    Column("version", BigInteger, nullable=False),
    Column("hidden", Boolean, nullable=False),
    Column("words", Text, nullable=False),
    Column("document", Text, nullable=False),
    Column("updated_at", UtcTime, nullable=False),
    ForeignKeyConstraint(*_OF_ENDPOINT, ondelete="CASCADE"),
    Index("ix_kb_nodes_endpoint_id", "tenant_id", "endpoint_id"),
)

kb_edges = Table(
    "kb_edges",
    metadata,
    _name("tenant_id", primary_key=True),
    _name("owner_id", primary_key=True),
    _name("from_id", primary_key=True),
    _name("kind", primary_key=True),
    _name("to_id", primary_key=True),
    _name("endpoint_id", nullable=True),
    ForeignKeyConstraint(*_OF_ENDPOINT, ondelete="CASCADE"),
    Index("ix_kb_edges_from_id", "tenant_id", "from_id"),
    Index("ix_kb_edges_to_id", "tenant_id", "to_id"),
    Index("ix_kb_edges_endpoint_id", "tenant_id", "endpoint_id"),
)

kb_streams = Table(
    "kb_streams",
    metadata,
    _name("tenant_id", primary_key=True),
    Column("stream", Name(MAX_KEY_BYTES), primary_key=True),
    _name("endpoint_id"),
    Column("document", Text, nullable=False),
    ForeignKeyConstraint(*_OF_ENDPOINT, ondelete="CASCADE"),
)

kb_stages = Table(
    "kb_stages",
    metadata,
    _name("tenant_id", primary_key=True),
    _name("stage", primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("stream", Name(MAX_KEY_BYTES), nullable=False),
    _name("generation"),
    Column("document", Text, nullable=False),
    Index("ix_kb_stages_stream", "tenant_id", "stream"),
)

# A deleted key keeps its row with `value` NULL, so that its versions are never given out again.
kv = Table(
    "kv",
    metadata,
    _name("tenant_id", primary_key=True),
    Column("key", Name(MAX_KEY_BYTES), primary_key=True),
    Column("value", Text),
    Column("version", BigInteger, nullable=False),
)

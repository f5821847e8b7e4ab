"""The first tables: endpoints and catalog, runs with their plans and slices, unit states, KV."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

ACTIVE = sa.text("state IN ('QUEUED', 'RUNNING')")
NAME = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
TIME = sa.DateTime(timezone=True)


def name(column: str, *, nullable: bool = False) -> "sa.Column[Any]":
    return sa.Column(column, NAME, nullable=nullable)


def document() -> "sa.Column[Any]":
    return sa.Column("document", sa.Text(), nullable=False)


def upgrade() -> None:
    _endpoints_and_catalog()
    _runs()
    _plans_and_slices()
    _unit_states_and_kv()


def _endpoints_and_catalog() -> None:
    op.create_table(
        "endpoints",
        name("tenant_id"),
        name("endpoint_id"),
        name("name"),
        document(),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "endpoint_id", name="pk_endpoints"),
    )
    op.create_index("uq_endpoints_tenant_id_name", "endpoints", ["tenant_id", "name"], unique=True)
    op.create_table(
        "catalog_dataset",
        name("tenant_id"),
        name("endpoint_id"),
        name("unit_id"),
        document(),
        sa.ForeignKeyConstraint(
            ["tenant_id", "endpoint_id"],
            ["endpoints.tenant_id", "endpoints.endpoint_id"],
            name="fk_catalog_dataset_endpoints",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "endpoint_id", "unit_id", name="pk_catalog_dataset"),
    )


def _runs() -> None:
    op.create_table(
        "runs",
        name("tenant_id"),
        name("run_id"),
        name("vendor"),
        name("endpoint_id"),
        name("unit_id"),
        name("sink_id"),
        name("state"),
        name("requested", nullable=True),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("heartbeat_at", TIME, nullable=True),
        sa.Column("alive_at", TIME, nullable=False),
        name("plan_digest", nullable=True),
        document(),
        sa.PrimaryKeyConstraint("tenant_id", "run_id", name="pk_runs"),
    )
    op.create_index(
        "uq_runs_active_stream",
        "runs",
        ["tenant_id", "endpoint_id", "unit_id", "sink_id"],
        unique=True,
        sqlite_where=ACTIVE,
        postgresql_where=ACTIVE,
    )
    op.create_index(
        "ix_runs_tenant_id_created_at", "runs", ["tenant_id", "created_at", "run_id"]
    )
    op.create_index(
        "ix_runs_endpoint_id_created_at",
        "runs",
        ["tenant_id", "endpoint_id", "created_at", "run_id"],
    )
    op.create_index(
        "ix_runs_alive_at", "runs", ["alive_at"], sqlite_where=ACTIVE, postgresql_where=ACTIVE
    )


def _plans_and_slices() -> None:
    op.create_table(
        "run_plans",
        name("tenant_id"),
        name("run_id"),
        document(),
        sa.ForeignKeyConstraint(
            ["tenant_id", "run_id"],
            ["runs.tenant_id", "runs.run_id"],
            name="fk_run_plans_runs",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "run_id", name="pk_run_plans"),
    )
    op.create_table(
        "run_slices",
        name("tenant_id"),
        name("run_id"),
        sa.Column("sequence", sa.Integer(), autoincrement=False, nullable=False),
        document(),
        sa.ForeignKeyConstraint(
            ["tenant_id", "run_id"],
            ["runs.tenant_id", "runs.run_id"],
            name="fk_run_slices_runs",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "run_id", "sequence", name="pk_run_slices"),
    )


def _unit_states_and_kv() -> None:
    op.create_table(
        "unit_states",
        name("tenant_id"),
        name("endpoint_id"),
        name("unit_id"),
        name("sink_id"),
        name("vendor"),
        name("state"),
        name("last_run_id"),
        name("last_completed_run_id", nullable=True),
        sa.Column("updated_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint(
            "tenant_id", "endpoint_id", "unit_id", "sink_id", name="pk_unit_states"
        ),
    )
    op.create_table(
        "kv",
        name("tenant_id"),
        name("key"),
        sa.Column("value", sa.Text(), nullable=True),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "key", name="pk_kv"),
    )


def downgrade() -> None:
    for table in (
        "kv", "unit_states", "run_slices", "run_plans", "runs", "catalog_dataset", "endpoints"
    ):  # fmt: skip
        op.drop_table(table)

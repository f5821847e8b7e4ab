"""Schedules of streams."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

NAME = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "schedules",
        sa.Column("tenant_id", NAME, nullable=False),
        sa.Column("schedule_id", NAME, nullable=False),
        sa.Column("endpoint_id", NAME, nullable=False),
        sa.Column("unit_id", NAME, nullable=False),
        sa.Column("sink_id", NAME, nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "endpoint_id"],
            ["endpoints.tenant_id", "endpoints.endpoint_id"],
            name="fk_schedules_endpoints",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "schedule_id", name="pk_schedules"),
    )
    op.create_index(
        "uq_schedules_stream",
        "schedules",
        ["tenant_id", "endpoint_id", "unit_id", "sink_id"],
        unique=True,
    )
    op.create_index("ix_schedules_due_at", "schedules", ["due_at"])


def downgrade() -> None:
    op.drop_table("schedules")

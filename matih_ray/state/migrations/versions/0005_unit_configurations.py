"""Configurations of units."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

NAME = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "unit_configurations",
        sa.Column("tenant_id", NAME, nullable=False),
        sa.Column("endpoint_id", NAME, nullable=False),
        sa.Column("unit_id", NAME, nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "endpoint_id"],
            ["endpoints.tenant_id", "endpoints.endpoint_id"],
            name="fk_unit_configurations_endpoints",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint(
            "tenant_id", "endpoint_id", "unit_id", name="pk_unit_configurations"
        ),
    )


def downgrade() -> None:
    op.drop_table("unit_configurations")

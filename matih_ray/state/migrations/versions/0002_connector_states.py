"""What is known about connectors: their type, last test and discovery; notifications."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

NAME = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("endpoints", sa.Column("type", NAME, nullable=True))
    sqlite = op.get_bind().dialect.name == "sqlite"
    stored = "json_extract(document, '$.type')" if sqlite else "document::json ->> 'type'"
    op.execute(f"UPDATE endpoints SET type = {stored}")  # noqa: S608 one of two constants
    op.create_table(
        "connector_states",
        sa.Column("tenant_id", NAME, nullable=False),
        sa.Column("endpoint_id", NAME, nullable=False),
        sa.Column("due_at", TIME, nullable=True),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "endpoint_id"],
            ["endpoints.tenant_id", "endpoints.endpoint_id"],
            name="fk_connector_states_endpoints",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "endpoint_id", name="pk_connector_states"),
    )
    op.create_index("ix_connector_states_due_at", "connector_states", ["due_at"])
    op.create_table(
        "notifications",
        sa.Column("tenant_id", NAME, nullable=False),
        sa.Column("notification_id", NAME, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "notification_id", name="pk_notifications"),
    )
    op.create_index(
        "ix_notifications_tenant_id_created_at", "notifications", ["tenant_id", "created_at"]
    )


def downgrade() -> None:
    op.drop_table("notifications")
    op.drop_table("connector_states")
    op.drop_column("endpoints", "type")

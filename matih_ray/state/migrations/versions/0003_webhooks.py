"""Deliveries of notifications to webhooks."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column(
        "notifications", sa.Column("deliver_at", sa.DateTime(timezone=True), nullable=True)
    )
    op.add_column("notifications", sa.Column("attempts", sa.Integer(), nullable=True))
    op.create_index("ix_notifications_deliver_at", "notifications", ["deliver_at"])


def downgrade() -> None:
    op.drop_index("ix_notifications_deliver_at", "notifications")
    op.drop_column("notifications", "attempts")
    op.drop_column("notifications", "deliver_at")

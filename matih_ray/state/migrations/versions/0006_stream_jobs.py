"""Streaming jobs."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

NAME = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "stream_jobs",
        sa.Column("tenant_id", NAME, nullable=False),
        sa.Column("job_id", NAME, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "job_id", name="pk_stream_jobs"),
    )
    op.create_index("ix_stream_jobs_due_at", "stream_jobs", ["due_at"])


def downgrade() -> None:
    op.drop_table("stream_jobs")

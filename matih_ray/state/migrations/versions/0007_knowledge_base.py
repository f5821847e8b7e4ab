"""The knowledge base: nodes, edges, the streams that feed them, and what is not committed."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

NAME = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def _of_endpoint(name: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["tenant_id", "endpoint_id"],
        ["endpoints.tenant_id", "endpoints.endpoint_id"],
        name=name,
        ondelete="CASCADE",
    )


def upgrade() -> None:
    op.create_table(
        "kb_nodes",
        sa.Column("tenant_id", NAME, nullable=False),
        sa.Column("node_id", NAME, nullable=False),
        sa.Column("kind", NAME, nullable=False),
        sa.Column("endpoint_id", NAME, nullable=True),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("hidden", sa.Boolean(), nullable=False),
        sa.Column("words", sa.Text(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "node_id", name="pk_kb_nodes"),
        _of_endpoint("fk_kb_nodes_endpoints"),
    )
    op.create_index("ix_kb_nodes_endpoint_id", "kb_nodes", ["tenant_id", "endpoint_id"])
    op.create_table(
        "kb_edges",
        sa.Column("tenant_id", NAME, nullable=False),
        sa.Column("owner_id", NAME, nullable=False),
        sa.Column("from_id", NAME, nullable=False),
        sa.Column("kind", NAME, nullable=False),
        sa.Column("to_id", NAME, nullable=False),
        sa.Column("endpoint_id", NAME, nullable=True),
        sa.PrimaryKeyConstraint(
            "tenant_id", "owner_id", "from_id", "kind", "to_id", name="pk_kb_edges"
        ),
        _of_endpoint("fk_kb_edges_endpoints"),
    )
    for end in ("from_id", "to_id", "endpoint_id"):
        op.create_index(f"ix_kb_edges_{end}", "kb_edges", ["tenant_id", end])
    op.create_table(
        "kb_streams",
        sa.Column("tenant_id", NAME, nullable=False),
        sa.Column("stream", NAME, nullable=False),
        sa.Column("endpoint_id", NAME, nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "stream", name="pk_kb_streams"),
        _of_endpoint("fk_kb_streams_endpoints"),
    )
    op.create_table(
        "kb_stages",
        sa.Column("tenant_id", NAME, nullable=False),
        sa.Column("stage", NAME, nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("stream", NAME, nullable=False),
        sa.Column("generation", NAME, nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "stage", "number", name="pk_kb_stages"),
    )
    op.create_index("ix_kb_stages_stream", "kb_stages", ["tenant_id", "stream"])


def downgrade() -> None:
    for table in ("kb_stages", "kb_streams", "kb_edges", "kb_nodes"):
        op.drop_table(table)

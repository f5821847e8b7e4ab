"""Alembic's environment: runs inside the transaction that `matih_ray.state.migrate` opened."""

from alembic import context

from matih_ray.state.migrations import VERSION_TABLE
from matih_ray.state.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
)
context.run_migrations()

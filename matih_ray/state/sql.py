"""The metadata store on SQLite or PostgreSQL.

One class per noun, put together here; each statement is next to the method that sends it.
"""

from __future__ import annotations

from pydantic import SecretStr
from sqlalchemy import URL

from matih_ray.state.engine import Database, open_database
from matih_ray.state.migrate import upgrade
from matih_ray.state.sql_connectors import SqlConnectorStates, SqlNotifications
from matih_ray.state.sql_endpoints import SqlCatalog, SqlEndpoints
from matih_ray.state.sql_knowledge import SqlKnowledge
from matih_ray.state.sql_runs import SqlRuns
from matih_ray.state.sql_schedules import SqlSchedules
from matih_ray.state.sql_stream_jobs import SqlStreamJobs
from matih_ray.state.sql_unit_configurations import SqlUnitConfigurations
from matih_ray.state.sql_units import SqlSlices, SqlUnitStates


class SqlMetadataStore(
    SqlEndpoints,
    SqlConnectorStates,
    SqlNotifications,
    SqlCatalog,
    SqlRuns,
    SqlSchedules,
    SqlStreamJobs,
    SqlSlices,
    SqlUnitConfigurations,
    SqlUnitStates,
    SqlKnowledge,
):
    """Endpoints, catalog, run ledger and unit states in one database; safe to share by threads."""

    @property
    def database(self) -> Database:
        """The database, for a key-value store in the same place."""
        return self._database

    def close(self) -> None:
        """Close all connections; harmless to repeat."""
        self._database.close()


def open_metadata(url: SecretStr | URL) -> SqlMetadataStore:
    """Open the metadata store at a SQLAlchemy URL and bring its tables up to date.

    Raises:
        ConfigurationError: Not a URL of a supported database.
        StateVersionError: The tables were made by newer software.
        StateError: The database cannot be reached.
    """
    database = open_database(url)
    try:
        upgrade(database)
    except BaseException:
        database.close()
        raise
    return SqlMetadataStore(database)

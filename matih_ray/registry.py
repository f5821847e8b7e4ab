"""Registry: the one table from plugin names to classes.

Declarative on purpose: Ray workers are other processes, so a decorator that ran on the driver would
be absent in the task. Built-ins are dotted names resolved on first use (a missing optional driver
then costs only those who ask for it); plugins add entry points in the groups `matih_ray.sources`,
`matih_ray.sinks`, `matih_ray.staging` and `matih_ray.mappers`. A name defined twice is an error at
start, never last-one-wins.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any, Literal

from matih_ray.errors import ConfigurationError, MissingExtraError, UnknownPluginError

Kind = Literal["sources", "sinks", "staging", "mappers"]

BUILT_INS: dict[Kind, dict[str, str]] = {
    "mappers": {
        "http.confluence": "matih_ray.mappers.confluence:ConfluenceMappers",
        "http.jira": "matih_ray.mappers.jira:JiraMappers",
        "http.onedrive": "matih_ray.mappers.onedrive:OneDriveMappers",
    },
    "sinks": {
        "cdm.jdbc": "matih_ray.sinks.cdm_postgres:CdmPostgresSink",
        "iceberg": "matih_ray.sinks.iceberg:IcebergSink",
        "kb": "matih_ray.sinks.knowledge_base:KnowledgeBaseSink",
        "raw": "matih_ray.sinks.raw_files:RawFilesSink",
    },
    "sources": {
        "MYSQL": "matih_ray.sources.mysql:MySqlSource",
        "ORACLE": "matih_ray.sources.oracle:OracleSource",
        "POSTGRESQL": "matih_ray.sources.postgres:PostgresSource",
        "REDSHIFT": "matih_ray.sources.redshift:RedshiftSource",
        "BIGQUERY": "matih_ray.sources.bigquery:BigQuerySource",
        "REST": "matih_ray.sources.http:RestSource",
        "GRAPHQL": "matih_ray.sources.http:GraphqlSource",
        "JIRA": "matih_ray.sources.jira:JiraSource",
        "DYNAMODB": "matih_ray.sources.dynamodb:DynamoSource",
        "CONFLUENCE": "matih_ray.sources.confluence:ConfluenceSource",
        "ONEDRIVE": "matih_ray.sources.onedrive:OneDriveSource",
        "KAFKA": "matih_ray.sources.kafka:KafkaSource",
        "MONGODB": "matih_ray.sources.mongodb:MongoSource",
        "S3": "matih_ray.sources.files.s3:S3Source",
        "SNOWFLAKE": "matih_ray.sources.snowflake:SnowflakeSource",
        "DATABRICKS_SQL": "matih_ray.sources.databricks:DatabricksSource",
        "SQL_SERVER": "matih_ray.sources.sqlserver:SqlServerSource",
        "AZURE_BLOB": "matih_ray.sources.files.azure:AzureBlobSource",
        "GCS": "matih_ray.sources.files.gcs:GcsSource",
    },
    "staging": {
        "filesystem": "matih_ray.staging.filesystem:FilesystemStaging",
        "memory": "matih_ray.staging.memory:MemoryStaging",
        "object_store": "matih_ray.staging.object_store:ObjectStoreStaging",
    },
}

# Top-level module of an optional driver -> the extra that installs it.
EXTRAS: dict[str, str] = {
    "azure": "azure",
    "boto3": "dynamodb",
    "botocore": "dynamodb",
    "bson": "mongodb",
    "confluent_kafka": "kafka",
    "databricks": "databricks",
    "google": "gcs",
    "kubernetes": "kubernetes",
    "oracledb": "oracle",
    "psycopg2": "postgres",
    "pymongo": "mongodb",
    "pymysql": "mysql",
    "pytds": "sqlserver",
    "redis": "redis",
    "snowflake": "snowflake",
}

# Types that share a driver with another type -> their own extra.
OWN_EXTRAS: dict[str, str] = {"BIGQUERY": "bigquery", "GCS": "gcs", "S3": "s3"}


@dataclass(frozen=True)
class Registry:
    """Names to dotted paths, per kind. Tests pass their own value; there is no global to patch."""

    plugins: dict[Kind, dict[str, str]] = field(default_factory=dict)

    def names(self, kind: Kind) -> list[str]:
        """Known names of a kind, sorted."""
        return sorted(self.plugins.get(kind, {}))

    def resolve(self, kind: Kind, name: str) -> Any:
        """Import and return the class behind a name.

        Raises:
            UnknownPluginError: Lists the names that are known.
            MissingExtraError: Names the extra that installs the missing driver.
        """
        path = self.plugins.get(kind, {}).get(name)
        if path is None:
            known = ", ".join(self.names(kind)) or "none"
            raise UnknownPluginError(
                f"no {kind} plugin is named {name!r}; known: {known}", kind=kind, name=name
            )
        module_name, _, attribute = path.partition(":")
        try:
            return getattr(importlib.import_module(module_name), attribute)
        except ModuleNotFoundError as error:
            extra = EXTRAS.get((error.name or "").partition(".")[0])
            if extra is None:
                raise
            extra = OWN_EXTRAS.get(name, extra)
            raise MissingExtraError(
                f"{name} needs the driver {error.name}: pip install 'matih-ray[{extra}]'",
                name=name,
                extra=extra,
            ) from None


def load_registry() -> Registry:
    """Built-ins plus installed entry points.

    Raises:
        ConfigurationError: Two plugins claim the same name.
    """
    plugins: dict[Kind, dict[str, str]] = {kind: dict(table) for kind, table in BUILT_INS.items()}
    for kind, table in plugins.items():
        for point in entry_points(group=f"matih_ray.{kind}"):
            if point.name in table and table[point.name] != point.value:
                raise ConfigurationError(
                    f"{kind} plugin {point.name!r} is defined twice: {table[point.name]} and "
                    f"{point.value}; rename or uninstall one",
                    kind=kind,
                    name=point.name,
                )
            table[point.name] = point.value
    return Registry(plugins)

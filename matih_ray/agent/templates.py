"""Templates: what a connector type needs to know, in the words that users see.

Four are written down (seed 000); all others are derived from the type's configuration model, so
that no type is left to a form.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from matih_ray.control.connector_types import ConnectorType
from matih_ray.model.value import JsonValue

FieldKind = Literal["text", "host", "port", "region", "json", "tls"]
# Where a field goes in the connector's draft: a standard field, credentials or metadata.
Place = Literal["standard", "credentials", "metadata"]


@dataclass(frozen=True)
class Field:
    """One thing to know. `wire` is its name in the connector's draft."""

    name: str
    label: str
    place: Place
    wire: str
    kind: FieldKind = "text"
    is_secret: bool = False
    is_required: bool = True
    default: str | None = None
    aliases: tuple[str, ...] = ()
    example: str = ""


@dataclass(frozen=True)
class Template:
    """A connector type as the agent talks about it. `schemes` are those of its URLs."""

    type: str
    title: str
    fields: tuple[Field, ...]
    aliases: tuple[str, ...] = ()
    schemes: tuple[str, ...] = ()

    def field(self, name: str) -> Field | None:
        """The field of that name."""
        return next((field for field in self.fields if field.name == name), None)

    @property
    def required(self) -> tuple[Field, ...]:
        """What must be known before a connection can be tried."""
        return tuple(field for field in self.fields if field.is_required)


_HOST = Field(
    "host", "Host", "standard", "host", "host", example="db.example.com",
    aliases=("hostname", "host name", "server", "address", "endpoint address", "pghost",
             "mysql_host", "db_host", "database_host", "hostaddr", "postgres_host"),
)  # fmt: skip
_PORT = Field(
    "port", "Port", "standard", "port", "port",
    aliases=("port number", "pgport", "mysql_port", "db_port", "database_port", "postgres_port",
             "mysql_tcp_port"),
)  # fmt: skip
_DATABASE = Field(
    "database", "Database", "standard", "database", example="shop",
    aliases=("database name", "db", "db name", "dbname", "pgdatabase", "mysql_database",
             "db_database", "postgres_db", "catalog"),
)  # fmt: skip
_USERNAME = Field(
    "username", "Username", "credentials", "username", example="reader",
    aliases=("user name", "user", "login", "uid",
        "user id", "pguser", "mysql_user", "db_user",
             "db_username", "database_user", "postgres_user", "account name"),
)  # fmt: skip
_PASSWORD = Field(
    "password", "Password", "credentials", "password", is_secret=True,
    aliases=("pass", "passwd", "pwd", "pw", "passphrase", "pass word", "pgpassword", "mysql_pwd",
             "mysql_password", "db_password", "db_pass", "database_password", "postgres_password",
             "secret", "passcode"),
)  # fmt: skip
_TLS = Field(
    "ssl_mode", "TLS mode", "standard", "sslMode", "tls", is_required=False,
    aliases=("sslmode", "ssl mode", "tls mode", "pgsslmode", "ssl", "tls"),
)  # fmt: skip
_SCHEMA = Field(
    "schema", "Schema", "standard", "schema", is_required=False,
    aliases=("default schema", "schema name", "currentschema"),
)  # fmt: skip
# Every connector has a name; without one it gets the type's and the database's.
NAME = Field(
    "name", "Name of the connector", "standard", "name", is_required=False,
    aliases=("connector name", "connection name", "name of the connector", "call it",
             "name the connector", "name it"),
)  # fmt: skip

POSTGRESQL = Template(
    "POSTGRESQL",
    "PostgreSQL",
    (_HOST, replace(_PORT, default="5432"), _DATABASE, _USERNAME, _PASSWORD, _SCHEMA, _TLS, NAME),
    aliases=("postgres", "postgresql", "pg", "psql", "postgre", "postgre sql", "postgress"),
    schemes=("postgres", "postgresql"),
)
MYSQL = Template(
    "MYSQL",
    "MySQL",
    (_HOST, replace(_PORT, default="3306"), _DATABASE, _USERNAME, _PASSWORD, _TLS, NAME),
    aliases=("mysql", "my sql", "mariadb", "maria db", "maria"),
    schemes=("mysql", "mariadb"),
)
SNOWFLAKE = Template(
    "SNOWFLAKE",
    "Snowflake",
    (
        Field(
            "account", "Account", "metadata", "account", example="acme-analytics",
            aliases=("acct", "account identifier", "account id", "snowflake_account",
                     "snowflake account", "account locator"),
        ),
        Field(
            "warehouse", "Warehouse", "credentials", "warehouse", example="COMPUTE_WH",
            aliases=("wh", "virtual warehouse", "snowflake_warehouse", "warehouse name"),
        ),
        replace(_DATABASE, aliases=(*_DATABASE.aliases, "snowflake_database")),
        replace(_SCHEMA, is_required=True, aliases=(*_SCHEMA.aliases, "snowflake_schema")),
        Field(
            "role", "Role", "credentials", "role", example="READER",
            aliases=("snowflake_role", "role name"),
        ),
        replace(_USERNAME, aliases=(*_USERNAME.aliases, "snowflake_user")),
        replace(_PASSWORD, aliases=(*_PASSWORD.aliases, "snowflake_password")),
        # not `host`: in a sentence, what follows "at" is no host of Snowflake's
        Field(
            "private_host", "Private host", "standard", "host", "host", is_required=False,
            aliases=("host", "private link", "privatelink host"),
        ),
        Field(
            "private_port", "Private port", "standard", "port", "port",
            is_required=False, aliases=("port",),
        ),
        Field("protocol", "Protocol", "metadata", "protocol", is_required=False),
        NAME,
    ),
    aliases=("snowflake", "snow flake", "snowflake warehouse"),
    schemes=("snowflake",),
)  # fmt: skip
S3 = Template(
    "S3",
    "Amazon S3",
    (
        Field(
            "bucket", "Bucket", "metadata", "bucket", example="acme-lake",
            aliases=("bucket name", "s3 bucket", "s3_bucket", "aws_bucket", "aws_s3_bucket"),
        ),
        Field(
            "region", "Region", "metadata", "region", "region", example="eu-central-1",
            aliases=("aws_region", "aws_default_region", "aws region", "region name"),
        ),
        Field(
            "access_key_id", "Access key ID", "credentials", "accessKeyId", is_secret=True,
            aliases=("aws_access_key_id", "access key", "access key id", "key id", "accesskeyid",
                     "aws access key id", "aws access key", "access_key", "accesskey"),
        ),
        Field(
            "secret_access_key", "Secret access key", "credentials", "secretAccessKey",
            is_secret=True,
            aliases=("aws_secret_access_key", "secret key", "secret access key", "secret",
                     "aws secret access key", "secretaccesskey", "secret_key", "aws secret",
                     "aws_secret_key", "aws secret key"),
        ),
        Field(
            "session_token", "Session token", "credentials", "sessionToken", is_secret=True,
            is_required=False, aliases=("aws_session_token", "session token", "sessiontoken"),
        ),
        Field(
            "prefix", "Folder", "metadata", "prefix", is_required=False,
            aliases=("folder", "path", "key prefix", "directory"),
        ),
        Field(
            "endpoint", "Endpoint", "metadata", "endpointOverride", is_required=False,
            aliases=("endpoint url", "endpoint_url", "endpoint override", "aws_endpoint_url"),
        ),
        NAME,
    ),
    aliases=("s3", "amazon s3", "aws s3", "s3 bucket", "amazon simple storage service", "aws"),
    schemes=("s3", "s3a", "s3n"),
)  # fmt: skip

BUILT_IN = (POSTGRESQL, MYSQL, SNOWFLAKE, S3)

_TITLES = {
    "AZURE_BLOB": "Azure Blob Storage",
    "BIGQUERY": "BigQuery",
    "DATABRICKS_SQL": "Databricks SQL",
    "DYNAMODB": "DynamoDB",
    "GCS": "Google Cloud Storage",
    "GRAPHQL": "a GraphQL API",
    "JIRA": "Jira",
    "KAFKA": "Kafka",
    "MONGODB": "MongoDB",
    "ORACLE": "Oracle",
    "REDSHIFT": "Redshift",
    "REST": "a REST API",
    "SQL_SERVER": "SQL Server",
}
_ALIASES = {
    "AZURE_BLOB": ("azure", "azure blob", "azure storage", "abfs"),
    "BIGQUERY": ("big query", "bq"),
    "DATABRICKS_SQL": ("databricks",),
    "DYNAMODB": ("dynamo", "dynamo db"),
    "GCS": ("google cloud storage", "google storage", "gs"),
    "GRAPHQL": ("graph ql", "gql", "graphql api"),
    "MONGODB": ("mongo", "mongo db"),
    "REST": ("rest api", "http api", "web api", "api"),
    "SQL_SERVER": ("mssql", "sqlserver", "ms sql"),
}
_STANDARD = {field.name: field for field in (_HOST, _PORT, _DATABASE, _SCHEMA)}


def derived(type_: ConnectorType) -> Template:
    """A template from a type's configuration: its required fields, then its secrets."""
    properties = _properties(type_.config_model.model_json_schema(by_alias=True))
    required = _required(type_.config_model.model_json_schema(by_alias=True))
    fields = [_derived_field(name, shape, name in required) for name, shape in properties.items()]
    secrets = [
        Field(
            _snake(name), _title(name), "credentials", name, is_secret=True,
            is_required="session" not in name.lower(),
            aliases=_PASSWORD.aliases if name == "password" else (_spaced(name),),
        )
        for name in type_.secret_fields
        if name not in properties
    ]  # fmt: skip
    first = [field for field in fields if field.is_required]
    rest = [field for field in fields if not field.is_required and field.name != "name"]
    lower = type_.name.lower()
    return Template(
        type_.name,
        _TITLES.get(type_.name, type_.name),
        (*first, *secrets, *rest, NAME),
        aliases=(lower, lower.replace("_", " "), *_ALIASES.get(type_.name, ())),
        schemes=(lower, "mongodb+srv") if type_.name == "MONGODB" else (lower,),
    )


def missing_fields(template: Template, known: Iterable[str]) -> tuple[Field, ...]:
    """Required fields that are not known yet, in the template's order."""
    have = set(known)
    return tuple(field for field in template.required if field.name not in have)


def _derived_field(name: str, shape: Mapping[str, Any], is_required: bool) -> Field:  # noqa: FBT001 private
    default = shape.get("default")
    if name in _STANDARD:
        shown = None if default is None else str(default)
        return replace(_STANDARD[name], is_required=is_required, default=shown)
    if name == "user":
        return replace(_USERNAME, is_required=is_required)
    if name == "sslMode":
        return _TLS
    kinds = {part.get("type") for part in (shape, *shape.get("anyOf", ()))}
    is_json = bool(kinds & {"array", "object", "boolean", "integer", "number"}) or "$ref" in shape
    kind: FieldKind = "region" if name == "region" else ("json" if is_json else "text")
    return Field(
        _snake(name), _title(name), "metadata", name, kind, is_required=is_required,
        aliases=(_spaced(name),),
    )  # fmt: skip


def _properties(schema: Mapping[str, JsonValue]) -> dict[str, Mapping[str, Any]]:
    found = schema.get("properties")
    return dict(found) if isinstance(found, dict) else {}  # type: ignore[arg-type]  # JSON Schema


def _required(schema: Mapping[str, JsonValue]) -> set[str]:
    found = schema.get("required")
    return {str(name) for name in found} if isinstance(found, list) else set()


def _spaced(name: str) -> str:
    return "".join(f" {c.lower()}" if c.isupper() else c for c in name)


def _snake(name: str) -> str:
    return _spaced(name).replace(" ", "_")


def _title(name: str) -> str:
    return _spaced(name).capitalize()

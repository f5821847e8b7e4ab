"""Settings: read once from the environment (prefix `MATIH_`), frozen, passed down as a value.

Beside `model` in the import arrow. Nothing else in the package reads the environment, except that
`INGESTION_KV_FILE` of the specification is honoured here as an alias.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, Field, SecretStr, TypeAdapter, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

Tier = Literal["FREE", "PROFESSIONAL", "ENTERPRISE"]
_TIERS: TypeAdapter[dict[str, Tier]] = TypeAdapter(dict[str, Tier])


class Settings(BaseSettings):
    """All settings of the runtime. Secrets are `SecretStr` and never printed."""

    model_config = SettingsConfigDict(
        env_prefix="MATIH_", frozen=True, extra="ignore", validate_default=True
    )

    home: Path = Field(
        default=Path(".matih"), description="Directory of the embedded default's files."
    )

    @field_validator("home")
    @classmethod
    def _absolute(cls, home: Path) -> Path:
        """Workers run in other directories and must find the same files."""
        return home.absolute()

    @field_validator("tenant_tiers")
    @classmethod
    def _names_tiers(cls, text: str) -> str:
        """Text and not a mapping, because settings are hashed; checked at start all the same."""
        _TIERS.validate_json(text)
        return text

    def tier_of(self, tenant_id: str) -> Tier:
        """The plan of a tenant."""
        return _TIERS.validate_json(self.tenant_tiers).get(tenant_id, self.default_tier)

    metadata_url: SecretStr | None = Field(
        default=None,
        description="SQLAlchemy URL of the metadata store; SQLite under `home` if unset.",
    )
    kv_url: SecretStr | None = Field(
        default=None,
        description="Key-value store: `redis://…`, `sql` (the metadata store), or a file if unset.",
    )
    kv_file: Path | None = Field(
        default=None,
        validation_alias=AliasChoices("MATIH_KV_FILE", "INGESTION_KV_FILE", "kv_file"),
        description="File of the key-value store; `metadata/kv-store.json` under `home` if unset.",
    )
    credential_key: SecretStr | None = Field(
        default=None,
        description="Comma-separated Fernet keys, newest first; a key file under `home` if unset.",
    )
    credential_store: Literal["file", "kubernetes"] = Field(
        default="file", description="Where connectors' secrets are kept."
    )
    kube_config: Path | None = Field(
        default=None,
        description="Kubeconfig for `kubernetes`; the pod's service account or the usual file if "
        "unset.",
    )
    iceberg_catalog_type: Literal["sql", "rest"] = Field(
        default="sql", description="Kind of the Iceberg catalog of the built-in sink `iceberg`."
    )
    iceberg_catalog_uri: SecretStr | None = Field(
        default=None, description="Catalog URI; a SQLite file under `home` if unset."
    )
    iceberg_warehouse: str | None = Field(
        default=None, description="Warehouse location; a directory under `home` if unset."
    )
    iceberg_properties: SecretStr = Field(
        default=SecretStr("{}"), description="More PyIceberg catalog properties, as a JSON object."
    )
    raw_location: str | None = Field(
        default=None,
        description="Where the built-in sink `raw` keeps its files: a directory, `s3://…` or "
        "`hdfs://…`; under `home` if unset.",
    )
    raw_registered: bool = Field(
        default=False,
        description="Whether its tables are also shown in the catalog of the sink `iceberg`.",
    )
    cdm_database_url: SecretStr | None = Field(
        default=None,
        validation_alias=AliasChoices(
            "MATIH_CDM_DATABASE_URL",
            "CDM_WORK_DATABASE_URL",
            "METADATA_DATABASE_URL",
            "cdm_database_url",
        ),
        description="PostgreSQL of the built-in sink `cdm.jdbc`: postgresql://user@host/database.",
    )
    cdm_schema: str = Field(
        default="cdm",
        validation_alias=AliasChoices("MATIH_CDM_SCHEMA", "CDM_WORK_DATABASE_SCHEMA", "cdm_schema"),
        description="Schema of its tables.",
    )
    cdm_table_prefix: str = Field(
        default="cdm_",
        validation_alias=AliasChoices(
            "MATIH_CDM_TABLE_PREFIX", "CDM_WORK_DATABASE_TABLE_PREFIX", "cdm_table_prefix"
        ),
        description="What the names of its tables begin with.",
    )
    staging_provider: str = Field(
        default="object_store", description="`object_store`, `filesystem` or `memory`."
    )
    staging_dir: Path | None = Field(
        default=None, description="Directory of `filesystem` staging; under `home` if unset."
    )
    jwt_secret: SecretStr | None = Field(
        default=None,
        description="HS256 secret for bearer tokens; a key file under `home` if unset.",
    )
    jwt_jwks_url: str | None = Field(
        default=None,
        description="Public keys (JWKS) of RS256 tokens, `https://…` or `file:///…`; HS256 if "
        "unset.",
    )
    jwt_issuer: str = Field(default="matih", description="Expected `iss` of bearer tokens.")
    jwt_audience: str = Field(default="matih-ray", description="Expected `aud` of bearer tokens.")
    default_tier: Tier = Field(
        default="ENTERPRISE",
        description="Plan of tenants that `tenant_tiers` does not name; see its limits there.",
    )
    tenant_tiers: str = Field(
        default="{}",
        description="Plans by tenant, a JSON object: FREE, PROFESSIONAL or ENTERPRISE.",
    )
    connector_check_s: float = Field(
        default=900.0,
        gt=0,
        description="Seconds between two health checks of a connector, spread by a tenth.",
    )
    connector_warning_ms: int = Field(
        default=2000, ge=1, description="Login time above which a connector's status is WARNING."
    )
    hosts_allowed: str | None = Field(
        default=None,
        description="Comma-separated networks and host suffixes; if set, sources are nowhere else.",
    )
    hosts_denied: str | None = Field(
        default=None,
        description="Comma-separated networks and host suffixes where no source may be.",
    )
    private_hosts: bool = Field(
        default=True, description="Whether sources may have private and loopback addresses."
    )
    agent_trusts_gateway: bool = Field(
        default=False,
        description="Whether the agent takes callers from X-Tenant-Id, X-User-ID and X-User-Roles.",
    )
    agent_sessions_url: SecretStr | None = Field(
        default=None,
        description="Where the agent keeps sessions: `redis://…`; in its memory if unset.",
    )
    agent_sessions_max: int = Field(
        default=10_000, ge=1, description="Sessions that are open at a time, in one such store."
    )
    agent_model_url: str | None = Field(
        default=None,
        description="An OpenAI-compatible endpoint, up to and with `/v1`, that may help the agent "
        "to understand; none if unset.",
    )
    agent_model_name: str = Field(default="default", description="The model to ask there.")
    agent_model_key: SecretStr | None = Field(
        default=None, description="Its API key, if it wants one."
    )
    agent_model_wait_s: float = Field(
        default=5.0, gt=0, description="How long a message may wait for the model."
    )
    agent_model_rephrases: bool = Field(
        default=False, description="Whether the model may also put the agent's sentences nicer."
    )
    planner_hosts: int = Field(
        default=1, ge=1, le=64, description="Planner actors that share all runs of the cluster."
    )
    runs_per_planner: int = Field(
        default=16, ge=1, le=256, description="Runs that one planner actor works on at a time."
    )
    sink_actors_per_planner: int = Field(
        default=2, ge=1, le=256, description="Sink actors that the runs of one planner share."
    )
    uncommitted_slices_max: int = Field(
        default=256,
        ge=1,
        description="Written but uncommitted slices of a run at which no further slice is started.",
    )
    object_store_bytes: int = Field(
        default=1 << 30,
        ge=128 << 20,
        description="Object store of a local Ray; staged batches beyond it are spilled to disk.",
    )
    maintenance_s: float = Field(
        default=3600.0,
        ge=0,
        description="Seconds between two passes of table maintenance over all tenants; 0 for none.",
    )
    maintenance_policy: str = Field(
        default="{}",
        description="What those passes do, a JSON object: see docs/maintenance.md.",
    )
    maintenance_budget_bytes: int = Field(
        default=64 << 30,
        ge=0,
        description="Bytes of a tenant's files that one pass may rewrite.",
    )
    heartbeat_s: float = Field(
        default=2.0, gt=0, description="Seconds between signs of life of a run's planner."
    )
    orphan_after_s: float = Field(
        default=10.0, gt=0, description="Seconds without a heartbeat until a run is relaunched."
    )
    stream_storage: str | None = Field(
        default=None,
        description="URI below which streaming jobs keep checkpoints and savepoints; a directory "
        "under `home` if unset.",
    )
    stream_files: Path | None = Field(
        default=None,
        description="Directory with one for each tenant, where `filesystem` tables of submitted "
        "jobs may be; nowhere if unset.",
    )
    stream_state_backend: Literal["memory", "disk"] = Field(
        default="memory",
        description="Where streaming jobs keep open windows, unless their script says it: in the "
        "process, or in files beyond `stream_state_memory_bytes`.",
    )
    stream_state_directory: Path | None = Field(
        default=None,
        description="Directory of this machine for those files; one under `home` if unset.",
    )
    stream_state_memory_bytes: int = Field(
        default=256 << 20,
        ge=1 << 16,
        description="Bytes of memory that each window operator with files uses for open windows, "
        "merging them included.",
    )
    sql_variables: SecretStr = Field(
        default=SecretStr("{}"),
        description="Variables of submitted scripts by tenant, a JSON object of objects.",
    )
    http_host: str = Field(default="127.0.0.1", description="Address of the control API.")
    http_port: int = Field(default=8080, ge=1, le=65535, description="Port of the control API.")
    step_listener: str | None = Field(
        default=None,
        description="Dotted name of a function that is told of a run's steps; for fault tests.",
    )
    log_format: Literal["json", "console"] = Field(
        default="json", description="Rendering of log lines."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Lowest level that is logged."
    )

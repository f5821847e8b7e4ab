"""Configuration of a Databricks SQL connector; token and client secret are not part of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from matih_ray.model.value import Value


class DatabricksConfig(Value):
    """Where the warehouse is and how to log in. Durations are in seconds."""

    # part of addresses, so it may hold nothing that ends a host
    host: Annotated[
        str,
        Field(pattern=r"^[A-Za-z0-9._-]{1,253}$", description="Server hostname of the workspace"),
    ]
    port: Annotated[int, Field(ge=1, le=65_535)] = 443
    http_path: Annotated[
        str,
        Field(
            pattern=r"^/?[A-Za-z0-9._/-]{1,500}(\?o=[0-9]{1,20})?$",
            description="HTTP path of the warehouse, as in /sql/1.0/warehouses/abc123",
        ),
    ]
    database: Annotated[str, Field(min_length=1, description="Catalog of Unity Catalog")]
    schema_: Annotated[
        str | None, Field(alias="schema", min_length=1, description="The only schema to list")
    ] = None
    client_id: Annotated[
        str | None, Field(min_length=1, description="Of the service principal, for clientSecret")
    ] = None
    ssl_mode: Annotated[
        Literal["verify-full", "disable"],
        Field(description="disable is HTTP in clear text, for a gateway on the same machine"),
    ] = "verify-full"
    ssl_root_cert: Annotated[
        str | None, Field(description="File of trusted certificates; the system's without it")
    ] = None
    connect_timeout_s: Annotated[int, Field(ge=1, le=300)] = 15
    start_timeout_s: Annotated[
        int, Field(ge=0, le=900, description="Longest wait for a warehouse that is starting")
    ] = 300
    read_timeout_s: Annotated[
        int, Field(ge=1, le=3600, description="Longest wait for one answer of the warehouse")
    ] = 300

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        scheme = "http" if self.ssl_mode == "disable" else "https"
        return f"{scheme}://{self.host}:{self.port}"

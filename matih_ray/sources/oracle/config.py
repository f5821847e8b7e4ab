"""Configuration of an Oracle connector; the password is not part of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from matih_ray.model.value import Value

SslMode = Literal["disable", "require", "verify-ca", "verify-full"]


class OracleConfig(Value):
    """Where the database is and how to log in. Durations are in seconds."""

    host: Annotated[str, Field(min_length=1, max_length=255, description="Host name or address")]
    port: Annotated[int, Field(ge=1, le=65_535)] = 1521
    # becomes a part of a connect descriptor, so it may hold nothing that ends one
    database: Annotated[
        str, Field(pattern=r"^[A-Za-z0-9_$#.-]{1,255}$", description="Name of the service")
    ]
    schema_: Annotated[
        str | None, Field(alias="schema", min_length=1, description="The only schema to list")
    ] = None
    user: Annotated[str, Field(min_length=1)]
    ssl_mode: Annotated[SslMode, Field(description="TCPS, or plain TCP with disable")] = "require"
    ssl_root_cert: Annotated[
        str | None,
        Field(description="File of trusted certificates for verify-…; the system's without it"),
    ] = None
    connect_timeout_s: Annotated[int, Field(ge=1, le=300)] = 15

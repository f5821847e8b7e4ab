"""Configuration of a SQL Server connector; the password is not part of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from matih_ray.model.value import Value

SslMode = Literal["disable", "prefer", "require", "verify-ca", "verify-full"]


class SqlServerConfig(Value):
    """Where the database is and how to log in. Durations are in seconds."""

    # a backslash would begin the name of an instance, which has a port of its own to be given here
    host: Annotated[str, Field(pattern=r"^[^\\]{1,255}$", description="Host name or address")]
    port: Annotated[int, Field(ge=1, le=65_535)] = 1433
    database: Annotated[str, Field(min_length=1, max_length=128)]
    schema_: Annotated[
        str | None, Field(alias="schema", min_length=1, description="The only schema to list")
    ] = None
    user: Annotated[str, Field(min_length=1, max_length=128, description="SQL Server login")]
    ssl_mode: SslMode = "require"
    ssl_root_cert: Annotated[
        str | None,
        Field(description="File of trusted certificates for verify-…; the system's without it"),
    ] = None
    connect_timeout_s: Annotated[int, Field(ge=1, le=300)] = 15
    lock_timeout_s: Annotated[
        int, Field(ge=1, le=3600, description="Longest wait for a lock that a writer holds")
    ] = 60
    isolation: Annotated[
        Literal["read-committed", "snapshot"],
        Field(description="snapshot reads each slice as of one moment; the database must allow it"),
    ] = "read-committed"
    read_only_intent: Annotated[
        bool, Field(description="Ask an availability group for a readable secondary")
    ] = False

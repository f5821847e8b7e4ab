"""Configuration of a MySQL connector; the password is not part of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from matih_ray.model.value import Value

SslMode = Literal["disable", "prefer", "require", "verify-ca", "verify-full"]


class MySqlConfig(Value):
    """Where the database is and how to log in. Durations are in seconds."""

    host: Annotated[str, Field(min_length=1, description="Host name or address")]
    port: Annotated[int, Field(ge=1, le=65_535)] = 3306
    database: Annotated[str, Field(min_length=1, description="Its tables are the units")]
    user: Annotated[str, Field(min_length=1, description="Login account")]
    ssl_mode: SslMode = "prefer"
    ssl_root_cert: Annotated[
        str | None,
        Field(description="File of trusted certificates for verify-…; the system's without it"),
    ] = None
    connect_timeout_s: Annotated[int, Field(ge=1, le=300)] = 10
    lock_timeout_s: Annotated[
        int,
        Field(ge=1, le=3600, description="Longest wait for a lock, such as that of ALTER TABLE"),
    ] = 60

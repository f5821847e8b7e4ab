"""Configuration of a PostgreSQL connector; the password is not part of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from matih_ray.model.value import Value

SslMode = Literal["disable", "prefer", "require", "verify-ca", "verify-full"]


class LoginConfig(Value):
    """What libpq needs to log in, for whatever speaks PostgreSQL's protocol."""

    host: Annotated[str, Field(min_length=1, description="Host name, address or socket directory")]
    port: Annotated[int, Field(ge=1, le=65_535)] = 5432
    database: Annotated[str, Field(min_length=1)]
    user: Annotated[str, Field(min_length=1, description="Login role")]
    ssl_mode: SslMode = "prefer"
    ssl_root_cert: Annotated[
        str | None, Field(description="File of trusted certificates, or `system`, for verify-…")
    ] = None
    connect_timeout_s: Annotated[int, Field(ge=1, le=300)] = 10


class PostgresConfig(LoginConfig):
    """Where the database is and how to log in. Durations are in seconds."""

    lock_timeout_s: Annotated[
        float,
        Field(ge=0, le=3600, description="Longest wait for a lock, such as that of ALTER TABLE"),
    ] = 60.0

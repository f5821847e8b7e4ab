"""Configuration of a MongoDB connector; the password is not part of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from matih_ray.model.value import Value

SslMode = Literal["disable", "require", "verify-ca", "verify-full"]


class MongoConfig(Value):
    """Where the database is and how to log in. Durations are in seconds."""

    host: Annotated[str, Field(min_length=1, description="Host name or address of one server")]
    port: Annotated[int, Field(ge=1, le=65_535)] = 27_017
    hosts: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[^\s/@,?]+:\d{1,5}$")], ...],
        Field(description="Further members of a replica set, or routers, each as `host:port`"),
    ] = ()
    database: Annotated[str, Field(min_length=1, max_length=63, pattern=r'^[^/\\. "$\x00]+$')]
    replica_set: Annotated[
        str | None, Field(description="Name of the replica set; without it, `host` alone is asked")
    ] = None
    user: Annotated[str | None, Field(min_length=1, description="None where nobody logs in")] = None
    auth_source: Annotated[str, Field(description="Database that the user belongs to")] = "admin"
    auth_mechanism: Literal["SCRAM-SHA-256", "SCRAM-SHA-1"] | None = None
    read_preference: Literal["primary", "primaryPreferred", "secondary", "secondaryPreferred"] = (
        "primary"
    )
    ssl_mode: SslMode = "disable"
    ssl_root_cert: Annotated[
        str | None, Field(description="File of trusted certificates; the system's if unset")
    ] = None
    connect_timeout_s: Annotated[int, Field(ge=1, le=300)] = 10

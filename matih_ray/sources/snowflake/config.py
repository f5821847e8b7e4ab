"""Configuration of a Snowflake connector; password and private key are not part of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from matih_ray.model.value import Value


class SnowflakeConfig(Value):
    """Where the account is and how to log in. Durations are in seconds."""

    # becomes a part of the host, so it may hold nothing that ends one
    account: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,200}$")]
    user: Annotated[str, Field(min_length=1)]
    database: Annotated[str, Field(min_length=1)]
    schema_: Annotated[
        str | None, Field(alias="schema", min_length=1, description="The only schema to list")
    ] = None
    warehouse: Annotated[str | None, Field(min_length=1)] = None
    role: Annotated[str | None, Field(min_length=1)] = None
    host: Annotated[
        str | None, Field(min_length=1, description="Instead of the account's, for a private link")
    ] = None
    port: Annotated[int, Field(ge=1, le=65_535)] = 443
    protocol: Annotated[
        Literal["https", "http"], Field(description="http is for emulators only")
    ] = "https"
    connect_timeout_s: Annotated[int, Field(ge=1, le=300)] = 15

    @property
    def address(self) -> str:
        """The host to connect to."""
        return self.host or f"{self.account}.snowflakecomputing.com"

"""Configuration of a Snowflake connector; password and private key are not part of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

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
    ssl_mode: Annotated[
        Literal["verify-full", "disable"] | None,
        Field(description="verify-full if unset; disable is for emulators only"),
    ] = None
    protocol: Annotated[
        Literal["https", "http"] | None, Field(description="http is sslMode=disable")
    ] = None
    connect_timeout_s: Annotated[int, Field(ge=1, le=300)] = 15
    # the service holds a request for 45 s while its query runs
    read_timeout_s: Annotated[int, Field(ge=1, le=900)] = 60

    @model_validator(mode="after")
    def _check_tls(self) -> SnowflakeConfig:
        modes = {"https": "verify-full", "http": "disable"}
        if self.protocol and self.ssl_mode and modes[self.protocol] != self.ssl_mode:
            raise ValueError(f"sslMode {self.ssl_mode} contradicts protocol {self.protocol}")
        return self

    @property
    def scheme(self) -> str:
        """`https`, with certificate and name verified, or `http`."""
        return self.protocol or ("http" if self.ssl_mode == "disable" else "https")

    @property
    def address(self) -> str:
        """The host to connect to."""
        return self.host or f"{self.account}.snowflakecomputing.com"

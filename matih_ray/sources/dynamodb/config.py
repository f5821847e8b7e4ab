"""Configuration of a DynamoDB connector; keys are not part of it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from matih_ray.model.value import Value


class DynamoConfig(Value):
    """Which region's tables, and where they are asked for. Durations are in seconds."""

    region: Annotated[str, Field(pattern=r"^[a-z]{2}(-[a-z]+)+-\d+$", description="AWS region")]
    endpoint_override: Annotated[
        str | None,
        Field(pattern=r"^https?://[^/@\s]+/?$", description="URL instead of the region's own"),
    ] = None
    consistent_read: Annotated[
        bool, Field(description="See all writes made before; costs twice the read capacity")
    ] = False
    ssl_root_cert: Annotated[
        str | None, Field(description="File of trusted certificates; the usual ones if unset")
    ] = None
    connect_timeout_s: Annotated[int, Field(ge=1, le=300)] = 10
    read_timeout_s: Annotated[int, Field(ge=1, le=900)] = 60

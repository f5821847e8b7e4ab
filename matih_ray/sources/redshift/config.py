"""Configuration of a Redshift connector; the password is not part of it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from matih_ray.sources.postgres.config import LoginConfig, SslMode


class RedshiftConfig(LoginConfig):
    """Where the cluster or workgroup is and how to log in. Durations are in seconds."""

    port: Annotated[int, Field(ge=1, le=65_535)] = 5439
    # Redshift always speaks TLS; verify-full needs Amazon's bundle as root certificate.
    ssl_mode: SslMode = "require"

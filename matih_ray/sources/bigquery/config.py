"""Configuration of a BigQuery connector; keys are not part of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from matih_ray.model.value import Value

DatasetName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$", max_length=1024)]
# with a domain in front for old ones, as in `example.com:shop`
ProjectId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.:-]{0,99}$")]


class BigQueryConfig(Value):
    """Which datasets are read, and who pays. Durations are in seconds."""

    project_id: ProjectId
    dataset: DatasetName | Annotated[tuple[DatasetName, ...], Field(min_length=1, max_length=100)]
    billing_project: Annotated[
        ProjectId | None, Field(description="Where queries run; the datasets' project if unset")
    ] = None
    location: Annotated[str | None, Field(pattern=r"^[A-Za-z0-9-]{1,50}$")] = None
    max_bytes_billed: Annotated[
        int | None, Field(ge=1, description="A query that would read more fails, and costs nothing")
    ] = None
    endpoint_override: Annotated[
        str | None,
        Field(pattern=r"^https?://[^/@\s]+/?$", description="URL instead of the service's own"),
    ] = None
    anonymous: Annotated[bool, Field(description="Emulators, read without credentials")] = False
    ssl_mode: Annotated[
        Literal["verify-full", "disable"] | None,
        Field(description="disable is for an endpointOverride with http only"),
    ] = None
    ssl_root_cert: Annotated[
        str | None, Field(description="File of trusted certificates; the usual ones if unset")
    ] = None
    connect_timeout_s: Annotated[int, Field(ge=1, le=300)] = 10
    # a request for a query's result is held for ten seconds before it says "not yet"
    read_timeout_s: Annotated[int, Field(ge=15, le=900)] = 60

    @model_validator(mode="after")
    def _check_tls(self) -> BigQueryConfig:
        plain = (self.endpoint_override or "").startswith("http://")
        if self.ssl_mode is not None and plain != (self.ssl_mode == "disable"):
            raise ValueError(
                "sslMode is `verify-full`, or `disable` for an endpointOverride that begins with "
                "http://"
            )
        return self

    @property
    def datasets(self) -> tuple[str, ...]:
        """The names of the datasets."""
        return (self.dataset,) if isinstance(self.dataset, str) else self.dataset

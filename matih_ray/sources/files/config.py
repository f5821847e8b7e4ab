"""Configuration of connectors for files; keys are not part of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from matih_ray.model.value import Value

Format = Literal["parquet", "csv", "ndjson"]


class Dataset(Value):
    """A named set of files that one table is made of.

    `glob` is relative to the prefix; `*` does not cross folders and `**` does. `columns` declares
    types that are otherwise inferred: name to `string`, `int64`, `decimal128(18, 2)` and so on.
    `names` are the columns of a CSV file without a header, in order.
    """

    name: Annotated[str, Field(min_length=1, max_length=255)]
    glob: Annotated[str, Field(min_length=1, max_length=1024)]
    format: Format | None = None
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","
    quote: Annotated[str, Field(min_length=1, max_length=1)] = '"'
    names: tuple[str, ...] = ()
    columns: dict[str, str] = {}


class FilesConfig(Value):
    """What all stores have in common. Without `datasets`, each folder of one format is one.
    Durations are in seconds."""

    prefix: Annotated[str, Field(max_length=1024, description="Folder that is looked into")] = ""
    datasets: tuple[Dataset, ...] = ()
    endpoint_override: Annotated[
        str | None,
        Field(pattern=r"^https?://[^/@\s]+/?$", description="URL instead of the service's own"),
    ] = None
    anonymous: Annotated[bool, Field(description="Public files, read without credentials")] = False
    ssl_root_cert: Annotated[
        str | None, Field(description="File of trusted certificates; the usual ones if unset")
    ] = None
    connect_timeout_s: Annotated[int, Field(ge=1, le=300)] = 10
    read_timeout_s: Annotated[int, Field(ge=1, le=900)] = 60


class S3Config(FilesConfig):
    """A bucket of S3 or of a store that speaks its protocol."""

    bucket: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")]
    region: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")] = "us-east-1"


class AzureBlobConfig(FilesConfig):
    """A container of a storage account. Emulators have the account as a path of their URL."""

    account: Annotated[str, Field(pattern=r"^[a-z0-9]{3,24}$", description="Storage account")]
    container: Annotated[str, Field(pattern=r"^(\$root|\$web|[a-z0-9](-?[a-z0-9]){2,62})$")]
    endpoint_override: Annotated[
        str | None,
        Field(pattern=r"^https?://[^/@?\s]+(/[a-z0-9]*)?$", description="URL of the account"),
    ] = None


class GcsConfig(FilesConfig):
    """A bucket of Google Cloud Storage."""

    bucket: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]$")]

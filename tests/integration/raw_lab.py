"""What the tests of the raw files sink share: places, and what readers see there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from matih_ray.model.ids import EndpointId
from matih_ray.settings import Settings
from matih_ray.sinks.base import PreparedTarget, SinkEndpoint
from matih_ray.sinks.raw_files import RawFilesSink
from matih_ray.sinks.raw_files.config import Place
from matih_ray.sinks.raw_files.log import CommitLog, TablePaths
from matih_ray.sinks.raw_files.target import RawTarget, decoded
from matih_ray.sources.base import EndpointSpec
from matih_ray.testing.contracts.sink_lab import TENANT
from matih_ray.testing.devstack.dynamodb import ACCESS_KEY_ID, REGION
from matih_ray.testing.devstack.object_stores import SECRET_ACCESS_KEY, S3Server


@dataclass
class RawLab:
    """Endpoints on one place."""

    place: Place

    def sink(self) -> SinkEndpoint:
        """A new endpoint."""
        raise NotImplementedError

    def log(self, prepared: PreparedTarget) -> CommitLog:
        """The log of a prepared table."""
        target = RawTarget.from_json(dict(prepared.payload))
        return CommitLog(self.place.open(), TablePaths.of(target.path))

    def listed(self, prepared: PreparedTarget) -> set[str]:
        """Files that are found below the table's directory, as strangers find them."""
        log = self.log(prepared)
        selector = fs.FileSelector(
            log.storage.full(log.paths.table), recursive=True, allow_not_found=True
        )
        found = log.storage.filesystem.get_file_info(selector)
        return {one.path for one in found if one.type is fs.FileType.File}

    def read(self, prepared: PreparedTarget) -> pa.Table:
        """The rows of the published files, which are those that are found in the directory."""
        log = self.log(prepared)
        paths = [log.storage.full(f"{log.paths.table}/{one.name}") for one in log.published()]
        assert set(paths) == self.listed(prepared)
        latest = log.latest()
        assert latest is not None
        schema = decoded(latest.arrow_schema)
        tables = []
        for path in paths:
            with log.storage.filesystem.open_input_file(path) as file:
                tables.append(pq.ParquetFile(file).read())
        return pa.concat_tables([schema.empty_table(), *tables], promote_options="default")


@dataclass
class LocalLab(RawLab):
    """A directory of this machine."""

    settings: Settings

    @classmethod
    def create(cls, home: Path, **settings: object) -> LocalLab:
        """A lab of its own."""
        chosen = Settings(home=home, **settings)
        return cls(Place.from_settings(chosen), chosen)

    def sink(self) -> RawFilesSink:
        return RawFilesSink.from_settings(self.settings, TENANT)


@dataclass
class S3Lab(RawLab):
    """A bucket of a server on loopback, by a registered sink."""

    spec: EndpointSpec

    @classmethod
    def create(cls, server: S3Server, bucket: str, **config: object) -> S3Lab:
        """A lab with a bucket of its own."""
        server.create_bucket(bucket)
        spec = EndpointSpec(
            TENANT,
            EndpointId("raw"),
            "raw files",
            "raw",
            {
                "location": f"s3://{bucket}/lake",
                "region": REGION,
                "endpointOverride": server.url,
                **config,
            },
            {"accessKeyId": ACCESS_KEY_ID, "secretAccessKey": SECRET_ACCESS_KEY},
        )
        return cls(Place.from_spec(spec), spec)

    def sink(self) -> RawFilesSink:
        return RawFilesSink(self.spec)

"""What a prepared target holds for writers and committers: plain data, no secrets."""

from __future__ import annotations

import base64
import hashlib

import pyarrow as pa

from matih_ray.model.receipt import CommitMarker
from matih_ray.model.value import Value


class RawTarget(Value):
    """The payload of a `PreparedTarget` of this sink. `arrow_schema` is what slices bring."""

    path: tuple[str, ...]
    table_id: str
    stream: str
    arrow_schema: str
    partition_by: tuple[str, ...]
    target_file_bytes: int
    checksum: bool
    predecessor: CommitMarker | None

    @property
    def schema(self) -> pa.Schema:
        """The schema of every batch."""
        return decoded(self.arrow_schema)

    @property
    def stream_directory(self) -> str:
        """Where the stream's stages are."""
        return _digest(self.stream)

    @property
    def generation(self) -> str:
        """Tells stages of writers that saw this predecessor: once another run has committed, no
        other's can be committed any more."""
        marker = self.predecessor
        return _digest("" if marker is None else marker.to_json())


def encoded(schema: pa.Schema) -> str:
    """A schema as text: Arrow's own message, without metadata."""
    return base64.b64encode(schema.remove_metadata().serialize().to_pybytes()).decode("ascii")


def decoded(text: str) -> pa.Schema:
    """The schema that `encoded` was given."""
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]

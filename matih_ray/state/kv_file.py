"""Keys and values in one JSON file: the embedded default.

Every write takes the lock of `<file>.lock`, reads the file, changes it in memory and replaces it as
a whole; readers need no lock. That is right for one machine and some thousands of small values; a
cluster uses Redis or SQL.

What is synced: the new content, before it gets the name, because a file that is torn or empty after
a power failure would stop every run. What is not: the directory, so that after a power failure the
content before the last write may come back. A run then finds an older checkpoint than the sink's
marker and takes the marker's word, as it does whenever it dies between commit and checkpoint.

A file that is not ours, or from newer software, is reported and never overwritten.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from matih_ray.errors import ConfigurationError, StateError, StateVersionError
from matih_ray.model.ids import TenantId
from matih_ray.model.value import JsonValue
from matih_ray.state.base import VersionedValue
from matih_ray.state.files import exclusive, replace_file
from matih_ray.state.json_text import encode
from matih_ray.state.kv_memory import KeyValues, check_key

FORMAT = "matih-kv"
FORMAT_VERSION = 1


class FileKeyValueStore:
    """A `KeyValueStore` in one file; safe for threads and processes of one machine."""

    def __init__(self, path: Path) -> None:
        # resolved, so that a later change of directory or a symbolic link cannot split the store
        self.path = path.resolve()
        self._lock_file = self.path.with_name(f"{self.path.name}.lock")
        # threads take turns here first, because waiting for the file's lock is asking again
        self._turn = threading.Lock()

    def get(self, tenant_id: TenantId, key: str) -> VersionedValue | None:
        """The value and its version, or None."""
        check_key(tenant_id, key)
        return self._load().get(tenant_id, key)

    def compare_and_set(
        self, tenant_id: TenantId, key: str, value: JsonValue, expected_version: int
    ) -> int:
        """Store a value; returns the new version."""
        check_key(tenant_id, key)
        encode(value)  # refuses what is not JSON before anything is touched
        with self._turn, exclusive(self._lock_file):
            values = self._load()
            version = values.compare_and_set(tenant_id, key, value, expected_version)
            self._save(values)
        return version

    def delete(self, tenant_id: TenantId, key: str) -> bool:
        """Remove a key; tells whether it existed."""
        check_key(tenant_id, key)
        with self._turn, exclusive(self._lock_file):
            values = self._load()
            existed = values.delete(tenant_id, key)
            if existed:
                self._save(values)
        return existed

    def keys(self, tenant_id: TenantId, prefix: str) -> list[str]:
        """Keys of a tenant that start with `prefix`, sorted."""
        return self._load().keys(tenant_id, prefix)

    def close(self) -> None:
        """Nothing to release: no file stays open between calls."""

    def _load(self) -> KeyValues:
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return KeyValues()
        except OSError as error:
            raise ConfigurationError(
                f"cannot read the key-value file {self.path}: {error.strerror}; "
                "check its permissions or set MATIH_KV_FILE to another file",
                path=str(self.path),
            ) from None
        try:
            return _parsed(json.loads(data), self.path)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise ConfigurationError(
                f"{self.path} is not a key-value file of this software and is left as it is; "
                "restore it from a backup, move it away, or set MATIH_KV_FILE to another file",
                path=str(self.path),
            ) from None

    def _save(self, values: KeyValues) -> None:
        try:
            replace_file(self.path, _rendered(values), durable_name=False)
        except OSError as error:
            raise StateError(
                f"cannot write the key-value file {self.path}: {error.strerror}; "
                "it still has its old content",
                path=str(self.path),
            ) from None


def _parsed(document: Any, path: Path) -> KeyValues:
    if document["format"] != FORMAT:
        raise ValueError("another format")
    version = document["version"]
    if version != FORMAT_VERSION:
        raise StateVersionError(
            f"the key-value file {path} has format version {version}; this software knows "
            f"{FORMAT_VERSION}; run the version that wrote it",
            path=str(path),
            stored=int(version),
        )
    return KeyValues(
        last_version=int(document["lastVersion"]),
        tenants={
            tenant_id: {
                key: VersionedValue(entry["value"], int(entry["version"]))
                for key, entry in keys.items()
            }
            for tenant_id, keys in document["tenants"].items()
        },
    )


def _rendered(values: KeyValues) -> bytes:
    """JSON with a line for each key: for people to read, and by the encoder that is written in C
    (the indenting one is not, and took most of the time of a write)."""
    tenants = ",\n".join(
        f"{json.dumps(tenant_id)}: {{\n{_rendered_keys(keys)}\n}}"
        for tenant_id, keys in sorted(values.tenants.items())
        if keys
    )
    head = json.dumps(
        {"format": FORMAT, "version": FORMAT_VERSION, "lastVersion": values.last_version}
    )
    return f'{head[:-1]}, "tenants": {{\n{tenants}\n}}}}\n'.encode()


def _rendered_keys(keys: dict[str, VersionedValue]) -> str:
    return ",\n".join(
        f" {json.dumps(key)}: "
        + json.dumps({"version": stored.version, "value": stored.value}, allow_nan=False)
        for key, stored in sorted(keys.items())
    )

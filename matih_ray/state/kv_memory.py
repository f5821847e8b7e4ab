"""Keys and values in memory: for tests, and the content of the file store.

Versions come from one counter per store, so the version of a deleted key is never given out again:
a writer that read a key before it was deleted and made anew loses its compare-and-set.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from matih_ray.errors import StateConflictError
from matih_ray.model.ids import TenantId
from matih_ray.model.value import JsonValue
from matih_ray.state.base import VersionedValue
from matih_ray.state.json_text import decode, encode
from matih_ray.state.names import MAX_KEY_BYTES, checked_name


def conflict(key: str, expected_version: int) -> StateConflictError:
    """The error of a lost compare-and-set."""
    return StateConflictError(
        f"key {key!r} does not have version {expected_version} any more; read it again",
        key=key,
        expected_version=expected_version,
    )


def check_key(tenant_id: TenantId, key: str) -> None:
    """Raise `ValidationError` unless every store can hold this key."""
    checked_name(tenant_id)
    checked_name(key, MAX_KEY_BYTES)


@dataclass
class KeyValues:
    """All keys of all tenants, and the last version that was given out. Not safe for threads."""

    last_version: int = 0
    tenants: dict[str, dict[str, VersionedValue]] = field(default_factory=dict)

    def get(self, tenant_id: TenantId, key: str) -> VersionedValue | None:
        """The value and its version, or None."""
        return self.tenants.get(tenant_id, {}).get(key)

    def compare_and_set(
        self, tenant_id: TenantId, key: str, value: JsonValue, expected_version: int
    ) -> int:
        """See `KeyValueStore`."""
        stored = self.get(tenant_id, key)
        if (stored.version if stored else 0) != expected_version:
            raise conflict(key, expected_version)
        self.last_version += 1
        keys = self.tenants.setdefault(tenant_id, {})
        keys[key] = VersionedValue(value, self.last_version)
        return self.last_version

    def delete(self, tenant_id: TenantId, key: str) -> bool:
        """Remove a key; tells whether it existed."""
        return self.tenants.get(tenant_id, {}).pop(key, None) is not None

    def keys(self, tenant_id: TenantId, prefix: str) -> list[str]:
        """Keys of a tenant that start with `prefix`, sorted."""
        return sorted(key for key in self.tenants.get(tenant_id, {}) if key.startswith(prefix))


class MemoryKeyValueStore:
    """A `KeyValueStore` that is gone with its process."""

    def __init__(self) -> None:
        self._values = KeyValues()
        self._turn = threading.Lock()

    def get(self, tenant_id: TenantId, key: str) -> VersionedValue | None:
        """The value and its version, or None."""
        check_key(tenant_id, key)
        with self._turn:
            stored = self._values.get(tenant_id, key)
        return stored and VersionedValue(_copy(stored.value), stored.version)

    def compare_and_set(
        self, tenant_id: TenantId, key: str, value: JsonValue, expected_version: int
    ) -> int:
        """Store a value; returns the new version."""
        check_key(tenant_id, key)
        copy = _copy(value)
        with self._turn:
            return self._values.compare_and_set(tenant_id, key, copy, expected_version)

    def delete(self, tenant_id: TenantId, key: str) -> bool:
        """Remove a key; tells whether it existed."""
        check_key(tenant_id, key)
        with self._turn:
            return self._values.delete(tenant_id, key)

    def keys(self, tenant_id: TenantId, prefix: str) -> list[str]:
        """Keys of a tenant that start with `prefix`, sorted."""
        with self._turn:
            return self._values.keys(tenant_id, prefix)

    def close(self) -> None:
        """Nothing to release."""


def _copy(value: JsonValue) -> JsonValue:
    return decode(encode(value))

"""Keys and values in Redis.

A tenant is one hash, field to `<version> <json>`, and one counter of versions that outlives the
fields, so that the version of a deleted key is never given out again. The hash tag keeps both on
one node of a cluster. Compare-and-set is a Lua script rather than WATCH: one round trip, and no
retry loop. The client's own retries are off: a retried write whose first reply was lost would look
like somebody else's.

Redis must keep what it acknowledged: append-only file on, and no eviction (`noeviction`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast
from urllib.parse import quote

from pydantic import SecretStr

from matih_ray.errors import ConfigurationError, MissingExtraError, StateError, StateVersionError
from matih_ray.model.ids import TenantId
from matih_ray.model.value import JsonValue
from matih_ray.state.base import VersionedValue
from matih_ray.state.json_text import decode, encode
from matih_ray.state.kv_memory import check_key, conflict
from matih_ray.state.names import checked_name

# A healthy server answers in a millisecond; beyond this it is treated as gone.
TIMEOUT_S = 5.0

# KEYS: hash, counter. ARGV: field, expected version, JSON. Returns the new version, or 0.
_COMPARE_AND_SET = """
local stored = redis.call('HGET', KEYS[1], ARGV[1])
local version = '0'
if stored then version = string.match(stored, '^%d+') end
if version ~= ARGV[2] then return 0 end
local after = redis.call('INCR', KEYS[2])
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f ', after) .. ARGV[3])
return after
"""


class RedisKeyValueStore:
    """A `KeyValueStore` on a Redis server; safe for threads. The URL may hold a password."""

    def __init__(self, url: SecretStr) -> None:
        try:
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ModuleNotFoundError:
            raise MissingExtraError(
                "a Redis key-value store needs the driver redis: pip install 'matih-ray[redis]'",
                extra="redis",
            ) from None
        self._redis_error = redis.RedisError
        try:
            self._client = redis.Redis.from_url(
                url.get_secret_value(),
                decode_responses=True,
                socket_timeout=TIMEOUT_S,
                socket_connect_timeout=TIMEOUT_S,
                retry=Retry(NoBackoff(), 0),
            )
        except (ValueError, TypeError):
            raise ConfigurationError(
                "MATIH_KV_URL is not a Redis URL; use redis://user:password@host:6379/0",
                setting="kv_url",
            ) from None
        self._compare_and_set = self._client.register_script(_COMPARE_AND_SET)

    def get(self, tenant_id: TenantId, key: str) -> VersionedValue | None:
        """The value and its version, or None."""
        check_key(tenant_id, key)
        with self._translated("read a key"):
            stored = cast("str | None", self._client.hget(_hash(tenant_id), key))
        return None if stored is None else _parsed(stored)

    def compare_and_set(
        self, tenant_id: TenantId, key: str, value: JsonValue, expected_version: int
    ) -> int:
        """Store a value; returns the new version."""
        check_key(tenant_id, key)
        names = [_hash(tenant_id), _counter(tenant_id)]
        with self._translated("store a key"):
            version = self._compare_and_set(keys=names, args=[key, expected_version, encode(value)])
        if not version:
            raise conflict(key, expected_version)
        return int(version)

    def delete(self, tenant_id: TenantId, key: str) -> bool:
        """Remove a key; tells whether it existed."""
        check_key(tenant_id, key)
        with self._translated("delete a key"):
            return bool(self._client.hdel(_hash(tenant_id), key))

    def keys(self, tenant_id: TenantId, prefix: str) -> list[str]:
        """Keys of a tenant that start with `prefix`, sorted."""
        with self._translated("list keys"):
            names = cast("list[str]", self._client.hkeys(_hash(tenant_id)))
        return sorted(name for name in names if name.startswith(prefix))

    def close(self) -> None:
        """Close all connections; harmless to repeat."""
        self._client.close()

    @contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        try:
            yield
        except self._redis_error as error:
            # the driver's text may repeat the address, never needed to know what to do
            raise StateError(
                f"could not {doing}: Redis failed with {type(error).__name__}; check that the "
                "server of MATIH_KV_URL is reachable, accepts the password and has room",
                driver_error=type(error).__name__,
            ) from None


def _hash(tenant_id: TenantId) -> str:
    # quoted, so that a tenant's braces or colons cannot make it another tenant's key
    return f"matih:kv:{{{quote(checked_name(tenant_id), safe='')}}}:values"


def _counter(tenant_id: TenantId) -> str:
    return f"matih:kv:{{{quote(tenant_id, safe='')}}}:version"


def _parsed(stored: str) -> VersionedValue:
    version, _, text = stored.partition(" ")
    if not version.isdecimal():
        raise StateVersionError(
            "a stored value has no version; something else writes to this Redis database"
        )
    return VersionedValue(decode(text), int(version))

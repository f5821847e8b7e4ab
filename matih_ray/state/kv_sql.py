"""Keys and values in the metadata database: one transaction per write, no server of its own.

A deleted key keeps its row and version without a value, and goes on from there when it is made
anew, so that no version is given out twice; there are as many such rows as streams ever reset.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select, update

from matih_ray.model.ids import TenantId
from matih_ray.model.value import JsonValue
from matih_ray.state.base import VersionedValue
from matih_ray.state.engine import Database
from matih_ray.state.json_text import decode, encode
from matih_ray.state.kv_memory import check_key, conflict
from matih_ray.state.tables import kv


class SqlKeyValueStore:
    """A `KeyValueStore` in an open, upgraded metadata database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, tenant_id: TenantId, key: str) -> VersionedValue | None:
        """The value and its version, or None."""
        check_key(tenant_id, key)
        query = select(kv.c.value, kv.c.version).where(*_is_key(tenant_id, key), _EXISTS)
        with self._database.read("read a key") as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else VersionedValue(decode(row.value), row.version)

    def compare_and_set(
        self, tenant_id: TenantId, key: str, value: JsonValue, expected_version: int
    ) -> int:
        """Store a value; returns the new version."""
        check_key(tenant_id, key)
        text = encode(value)
        statement = (
            self._create(tenant_id, key, text)
            if expected_version == 0
            else update(kv)
            .where(*_is_key(tenant_id, key), _EXISTS, kv.c.version == expected_version)
            .values(value=text, version=expected_version + 1)
            .returning(kv.c.version)
        )
        with self._database.write("store a key") as connection:
            version: int | None = connection.scalar(statement)
        if version is None:
            raise conflict(key, expected_version)
        return version

    def _create(self, tenant_id: TenantId, key: str, text: str) -> Any:
        """Inserts the key, or revives a deleted one with its next version; else returns nothing."""
        return (
            self._database.insert(kv)
            .values(tenant_id=tenant_id, key=key, value=text, version=1)
            .on_conflict_do_update(
                index_elements=list(kv.primary_key),
                set_={"value": text, "version": kv.c.version + 1},
                where=kv.c.value.is_(None),
            )
            .returning(kv.c.version)
        )

    def delete(self, tenant_id: TenantId, key: str) -> bool:
        """Remove a key; tells whether it existed."""
        check_key(tenant_id, key)
        statement = update(kv).where(*_is_key(tenant_id, key), _EXISTS).values(value=None)
        with self._database.write("delete a key") as connection:
            return connection.execute(statement).rowcount > 0

    def keys(self, tenant_id: TenantId, prefix: str) -> list[str]:
        """Keys of a tenant that start with `prefix`, sorted."""
        # not LIKE: it ignores case on SQLite, and a prefix may hold its wildcards
        starts = func.substr(kv.c.key, 1, len(prefix)) == prefix if prefix else _EXISTS
        query = select(kv.c.key).where(kv.c.tenant_id == tenant_id, _EXISTS, starts)
        with self._database.read("list keys") as connection:
            return sorted(connection.scalars(query))

    def close(self) -> None:
        """Close all connections; harmless to repeat."""
        self._database.close()


_EXISTS = kv.c.value.is_not(None)


def _is_key(tenant_id: TenantId, key: str) -> tuple[Any, Any]:
    return (kv.c.tenant_id == tenant_id, kv.c.key == key)

"""Requests that may be repeated: the same key and the same body give the same resource.

The key is claimed before anything else is done, together with the identifier of what will be made.
A claim whose holder died is taken over after a while; since the identifier is part of the claim,
even then there is one resource.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from matih_ray.control.ports import Ports
from matih_ray.errors import ConflictError, MatihError, StateConflictError, ValidationError
from matih_ray.model.ids import TenantId
from matih_ray.model.value import JsonValue, Value

MAX_KEY_CHARS = 255
# Longer than any request may take.
TAKEN_OVER_AFTER = timedelta(minutes=5)


@dataclass(frozen=True)
class Claim:
    """The right to make one resource. `done` says that it was made before."""

    resource_id: str
    done: bool = False


class _Stored(Value):
    resource_id: str
    digest: str
    claimed_at: datetime
    done: bool = False


@contextmanager
def claimed(
    ports: Ports, tenant_id: TenantId, kind: str, key: str | None, body: Value
) -> Iterator[Claim]:
    """Claim a key for as long as the block lasts; it is free again if the block raises.

    Raises:
        ValidationError: The key is too long or empty.
        ConflictError: The key belongs to another body, or the same request is under way.
    """
    if key is None:
        yield Claim(_new_id(ports))
        return
    if not 0 < len(key) <= MAX_KEY_CHARS:
        raise ValidationError(
            f"Idempotency-Key must have 1 to {MAX_KEY_CHARS} characters", field="Idempotency-Key"
        )
    name = _name(kind, key)
    digest = _digest(body)
    stored, version = _claim(ports, tenant_id, name, digest)
    if stored.done:
        yield Claim(stored.resource_id, done=True)
        return
    try:
        yield Claim(stored.resource_id)
    except BaseException:
        with suppress(MatihError):  # else it is taken over later
            ports.kv.delete(tenant_id, name)
        raise
    after = stored.model_copy(update={"done": True})
    ports.kv.compare_and_set(tenant_id, name, after.to_dict(), version)


def claim_of(ports: Ports, tenant_id: TenantId, kind: str, key: str) -> Claim | None:
    """What a key was claimed for, whoever holds it; None if it is free."""
    found = ports.kv.get(tenant_id, _name(kind, key))
    if found is None:
        return None
    assert isinstance(found.value, dict)  # noqa: S101 we wrote it
    stored = _Stored.from_json(found.value)
    return Claim(stored.resource_id, stored.done)


def release(ports: Ports, tenant_id: TenantId, kind: str, key: str) -> None:
    """Free a key. Only for who knows that its holder has died without making anything."""
    ports.kv.delete(tenant_id, _name(kind, key))


def _name(kind: str, key: str) -> str:
    return f"idempotency::{kind}::{hashlib.sha256(key.encode()).hexdigest()}"


def _claim(ports: Ports, tenant_id: TenantId, name: str, digest: str) -> tuple[_Stored, int]:
    now = ports.clock()
    fresh = _Stored(resource_id=_new_id(ports), digest=digest, claimed_at=now)
    found = ports.kv.get(tenant_id, name)
    version = 0
    if found is not None:
        assert isinstance(found.value, dict)  # noqa: S101 we wrote it
        stored = _Stored.from_json(found.value)
        if stored.digest != digest:
            raise ConflictError(
                "this Idempotency-Key was used for another request; choose a new one",
                field="Idempotency-Key",
            )
        if stored.done:
            return stored, found.version
        if now - stored.claimed_at < TAKEN_OVER_AFTER:
            raise _under_way()
        fresh = stored.model_copy(update={"claimed_at": now})
        version = found.version
    value: JsonValue = fresh.to_dict()
    try:
        return fresh, ports.kv.compare_and_set(tenant_id, name, value, version)
    except StateConflictError:
        raise _under_way() from None


def _under_way() -> ConflictError:
    return ConflictError(
        "the same request is under way; ask again when it has been answered",
        field="Idempotency-Key",
    )


def _digest(body: Value) -> str:
    """Tells bodies apart by all but their secrets, from whose digest they could be guessed."""
    return hashlib.sha256(body.to_json().encode()).hexdigest()


def _new_id(ports: Ports) -> str:
    digits = ports.new_id()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))

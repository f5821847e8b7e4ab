"""Sessions in Redis: they survive restarts, and any replica can go on with any of them.

A session is a hash of its JSON and of the highest fence that was given out; a sorted set orders all
by their last use. A turn holds a lock that runs out when its holder no longer renews it, and a
fence: whoever stood still for longer than the lock lasts, and comes back, can store nothing any
more (M. Kleppmann, "How to do distributed locking", 2016). The scripts are atomic; the tag in the
keys keeps them on one node of a cluster.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Any, cast

from pydantic import SecretStr

from matih_ray.agent.sessions import (
    IDLE_EXPIRY,
    MAX_SESSIONS,
    TURN_WAIT_S,
    LocalTurns,
    Session,
    SessionKey,
    full,
    overtaken,
    still_busy,
    unknown,
)
from matih_ray.errors import ConfigurationError, MissingExtraError, NotFoundError, StateError
from matih_ray.model.ids import TenantId

# A healthy server answers in a millisecond; beyond this it is treated as gone.
TIMEOUT_S = 5.0
# Connections of one replica; more callers wait for one to be free.
MAX_CONNECTIONS = 64
# How long the sessions of a replica that died stay locked. Renewing three times in it lets two
# renewals be lost.
LOCK_S = 6.0
# Asking costs a tenth of a millisecond, and a person does not notice this.
ASK_AGAIN_S = 0.05
# A backstop where no replica is left to evict: after that, Redis forgets by itself.
FORGOTTEN_AFTER_S = int(2 * IDLE_EXPIRY.total_seconds())

_TAG = "{matih:agent}"
_ORDER = f"{_TAG}:sessions"

# KEYS: order, session. ARGV: member, time of use, JSON, most sessions, seconds to live.
_CREATE = """
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[4]) then return 0 end
redis.call('HSET', KEYS[2], 'value', ARGV[3], 'fence', '0')
redis.call('EXPIRE', KEYS[2], ARGV[5])
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
return 1
"""
# KEYS: order, session. ARGV: member, time of use, JSON, fence, seconds to live.
_PUT = """
local fence = redis.call('HGET', KEYS[2], 'fence')
if not fence then return 0 end
if fence ~= ARGV[4] then return -1 end
redis.call('HSET', KEYS[2], 'value', ARGV[3])
redis.call('EXPIRE', KEYS[2], ARGV[5])
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
return 1
"""
# KEYS: session, lock. ARGV: milliseconds. Returns the fence, 0 if it is locked, -1 if unknown.
_LOCK = """
if redis.call('EXISTS', KEYS[1]) == 0 then return -1 end
if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
local fence = redis.call('HINCRBY', KEYS[1], 'fence', 1)
redis.call('SET', KEYS[2], fence, 'PX', ARGV[1])
return fence
"""
# KEYS: lock. ARGV: fence, milliseconds; 0 releases it.
_HOLD = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] == '0' then return redis.call('DEL', KEYS[1]) end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
# KEYS: order, session, lock. ARGV: member, time before which it must have been used last.
_EVICT = """
local used = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not used or tonumber(used) >= tonumber(ARGV[2]) then return 0 end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[2], KEYS[3])
return 1
"""
# Sessions that are evicted at a time: opening one evicts too, and somebody waits for it.
EVICTED_AT_ONCE = 1000


class RedisSessions:
    """A `SessionStore` on a Redis server. The URL may hold a password."""

    def __init__(self, url: SecretStr, max_sessions: int = MAX_SESSIONS) -> None:
        try:
            from redis import RedisError
            from redis.asyncio import BlockingConnectionPool, Redis
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff
        except ModuleNotFoundError:
            raise MissingExtraError(
                "sessions in Redis need the driver redis: pip install 'matih-ray[redis]'",
                extra="redis",
            ) from None
        self._redis_error = RedisError
        try:
            pool = BlockingConnectionPool.from_url(
                url.get_secret_value(),
                decode_responses=True,
                max_connections=MAX_CONNECTIONS,
                timeout=TIMEOUT_S,
                socket_timeout=TIMEOUT_S,
                socket_connect_timeout=TIMEOUT_S,
                retry=Retry(NoBackoff(), 0),
            )
        except (ValueError, TypeError):
            raise ConfigurationError(
                "MATIH_AGENT_SESSIONS_URL is not a Redis URL; use redis://user:password@host:6379/0",
                setting="agent_sessions_url",
            ) from None
        self._client = Redis(connection_pool=pool)
        scripts = (_CREATE, _PUT, _LOCK, _HOLD, _EVICT)
        self._create, self._put, self._lock, self._hold, self._evict = (
            cast("Any", self._client.register_script(text)) for text in scripts
        )
        self._turns = LocalTurns()
        self._max = max_sessions

    async def create(self, session: Session) -> None:
        """See `SessionStore`."""
        args = [*_stored(session), self._max, FORGOTTEN_AFTER_S]
        keys = [_ORDER, _key(session.session_id)]
        if not await self._asked("open a session", self._create(keys=keys, args=args)):
            raise full(self._max)

    async def get(self, session_id: str) -> Session:
        """See `SessionStore`."""
        asked = self._client.hget(_key(session_id), "value")
        stored = await self._asked("read a session", cast("Awaitable[str | None]", asked))
        if stored is None:
            raise unknown()
        return Session.from_json(stored)

    @asynccontextmanager
    async def turn(self, session_id: str) -> AsyncIterator[int]:
        """See `SessionStore`."""
        async with self._turns.of(session_id):
            fence = await self._locked(session_id)
            renewing = asyncio.create_task(self._renew(session_id, fence))
            try:
                yield fence
            finally:
                renewing.cancel()
                with suppress(StateError):  # it runs out
                    await self._held(session_id, fence, 0)

    async def put(self, session: Session, fence: int) -> None:
        """See `SessionStore`."""
        args = [*_stored(session), fence, FORGOTTEN_AFTER_S]
        keys = [_ORDER, _key(session.session_id)]
        done = await self._asked("store a session", self._put(keys=keys, args=args))
        if done == 0:
            raise unknown()
        if done < 0:
            raise overtaken()

    async def delete(self, session_id: str) -> bool:
        """See `SessionStore`."""
        try:
            session = await self.get(session_id)
        except NotFoundError:
            return False
        return await self._removed(_member(session.tenant_id, session_id), "inf")

    async def evict(self, unused_since: datetime) -> list[SessionKey]:
        """See `SessionStore`."""
        before = unused_since.timestamp()
        found = await self._asked(
            "list old sessions",
            cast(
                "Awaitable[list[str]]",
                self._client.zrange(
                    _ORDER,
                    "-inf",
                    f"({before}",
                    byscore=True,
                    offset=0,
                    num=EVICTED_AT_ONCE,
                ),
            ),
        )
        return [_key_of(member) for member in found if await self._removed(member, str(before))]

    async def close(self) -> None:
        """Close all connections; harmless to repeat."""
        await self._client.aclose(close_connection_pool=True)

    async def _removed(self, member: str, before: str) -> bool:
        key = _key(_key_of(member).session_id)
        keys = [_ORDER, key, f"{key}:lock"]
        return bool(
            await self._asked("remove a session", self._evict(keys=keys, args=[member, before]))
        )

    async def _locked(self, session_id: str) -> int:
        """The fence, when nobody holds the lock any more."""
        keys = [_key(session_id), f"{_key(session_id)}:lock"]
        deadline = time.monotonic() + TURN_WAIT_S
        while True:
            asked = self._lock(keys=keys, args=[int(LOCK_S * 1000)])
            fence = int(await self._asked("lock a session", asked))
            if fence > 0:
                return fence
            if fence < 0:
                raise unknown()
            if time.monotonic() > deadline:
                raise still_busy()
            await asyncio.sleep(ASK_AGAIN_S)

    async def _renew(self, session_id: str, fence: int) -> None:
        while True:
            await asyncio.sleep(LOCK_S / 3)
            with suppress(StateError):  # tried again in time, or the fence tells
                await self._held(session_id, fence, int(LOCK_S * 1000))

    async def _held(self, session_id: str, fence: int, for_ms: int) -> None:
        asked = self._hold(keys=[f"{_key(session_id)}:lock"], args=[fence, for_ms])
        await self._asked("keep a session's lock", asked)

    async def _asked(self, doing: str, asked: Awaitable[Any]) -> Any:
        try:
            return await asked
        except (self._redis_error, asyncio.TimeoutError) as error:
            # the driver's text may repeat the address, never needed to know what to do
            raise StateError(
                f"could not {doing}: Redis failed with {type(error).__name__}; check "
                "that the server of MATIH_AGENT_SESSIONS_URL is reachable, accepts the password "
                "and has room",
                driver_error=type(error).__name__,
            ) from None


def _stored(session: Session) -> list[str | float]:
    member = _member(session.tenant_id, session.session_id)
    return [member, session.used_at.timestamp(), session.to_json()]


def _key(session_id: str) -> str:
    return f"{_TAG}:{session_id}"


def _member(tenant_id: TenantId, session_id: str) -> str:
    return json.dumps([tenant_id, session_id])


def _key_of(member: str) -> SessionKey:
    tenant_id, session_id = json.loads(member)
    return SessionKey(TenantId(tenant_id), session_id)

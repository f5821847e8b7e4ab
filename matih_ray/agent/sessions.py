"""Sessions: a user's conversation with its redacted history, and where they are kept.

The port is small on purpose: a store keeps values, lets one turn of a session happen at a time,
and refuses what a turn that lost its right to write wants to store. What a turn is, it does not
know.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, Protocol
from weakref import WeakValueDictionary

from matih_ray.agent import sentences
from matih_ray.agent.conversation import Conversation, State
from matih_ray.agent.events import LongEffect
from matih_ray.errors import ConflictError, NotFoundError, SessionsFullError
from matih_ray.model.ids import TenantId
from matih_ray.model.value import Value

# Seed 000: sessions expire after 24 hours of inactivity, 10,000 per replica, looked through every 5
# minutes.
IDLE_EXPIRY = timedelta(hours=24)
MAX_SESSIONS = 10_000
EVICT_EVERY_S = 300.0
# Turns that are kept of one session; nobody reads further back.
MAX_TURNS = 200
# The longest turn: a connection test, a discovery, and the start of a thousand runs.
TURN_WAIT_S = 240.0


class Turn(Value):
    """One message, redacted. `state` is the one after it."""

    role: Literal["user", "agent"]
    message: str
    state: State
    at: datetime


class Session(Value):
    """One user's conversation; holds no secret, `has_secrets` says that the vault knows some.

    `unfinished` are effects that are being carried out. Outside of a turn there are none, unless
    the process that carried them out has died.
    """

    session_id: str
    tenant_id: TenantId
    subject: str
    conversation: Conversation
    history: tuple[Turn, ...] = ()
    unfinished: tuple[LongEffect, ...] = ()
    has_secrets: bool = False
    created_at: datetime
    used_at: datetime


@dataclass(frozen=True)
class SessionKey:
    """What is left of a session that was evicted."""

    tenant_id: TenantId
    session_id: str


class SessionStore(Protocol):
    """Where sessions are kept; the contract is in tests/agent/test_stores.py."""

    async def create(self, session: Session) -> None:
        """Add a session. Raises `SessionsFullError`."""

    async def get(self, session_id: str) -> Session:
        """Raises `NotFoundError` when it is unknown."""

    def turn(self, session_id: str) -> AbstractAsyncContextManager[int]:
        """The right to change a session, for as long as the block lasts, and its fence: a number
        that grows with each turn.

        Raises:
            NotFoundError: It is unknown.
            ConflictError: Another turn takes longer than `TURN_WAIT_S`.
        """

    async def put(self, session: Session, fence: int) -> None:
        """Replace a session.

        Raises:
            NotFoundError: It is gone.
            ConflictError: A later turn has begun.
        """

    async def delete(self, session_id: str) -> bool: ...

    async def evict(self, unused_since: datetime) -> list[SessionKey]:
        """Remove sessions that were last used before."""

    async def close(self) -> None: ...


class LocalTurns:
    """One turn of a session at a time, among the tasks of one event loop."""

    def __init__(self) -> None:
        # a lock is there as long as somebody holds it or waits for it
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def of(self, session_id: str) -> AsyncIterator[None]:
        """Wait for those before. Raises `ConflictError`."""
        lock = self._locks.get(session_id)
        if lock is None:
            lock = self._locks[session_id] = asyncio.Lock()
        if lock.locked():
            try:
                await asyncio.wait_for(lock.acquire(), TURN_WAIT_S)
            except asyncio.TimeoutError:
                raise still_busy() from None
        else:
            await lock.acquire()
        try:
            yield
        finally:
            lock.release()


@dataclass
class _Kept:
    session: Session
    fence: int = 0


class MemorySessions:
    """Sessions in this process, least recently used first."""

    def __init__(self, max_sessions: int = MAX_SESSIONS) -> None:
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._turns = LocalTurns()
        self._max = max_sessions

    async def create(self, session: Session) -> None:
        """See `SessionStore`."""
        if len(self._kept) >= self._max:
            raise full(self._max)
        self._kept[session.session_id] = _Kept(session)

    async def get(self, session_id: str) -> Session:
        """See `SessionStore`."""
        return self._found(session_id).session

    @asynccontextmanager
    async def turn(self, session_id: str) -> AsyncIterator[int]:
        """See `SessionStore`."""
        async with self._turns.of(session_id):
            kept = self._found(session_id)
            kept.fence += 1
            yield kept.fence

    async def put(self, session: Session, fence: int) -> None:
        """See `SessionStore`."""
        kept = self._found(session.session_id)
        if kept.fence != fence:
            raise overtaken()
        kept.session = session
        self._kept.move_to_end(session.session_id)

    async def delete(self, session_id: str) -> bool:
        """See `SessionStore`."""
        return self._kept.pop(session_id, None) is not None

    async def evict(self, unused_since: datetime) -> list[SessionKey]:
        """See `SessionStore`."""
        evicted: list[SessionKey] = []
        while self._kept:
            oldest = next(iter(self._kept.values())).session
            if oldest.used_at >= unused_since:
                break
            del self._kept[oldest.session_id]
            evicted.append(SessionKey(oldest.tenant_id, oldest.session_id))
        return evicted

    async def close(self) -> None:
        """See `SessionStore`."""

    def _found(self, session_id: str) -> _Kept:
        kept = self._kept.get(session_id)
        if kept is None:
            raise unknown()
        return kept


def unknown() -> NotFoundError:
    """There is no such session, or it is somebody else's, which is told alike."""
    return NotFoundError(sentences.NO_SESSION)


def full(max_sessions: int) -> SessionsFullError:
    """There is no room for another one."""
    return SessionsFullError(sentences.full(max_sessions), max_sessions=max_sessions)


def still_busy() -> ConflictError:
    """An earlier message has not been answered for minutes."""
    return ConflictError(sentences.STILL_BUSY)


def overtaken() -> ConflictError:
    """This process stood still for so long that another one took the session over."""
    return ConflictError(sentences.OVERTAKEN)

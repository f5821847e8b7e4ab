"""Sessions: a user's conversation with its redacted history, and where they are kept."""

from __future__ import annotations

from collections import OrderedDict
from datetime import datetime, timedelta
from typing import Literal, Protocol

from matih_ray.agent.conversation import Conversation, State
from matih_ray.errors import NotFoundError, SessionsFullError
from matih_ray.model.ids import TenantId
from matih_ray.model.value import Value

# Seed 000: sessions expire after 24 hours of inactivity, 10,000 per replica, looked through every 5
# minutes.
IDLE_EXPIRY = timedelta(hours=24)
MAX_SESSIONS = 10_000
EVICT_EVERY_S = 300.0
# Turns that are kept of one session; nobody reads further back.
MAX_TURNS = 200


class Turn(Value):
    """One message, redacted. `state` is the one after it."""

    role: Literal["user", "agent"]
    message: str
    state: State
    at: datetime


class Session(Value):
    """One user's conversation; holds no secret."""

    session_id: str
    tenant_id: TenantId
    subject: str
    conversation: Conversation
    history: tuple[Turn, ...] = ()
    created_at: datetime
    used_at: datetime


class SessionStore(Protocol):
    """Where sessions are kept. Calls are short and block nobody."""

    def create(self, session: Session) -> None:
        """Add a session. Raises `SessionsFullError`."""

    def get(self, session_id: str) -> Session:
        """Raises `NotFoundError` when it is unknown."""

    def put(self, session: Session) -> None:
        """Replace a session. Raises `NotFoundError` when it is gone."""

    def delete(self, session_id: str) -> bool: ...

    def evict(self, unused_since: datetime) -> list[str]:
        """Remove sessions that were last used before; returns their ids."""


class MemorySessions:
    """Sessions in this process, least recently used first."""

    def __init__(self, max_sessions: int = MAX_SESSIONS) -> None:
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._max = max_sessions

    def create(self, session: Session) -> None:
        """See `SessionStore`."""
        if len(self._sessions) >= self._max:
            raise SessionsFullError(
                f"this server has {self._max} conversations open and takes no more; try again "
                "later, or end one of yours",
                max_sessions=self._max,
            )
        self._sessions[session.session_id] = session

    def get(self, session_id: str) -> Session:
        """See `SessionStore`."""
        found = self._sessions.get(session_id)
        if found is None:
            raise _unknown()
        return found

    def put(self, session: Session) -> None:
        """See `SessionStore`."""
        if session.session_id not in self._sessions:
            raise _unknown()
        self._sessions[session.session_id] = session
        self._sessions.move_to_end(session.session_id)

    def delete(self, session_id: str) -> bool:
        """See `SessionStore`."""
        return self._sessions.pop(session_id, None) is not None

    def evict(self, unused_since: datetime) -> list[str]:
        """See `SessionStore`."""
        evicted: list[str] = []
        while self._sessions:
            oldest = next(iter(self._sessions.values()))
            if oldest.used_at >= unused_since:
                break
            self.delete(oldest.session_id)
            evicted.append(oldest.session_id)
        return evicted


def _unknown() -> NotFoundError:
    return NotFoundError("no such session; it may have expired")

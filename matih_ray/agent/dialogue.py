"""Sessions and turns: what the API and the tests talk to.

One message of a session at a time. The machine runs on the event loop, it needs microseconds;
effects run in threads with deadlines.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import cached_property
from typing import Protocol, TypeVar

from matih_ray.agent.conversation import Conversation, State
from matih_ray.agent.effects import Backend
from matih_ray.agent.events import (
    Connect,
    Discover,
    DropSecrets,
    Effect,
    Event,
    Execute,
    KeepSecrets,
    Opened,
    Pending,
    Remove,
    Said,
)
from matih_ray.agent.machine import advance, view_data, view_options
from matih_ray.agent.redaction import redact_echoes, redact_message, secrets_in
from matih_ray.agent.sessions import (
    IDLE_EXPIRY,
    MAX_TURNS,
    MemorySessions,
    Session,
    SessionStore,
    Turn,
)
from matih_ray.agent.steps import Step, Templates
from matih_ray.agent.templates import BUILT_IN, Template, derived
from matih_ray.agent.vault import Vault
from matih_ray.control.authorization import Action, Principal, authorize
from matih_ray.control.connector_types import connector_type
from matih_ray.control.ports import Ports, new_id
from matih_ray.control.source_calls import SourceCalls
from matih_ray.errors import MissingExtraError, NotFoundError, SourceTimeoutError
from matih_ray.model.value import JsonValue, Value
from matih_ray.telemetry import REDACTED

Result = TypeVar("Result")

# A connector's own test takes 30 s at most and is saved or taken back after it.
CONNECT_S = 60.0
DISCOVER_S = 40.0
EXECUTE_S = 120.0
# Connect, discover, and some: a turn that wants more is a fault of the machine.
MAX_EFFECTS = 12


class Runner(Protocol):
    """Runs calls off the event loop."""

    async def run(self, what: str, deadline_s: float, call: Callable[[], Result]) -> Result:
        """The result of `call`. Raises `SourceTimeoutError` when it takes longer."""


class Answer(Value):
    """What a client gets (seed 000)."""

    session_id: str
    state: State
    message: str
    options: tuple[str, ...] = ()
    data: dict[str, JsonValue] = {}


class Dialogue:
    """All conversations of one process."""

    def __init__(
        self,
        ports: Ports,
        calls: SourceCalls,
        runner: Runner,
        sessions: SessionStore | None = None,
    ) -> None:
        self._ports = ports
        self._calls = calls
        self._runner = runner
        self.sessions = sessions or MemorySessions()
        self.vault = Vault()
        self._locks: dict[str, asyncio.Lock] = {}

    @cached_property
    def templates(self) -> Templates:
        """What can be talked about in this installation."""
        known: list[Template] = list(BUILT_IN)
        unavailable: dict[str, str] = {}
        types = self._ports.registry.names("sources")
        for template in BUILT_IN:
            if template.type not in types:
                unavailable[template.type] = "its connector is not installed."
        for name in types:
            try:
                type_ = connector_type(self._ports, name)
            except MissingExtraError as error:
                unavailable[name] = error.message
                if all(template.type != name for template in BUILT_IN):
                    known.append(Template(name, name, (), aliases=(name.lower(),)))
                continue
            if all(template.type != name for template in BUILT_IN):
                known.append(derived(type_))
        return Templates(tuple(known), unavailable)

    async def open(self, principal: Principal) -> Answer:
        """A new session.

        Raises:
            ForbiddenError: No role of the user lets them read anything.
            SessionsFullError: There are too many.
        """
        authorize(principal, Action.READ, principal.tenant_id)
        self.evict()
        now = self._ports.clock()
        step = advance(Conversation(), Opened(), self.templates)
        session = Session(
            session_id=new_id(),
            tenant_id=principal.tenant_id,
            subject=principal.subject,
            conversation=step.conversation,
            history=self._turns(step.conversation, agent=step.said),
            created_at=now,
            used_at=now,
        )
        self.sessions.create(session)
        return self._answer(session, step.said)

    async def say(self, principal: Principal, session_id: str, text: str) -> Answer:
        """One message of the user. Messages of one session are answered one after the other.

        Raises:
            NotFoundError: No such session of this user.
        """
        self.show(principal, session_id)
        async with self._locks.setdefault(session_id, asyncio.Lock()):
            session = self.show(principal, session_id)
            step = advance(session.conversation, Said(text), self.templates)
            user = self._redacted(session_id, text, step)
            conversation, said = await self._followed(principal, session_id, step)
            shown = tuple(redact_echoes(s, self.vault.echoes(session_id), self.vault.key)
                          for s in said)  # fmt: skip
            turns = (*session.history, *self._turns(conversation, user=user, agent=shown))
            after = session.model_copy(
                update={
                    "conversation": conversation,
                    "history": turns[-MAX_TURNS:],
                    "used_at": self._ports.clock(),
                }
            )
            self.sessions.put(after)
            return self._answer(after, shown)

    def show(self, principal: Principal, session_id: str) -> Session:
        """A session with its redacted history. Raises `NotFoundError`, also for those of others."""
        session = self.sessions.get(session_id)
        is_own = (session.tenant_id, session.subject) == (principal.tenant_id, principal.subject)
        if not is_own or self._ports.clock() - session.used_at > IDLE_EXPIRY:
            raise NotFoundError("no such session; it may have expired")
        return session

    async def close(self, principal: Principal, session_id: str) -> None:
        """End a session; a connector that nothing was loaded with is removed."""
        self.show(principal, session_id)
        async with self._locks.setdefault(session_id, asyncio.Lock()):
            session = self.show(principal, session_id)
            known = session.conversation
            if known.connector_id is not None and known.state is not State.EXECUTE:
                await self._carried_out(principal, session_id, known, Remove(known.connector_id))
            self.sessions.delete(session_id)
            self._forget(session_id)

    def answer_of(self, session: Session) -> Answer:
        """The last thing that was said in a session."""
        last = next((t.message for t in reversed(session.history) if t.role == "agent"), "")
        return self._answer(session, (last,))

    def evict(self) -> int:
        """Remove sessions that expired; returns how many."""
        evicted = self.sessions.evict(self._ports.clock() - IDLE_EXPIRY)
        for session_id in evicted:
            self._forget(session_id)
        return len(evicted)

    async def _followed(
        self, principal: Principal, session_id: str, step: Step
    ) -> tuple[Conversation, tuple[str, ...]]:
        """Carry out effects, and what follows from their outcomes, until nothing is left."""
        said = list(step.said)
        waiting = list(step.effects)
        conversation = step.conversation
        for _ in range(MAX_EFFECTS):
            if not waiting:
                return conversation, tuple(said)
            event = await self._carried_out(principal, session_id, conversation, waiting.pop(0))
            if event is not None:
                following = advance(conversation, event, self.templates)
                conversation = following.conversation
                said += following.said
                waiting += following.effects
        raise AssertionError("a turn has too many effects")

    async def _carried_out(
        self, principal: Principal, session_id: str, known: Conversation, effect: Effect
    ) -> Event | None:
        backend = Backend(principal, self._ports, self._calls, session_id)
        match effect:
            case KeepSecrets(secrets):
                self.vault.keep(session_id, secrets)
                return None
            case DropSecrets():
                self.vault.drop(session_id)
                return None
            case Remove(connector_id):
                await self._run("removing", CONNECT_S, lambda: backend.remove(connector_id))
                return None
            case Connect():
                template = self.templates.of(known.type)
                secrets = self.vault.held(session_id)
                return await self._run(
                    "the connection test",
                    CONNECT_S,
                    lambda: backend.connect(known, template, secrets),
                )
            case Discover(is_new):
                return await self._run(
                    "discovery", DISCOVER_S, lambda: backend.discover(known, is_new=is_new)
                )
            case Execute():
                return await self._run("starting", EXECUTE_S, lambda: backend.execute(known))

    async def _run(
        self, what: str, deadline_s: float, call: Callable[[], Result]
    ) -> Result | Pending:
        waiting: Awaitable[Result] = self._runner.run(what, deadline_s, call)
        try:
            return await waiting
        except SourceTimeoutError:
            return Pending()

    def _redacted(self, session_id: str, text: str, step: Step) -> str:
        secrets = (*step.secrets, *secrets_in(text))
        self.vault.note(session_id, secrets)
        if step.is_hidden:
            return REDACTED
        return redact_message(text, secrets, self.vault.echoes(session_id), self.vault.key)

    def _turns(
        self, conversation: Conversation, *, user: str | None = None, agent: tuple[str, ...]
    ) -> tuple[Turn, ...]:
        now, state = self._ports.clock(), conversation.state
        answer = Turn(role="agent", message="\n".join(agent), state=state, at=now)
        if user is None:
            return (answer,)
        return (Turn(role="user", message=user, state=state, at=now), answer)

    def _answer(self, session: Session, said: tuple[str, ...]) -> Answer:
        conversation = session.conversation
        return Answer(
            session_id=session.session_id,
            state=conversation.state,
            message="\n".join(said),
            options=view_options(conversation, self.templates),
            data=view_data(conversation, self.templates),
        )

    def _forget(self, session_id: str) -> None:
        self.vault.forget(session_id)
        self._locks.pop(session_id, None)

"""Sessions and their messages: what the API and the tests talk to.

The machine runs on the event loop, it needs microseconds; effects run in threads with deadlines. A
turn goes on when whoever waits for its answer has left: half a turn helps nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from functools import cached_property
from typing import Any

from matih_ray.agent import sentences
from matih_ray.agent.commands import Command, command_in
from matih_ray.agent.conversation import Conversation, State
from matih_ray.agent.events import Opened, Remove
from matih_ray.agent.machine import advance, view_data, view_options
from matih_ray.agent.model import LanguageModel
from matih_ray.agent.sessions import (
    IDLE_EXPIRY,
    MemorySessions,
    Session,
    SessionKey,
    SessionStore,
    Turn,
    unknown,
)
from matih_ray.agent.steps import Templates
from matih_ray.agent.templates import BUILT_IN, Template, derived
from matih_ray.agent.turns import OneTurn, Progress, Result, Runner, Workshop
from matih_ray.agent.vault import Contents, MemoryVault, Vault
from matih_ray.control.authorization import Action, Principal, authorize
from matih_ray.control.connector_types import connector_type
from matih_ray.control.ports import Ports, new_id
from matih_ray.control.source_calls import SourceCalls
from matih_ray.errors import MissingExtraError
from matih_ray.model.value import JsonValue, Value


class Answer(Value):
    """What a client gets (seed 000)."""

    session_id: str
    state: State
    message: str
    options: tuple[str, ...] = ()
    data: dict[str, JsonValue] = {}


class Dialogue:
    """The conversations of one process."""

    def __init__(
        self,
        ports: Ports,
        calls: SourceCalls,
        runner: Runner,
        sessions: SessionStore | None = None,
        vault: Vault | None = None,
        model: LanguageModel | None = None,
    ) -> None:
        self.ports = ports
        self._calls = calls
        self._runner = runner
        self.sessions = sessions or MemorySessions(ports.settings.agent_sessions_max)
        self.vault = vault or MemoryVault()
        self._model = model
        self._turns: set[asyncio.Task[Any]] = set()

    @cached_property
    def templates(self) -> Templates:
        """What can be talked about in this installation."""
        known: list[Template] = list(BUILT_IN)
        unavailable: dict[str, str] = {}
        types = self.ports.registry.names("sources")
        for template in BUILT_IN:
            if template.type not in types:
                unavailable[template.type] = sentences.NOT_INSTALLED
        for name in types:
            try:
                type_ = connector_type(self.ports, name)
            except MissingExtraError as error:
                unavailable[name] = error.message
                if all(template.type != name for template in BUILT_IN):
                    known.append(Template(name, name, (), aliases=(name.lower(),)))
                continue
            if all(template.type != name for template in BUILT_IN):
                known.append(derived(type_))
        return Templates(tuple(known), unavailable)

    def load_templates(self) -> None:
        """Import all connectors now: it takes seconds, for which later nobody must wait."""
        _ = self.templates

    async def open(self, principal: Principal) -> Answer:
        """A new session.

        Raises:
            ForbiddenError: No role of the user lets them read anything.
            SessionsFullError: There are too many.
        """
        authorize(principal, Action.READ, principal.tenant_id)
        await self.evict()
        now = self.ports.clock()
        step = advance(Conversation(), Opened(), self.templates)
        message = "\n".join(step.said)
        session = Session(
            session_id=new_id(),
            tenant_id=principal.tenant_id,
            subject=principal.subject,
            conversation=step.conversation,
            history=(Turn(role="agent", message=message, state=step.conversation.state, at=now),),
            created_at=now,
            used_at=now,
        )
        await self.sessions.create(session)
        return self._answer(session, message)

    async def say(
        self,
        principal: Principal,
        session_id: str,
        text: str,
        progress: Progress = lambda _: None,
    ) -> Answer:
        """One message of the user. Messages of one session are answered one after the other.

        Args:
            principal: Who says it.
            session_id: The session.
            text: The message.
            progress: Told what is being done, when it takes a while.

        Raises:
            NotFoundError: No such session of this user.
            ConflictError: An earlier message takes too long.
        """
        await self.show(principal, session_id)
        return await self._unbroken(self._said(principal, session_id, text, progress))

    async def show(self, principal: Principal, session_id: str) -> Session:
        """A session with its redacted history. Raises `NotFoundError`, also for those of others."""
        session = await self.sessions.get(session_id)
        is_own = (session.tenant_id, session.subject) == (principal.tenant_id, principal.subject)
        if not is_own or self.ports.clock() - session.used_at > IDLE_EXPIRY:
            raise unknown()
        return session

    async def close(self, principal: Principal, session_id: str) -> None:
        """End a session; a connector that nothing was loaded with is removed.

        Raises:
            NotFoundError: No such session of this user.
        """
        await self.show(principal, session_id)
        await self._unbroken(self._closed(principal, session_id))

    def answer_of(self, session: Session) -> Answer:
        """The last thing that was said in a session."""
        last = next((t.message for t in reversed(session.history) if t.role == "agent"), "")
        return self._answer(session, last)

    async def evict(self) -> int:
        """Remove sessions that expired; returns how many."""
        evicted = await self.sessions.evict(self.ports.clock() - IDLE_EXPIRY)
        for key in evicted:
            await self.vault.forget(key)
        return len(evicted)

    async def stop(self) -> None:
        """Let turns under way end, and close the store."""
        if self._turns:
            await asyncio.wait(self._turns)
        await self.sessions.close()
        if self._model is not None:
            await self._model.close()

    async def _unbroken(self, turn: Coroutine[Any, Any, Result]) -> Result:
        task = asyncio.create_task(turn)
        self._turns.add(task)
        task.add_done_callback(self._turns.discard)
        return await asyncio.shield(task)

    async def _said(
        self, principal: Principal, session_id: str, text: str, progress: Progress
    ) -> Answer:
        async with self.sessions.turn(session_id) as fence:
            turn = await self._turn(principal, session_id, fence, progress)
            is_resumed = bool(turn.session.unfinished)
            if is_resumed:
                await turn.resume()
            if not (is_resumed and command_in(text) in (Command.RETRY, Command.YES)):
                await turn.take(text)
            said = await turn.finish()
            return self._answer(turn.session, "\n".join(said))

    async def _closed(self, principal: Principal, session_id: str) -> None:
        async with self.sessions.turn(session_id) as fence:
            turn = await self._turn(principal, session_id, fence, lambda _: None)
            if turn.session.unfinished:  # it may have made a connector that is not known yet
                await turn.resume()
            known = turn.session.conversation
            if known.connector_id is not None and known.state is not State.EXECUTE:
                await turn.carry_out(Remove(known.connector_id))
            await self.vault.forget(turn.key)
            await self.sessions.delete(session_id)

    async def _turn(
        self, principal: Principal, session_id: str, fence: int, progress: Progress
    ) -> OneTurn:
        session = await self.show(principal, session_id)
        key = SessionKey(session.tenant_id, session_id)
        contents = await self.vault.open(key) if session.has_secrets else Contents()
        work = Workshop(
            self.ports,
            self._calls,
            self._runner,
            self.sessions,
            self.vault,
            self.templates,
            self._model,
        )
        return OneTurn(work, principal, session, fence, contents, progress)

    def _answer(self, session: Session, message: str) -> Answer:
        conversation = session.conversation
        return Answer(
            session_id=session.session_id,
            state=conversation.state,
            message=message,
            options=view_options(conversation, self.templates),
            data=view_data(conversation, self.templates),
        )

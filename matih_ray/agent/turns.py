"""One turn of a session: a message, the effects that follow from it, and what is stored when.

Whatever outlives this process is stored before an effect begins and after each of its outcomes: the
conversation as it stands, the message as it may be kept, and what is still to be done. When the
process dies in between, the next turn, wherever it runs, does that first; effects may be repeated.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar, cast

from matih_ray.agent import sentences
from matih_ray.agent.conversation import Conversation
from matih_ray.agent.effects import Backend
from matih_ray.agent.events import (
    CheckHost,
    Connect,
    Discover,
    DropSecrets,
    Event,
    Execute,
    KeepSecrets,
    LongEffect,
    Pending,
    Remove,
    Said,
    Unresolved,
)
from matih_ray.agent.machine import advance
from matih_ray.agent.model import LanguageModel
from matih_ray.agent.redaction import redact_echoes, redact_message, secrets_in
from matih_ray.agent.sessions import MAX_TURNS, Session, SessionKey, SessionStore, Turn
from matih_ray.agent.steps import Step, Templates
from matih_ray.agent.vault import Contents, Vault
from matih_ray.control.authorization import Principal
from matih_ray.control.ports import Ports
from matih_ray.control.source_calls import SourceCalls
from matih_ray.errors import SourceTimeoutError
from matih_ray.telemetry import REDACTED

Result = TypeVar("Result")
Progress = Callable[[str], None]

# A connector's own test takes 30 s at most and is saved or taken back after it.
CONNECT_S = 60.0
DISCOVER_S = 40.0
EXECUTE_S = 120.0
# A name server that needs longer is no reason to let anybody wait.
RESOLVE_S = 2.0
# Connect, discover, and some: a turn that wants more is a fault of the machine.
MAX_EFFECTS = 12


class Runner(Protocol):
    """Runs calls off the event loop."""

    async def run(self, what: str, deadline_s: float, call: Callable[[], Result]) -> Result:
        """The result of `call`. Raises `SourceTimeoutError` when it takes longer."""


@dataclass(frozen=True)
class Workshop:
    """What turns work with: one for all of a process."""

    ports: Ports
    calls: SourceCalls
    runner: Runner
    sessions: SessionStore
    vault: Vault
    templates: Templates
    model: LanguageModel | None = None


@dataclass
class OneTurn:
    """A turn under way. `said` is what was said in it."""

    work: Workshop
    principal: Principal
    session: Session
    fence: int
    contents: Contents
    progress: Progress
    said: list[str] = field(default_factory=list)
    _is_resumed: bool = False

    @property
    def key(self) -> SessionKey:
        """Whose turn it is."""
        return SessionKey(self.session.tenant_id, self.session.session_id)

    async def resume(self) -> None:
        """Do what a turn that was cut off left undone."""
        self._is_resumed = True
        self.said.append(sentences.RESUMED)
        await self._follow(self.session.unfinished)
        self._is_resumed = False

    async def take(self, text: str) -> None:
        """A message of the user."""
        step = await self._understood(text)
        secrets = (*step.secrets, *secrets_in(text))
        contents = self.contents.noting(secrets) if secrets else self.contents
        kept = REDACTED if step.is_hidden else redact_message(
            text, secrets, contents.echoes, contents.key
        )  # fmt: skip
        for effect in step.effects:
            if isinstance(effect, KeepSecrets):
                contents = contents.keeping(effect.secrets)
        await self._note(contents)
        self.session = self._with_turn("user", kept, step.conversation)
        self.said += step.said
        for effect in step.effects:
            if isinstance(effect, CheckHost):
                await self._check(effect)
        await self._follow(
            tuple(e for e in step.effects if not isinstance(e, (KeepSecrets, CheckHost)))
        )

    async def finish(self) -> tuple[str, ...]:
        """Store the turn; returns what was said, without secrets."""
        shown = [redact_echoes(s, self.contents.echoes, self.contents.key) for s in self.said]
        if self.work.model is not None:
            shown = await self.work.model.rephrased(shown)
        self.session = self._with_turn("agent", "\n".join(shown), self.session.conversation)
        await self._store(())
        return tuple(shown)

    async def _understood(self, text: str) -> Step:
        """What follows from a message; where the rules are at a loss, a model may help."""
        conversation, templates = self.session.conversation, self.work.templates
        step = advance(conversation, Said(text), templates)
        if not step.is_unclear or self.work.model is None:
            return step
        found = secrets_in(text)

        def is_hidden(word: str) -> bool:
            contents = self.contents
            return any(word in s for s in found) or contents.recognises(word)

        clearer = await self.work.model.understood(text, conversation, templates, is_hidden)
        if clearer is None:
            return step
        other = advance(conversation, Said(clearer), templates)
        return step if other.is_unclear or other.is_hidden else other

    async def _follow(self, effects: tuple[LongEffect, ...]) -> None:
        """Carry out effects, and what follows from their outcomes, until nothing is left."""
        waiting = list(effects)
        for _ in range(MAX_EFFECTS):
            if not waiting:
                return
            await self._store(tuple(waiting))
            known = self.session.conversation
            if working := sentences.working(waiting[0].kind, known.type, len(known.chosen)):
                self.progress(working)
            event = await self.carry_out(waiting[0])
            waiting.pop(0)
            if event is not None:
                waiting += self._advanced(event)
        raise AssertionError("a turn has too many effects")

    def _advanced(self, event: Event) -> tuple[LongEffect, ...]:
        following = advance(self.session.conversation, event, self.work.templates)
        self.session = self.session.model_copy(update={"conversation": following.conversation})
        self.said += following.said
        # secrets and hosts come from messages only
        return cast("tuple[LongEffect, ...]", following.effects)

    async def carry_out(self, effect: LongEffect) -> Event | None:
        """Do one thing; returns its outcome, if there is one."""
        known = self.session.conversation
        backend = Backend(
            self.principal,
            self.work.ports,
            self.work.calls,
            self.session.session_id,
            is_resumed=self._is_resumed,
        )
        match effect:
            case DropSecrets():
                if self.contents.secrets:
                    await self._note(self.contents.dropped())
                return None
            case Remove(connector_id):
                await self._run("removing", CONNECT_S, lambda: backend.remove(connector_id))
                return None
            case Connect():
                template = self.work.templates.of(known.type)
                secrets = self.contents.secrets
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

    async def _check(self, effect: CheckHost) -> None:
        """A doubt about a host comes before the next question; no answer in time is no doubt."""
        backend = Backend(self.principal, self.work.ports, self.work.calls, self.session.session_id)
        event = await self._run("resolving", RESOLVE_S, lambda: backend.check_host(effect.host))
        if isinstance(event, Unresolved):
            following = advance(self.session.conversation, event, self.work.templates)
            self.said = [*following.said, *self.said]

    async def _run(
        self, what: str, deadline_s: float, call: Callable[[], Result]
    ) -> Result | Pending:
        waiting: Awaitable[Result] = self.work.runner.run(what, deadline_s, call)
        try:
            return await waiting
        except SourceTimeoutError:
            return Pending()

    async def _note(self, contents: Contents) -> None:
        if contents == self.contents:
            return
        self.contents = contents
        await self.work.vault.save(self.key, contents)
        self.session = self.session.model_copy(update={"has_secrets": True})

    async def _store(self, unfinished: tuple[LongEffect, ...]) -> None:
        self.session = self.session.model_copy(
            update={"unfinished": unfinished, "used_at": self.work.ports.clock()}
        )
        await self.work.sessions.put(self.session, self.fence)

    def _with_turn(self, role: str, message: str, conversation: Conversation) -> Session:
        turn = Turn.model_validate(
            {"role": role, "message": message, "state": conversation.state,
             "at": self.work.ports.clock()}
        )  # fmt: skip
        return self.session.model_copy(
            update={
                "conversation": conversation,
                "history": (*self.session.history, turn)[-MAX_TURNS:],
            }
        )

"""The ingestion agent's sessions (seed 000). Bodies are in snake_case there."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from matih_ray.agent.conversation import State
from matih_ray.agent.dialogue import Answer, Dialogue
from matih_ray.agent.sessions import Session
from matih_ray.agent.turns import Progress
from matih_ray.agent.words import MAX_MESSAGE_CHARS
from matih_ray.api.requests import PrincipalOf
from matih_ray.api.routes.agent_stream import streamed, wants_stream
from matih_ray.model.value import JsonValue

router = APIRouter(prefix="/ingestion/sessions", tags=["agent"])


class Message(BaseModel):
    """What a user says."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    message: Annotated[str, Field(max_length=MAX_MESSAGE_CHARS, examples=["postgres"])]


class AnswerBody(BaseModel):
    """What the agent says, and where the conversation stands."""

    session_id: str
    state: State
    message: str
    options: tuple[str, ...]
    data: dict[str, JsonValue]

    @classmethod
    def of(cls, answer: Answer) -> AnswerBody:
        """An answer in its JSON form."""
        return cls(**answer.model_dump())


class TurnBody(BaseModel):
    """One message of the redacted history."""

    role: str
    message: str
    state: State
    at: datetime


class SessionBody(AnswerBody):
    """A session; `message` is the last one of the agent."""

    history: tuple[TurnBody, ...]
    created_at: datetime
    used_at: datetime

    @classmethod
    def of_session(cls, session: Session, answer: Answer) -> SessionBody:
        """A session in its JSON form."""
        return cls(
            **answer.model_dump(),
            history=tuple(TurnBody(**turn.model_dump()) for turn in session.history),
            created_at=session.created_at,
            used_at=session.used_at,
        )


async def dialogue_of(request: Request) -> Dialogue:
    """The conversations of this process. Not a plain function: those are run in threads."""
    dialogue: Dialogue = request.app.state.dialogue
    return dialogue


SessionPath = Annotated[str, Path(alias="sessionId", max_length=64)]
DialogueOf = Annotated[Dialogue, Depends(dialogue_of)]


@router.post("", status_code=201, summary="Start a conversation")
async def open_session(principal: PrincipalOf, dialogue: DialogueOf) -> AnswerBody:
    """Sessions belong to who opened them and expire after 24 hours without a message."""
    return AnswerBody.of(await dialogue.open(principal))


@router.post("/{sessionId}/chat", summary="Say something", response_model=AnswerBody)
async def chat(
    session_id: SessionPath,
    message: Message,
    principal: PrincipalOf,
    dialogue: DialogueOf,
    request: Request,
) -> AnswerBody | Response:
    """Answers when what follows is done; a connection test takes up to a minute.

    With `Accept: text/event-stream`, events tell meanwhile what is being done.
    """

    async def say(progress: Progress) -> AnswerBody:
        said = await dialogue.say(principal, session_id, message.message, progress)
        return AnswerBody.of(said)

    if not wants_stream(request.headers.get("accept", "")):
        return await say(lambda _: None)
    await dialogue.show(principal, session_id)
    return streamed(say, request.state.request_id)


@router.get("/{sessionId}", summary="Show a conversation")
async def get_session(
    session_id: SessionPath, principal: PrincipalOf, dialogue: DialogueOf
) -> SessionBody:
    """With its history, from which secrets were removed before it was stored."""
    session = await dialogue.show(principal, session_id)
    return SessionBody.of_session(session, dialogue.answer_of(session))


@router.delete("/{sessionId}", status_code=204, summary="End a conversation")
async def delete_session(
    session_id: SessionPath, principal: PrincipalOf, dialogue: DialogueOf
) -> None:
    """A connector that nothing was loaded with is removed with it; any other stays."""
    await dialogue.close(principal, session_id)

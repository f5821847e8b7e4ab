"""Answers of the agent while they come about, as server-sent events.

`progress` events say what is being done, one `answer` or `problem` ends the stream. The status is
sent before the outcome is known, so a failure comes as an event; what is known at once (no such
session) is answered as ever. Format: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from pydantic import BaseModel
from starlette.responses import StreamingResponse

from matih_ray.api.problems import problem_of
from matih_ray.errors import MatihError

EVENT_STREAM = "text/event-stream"
# Proxies close connections on which nothing has been sent for a minute, some for half of one.
KEEP_ALIVE_S = 15.0


class ProgressBody(BaseModel):
    """What is being done."""

    message: str


def wants_stream(accept: str) -> bool:
    """Whether a caller asked for events."""
    return EVENT_STREAM in accept.lower()


def streamed(
    say: Callable[[Callable[[str], None]], Coroutine[Any, Any, BaseModel]], request_id: str
) -> StreamingResponse:
    """The answer of `say`, which is given a function to tell its progress to."""
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_events(say, request_id), media_type=EVENT_STREAM, headers=headers)


async def _events(
    say: Callable[[Callable[[str], None]], Coroutine[Any, Any, BaseModel]], request_id: str
) -> AsyncIterator[str]:
    told: asyncio.Queue[str | None] = asyncio.Queue()

    def progress(message: str) -> None:
        told.put_nowait(_event("progress", ProgressBody(message=message)))

    answering = asyncio.create_task(say(progress))
    answering.add_done_callback(lambda _: told.put_nowait(None))
    while True:
        try:
            event = await asyncio.wait_for(told.get(), KEEP_ALIVE_S)
        except asyncio.TimeoutError:
            yield ": still working\n\n"
            continue
        if event is None:
            break
        yield event
    try:
        yield _event("answer", answering.result())
    except MatihError as error:
        yield _event("problem", problem_of(error, request_id))


def _event(kind: str, body: BaseModel) -> str:
    # JSON holds no line breaks, so one line of data is enough
    return f"event: {kind}\ndata: {body.model_dump_json(by_alias=True)}\n\n"

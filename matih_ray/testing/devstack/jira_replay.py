"""Answers that were given before, without the work of making them.

They come one after the other, each after the CPU time that it took. So a benchmark's server is as
fast as one that has a core for itself, and leaves the benchmark the cores that there are.
"""

from __future__ import annotations

import asyncio
from typing import TypeAlias

from starlette.responses import JSONResponse, Response

# Method, path with query, body.
Asked: TypeAlias = tuple[str, str, bytes]


class Replay:
    """What was answered to which call."""

    def __init__(self) -> None:
        self._kept: dict[Asked, tuple[Response, float]] = {}
        self._working = asyncio.Lock()

    def keep(self, asked: Asked, response: Response, made_in_s: float) -> None:
        """Remember an answer."""
        self._kept[asked] = response, made_in_s

    async def answer(self, asked: Asked) -> Response:
        """The answer of before; status 501 if there is none."""
        if asked not in self._kept:
            return JSONResponse({"errorMessages": ["nobody asked this before"], "errors": {}}, 501)
        response, made_in_s = self._kept[asked]
        async with self._working:
            await asyncio.sleep(made_in_s)
        return response

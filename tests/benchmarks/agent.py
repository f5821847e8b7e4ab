"""Many open conversations, and many people who talk at once, on one replica.

`make bench-agent SESSIONS=10000 CHATTERS=200`. A turn without an effect goes through everything
but a source: proxy, token, session, machine, redaction, history. Beside it, in the same Serve and
by the same client, a bare endpoint that returns what it gets. Turns and echoes alternate, so that
both see the same machine. Every answer is compared with what its own conversation must say: a word
of another's would show.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import SplitResult, urlsplit

import psutil
from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse

from matih_ray.settings import Settings
from matih_ray.testing.client import issue_token
from matih_ray.testing.devstack.ports import free_port
from serve_apps.local import start_local
from tests.benchmarks.contenders import TENANT
from tests.benchmarks.machine import describe, last_line, number, say

Result = TypeVar("Result")

ROUNDS = 4
# Requests of a round, for a 99th percentile of some worth.
REQUESTS = 2500
MB = 1_000_000
# What the agent promises.
MAX_RATIO = 3.0
MAX_BYTES = 150 * MB
ECHO = "/echo"
SESSIONS_PATH = "/api/v1/agents/ingestion/sessions"


class Echo:
    """The least that Serve can do for a request with a body."""

    async def __call__(self, request: Request) -> JSONResponse:
        """What it gets."""
        return JSONResponse(await request.json())


deployed = serve.deployment(
    num_replicas=1, max_ongoing_requests=256, ray_actor_options={"num_cpus": 0}
)


def main() -> None:
    """Open, talk, compare."""
    sessions = int(number("SESSIONS", 10_000))
    chatters = int(number("CHATTERS", 200))
    machine = describe(None)
    with tempfile.TemporaryDirectory() as home:
        settings = Settings(home=Path(home), http_port=free_port(), log_level="WARNING")
        with start_local(settings, num_cpus=1) as runtime:
            serve.run(deployed(Echo).bind(), name="echo", route_prefix=ECHO)
            token = issue_token(settings, TENANT)
            bench = Bench(runtime.url, token, chatters)
            result = asyncio.run(bench.run(sessions))
    last_line({"benchmark": "agent", **result, "machine": machine})


class Bench:
    """One client of many tasks, each with a connection of its own."""

    def __init__(self, url: str, token: str, chatters: int) -> None:
        self._address = urlsplit(url)
        self._token = token
        self._chatters = chatters
        self._crossed = 0

    async def run(self, sessions: int) -> dict[str, object]:
        """All of it."""
        await self._each(self._chatters, self._warmed_up)
        idle = _replica_bytes()
        started = time.perf_counter()
        ids = await self._each(sessions, self._opened)
        say(f"{sessions} sessions opened in {time.perf_counter() - started:.0f} s")
        turns, echoes = await self._measured(list(enumerate(ids)))
        above = _replica_bytes() - idle
        ratio = _p99(turns) / _p99(echoes)
        return {
            "sessions": sessions,
            "chatters": self._chatters,
            "turns": len(turns),
            "crossed": self._crossed,
            "memory_above_idle_mb": round(above / MB, 1),
            "turn_p50_ms": round(statistics.median(turns), 1),
            "turn_p99_ms": _p99(turns),
            "echo_p50_ms": round(statistics.median(echoes), 1),
            "echo_p99_ms": _p99(echoes),
            "p99_ratio": round(ratio, 2),
            "passed": ratio <= MAX_RATIO and above < MAX_BYTES and not self._crossed,
        }

    async def _measured(self, sessions: list[tuple[int, str]]) -> tuple[list[float], list[float]]:
        """Milliseconds of turns and echoes, in alternating rounds."""
        turns: list[float] = []
        echoes: list[float] = []
        for round_ in range(ROUNDS):
            # of all sessions, another part in each round
            part = sessions[round_::ROUNDS][:REQUESTS]

            async def turn(
                http: Connection, i: int, part: list[tuple[int, str]] = part, r: int = round_
            ) -> float:
                return await self._turn(http, *part[i], r)

            turns += await self._each(len(part), turn)
            echoes += await self._each(len(part), self._echo)
            say(f"round {round_ + 1}: turns {_p99(turns)} ms, echoes {_p99(echoes)} ms")
        return turns, echoes

    async def _warmed_up(self, http: Connection, number: int) -> None:
        session = await self._opened(http, number)
        await self._turn(http, number, session, 0)
        await http.request("DELETE", f"{SESSIONS_PATH}/{session}")
        await self._echo(http, number)

    async def _opened(self, http: Connection, number: int) -> str:
        """A conversation that has got as far as its fields; each knows a database of its own."""
        opened = json.loads(await http.request("POST", SESSIONS_PATH))
        session = str(opened["session_id"])
        text = f"postgres, database of_{number}"
        await http.request("POST", f"{SESSIONS_PATH}/{session}/chat", {"message": text})
        return session

    async def _turn(self, http: Connection, number: int, session: str, round_: int) -> float:
        """A message without an effect, whose answer tells what the session was told before."""
        text = f"username: user_{number}_{round_}" if round_ % 2 == 0 else "show"
        start = time.perf_counter()
        answer = await http.request("POST", f"{SESSIONS_PATH}/{session}/chat", {"message": text})
        elapsed_ms = (time.perf_counter() - start) * 1000
        body = json.loads(answer)
        is_own = body["session_id"] == session and body["state"] == "gather_credentials"
        if text == "show":
            is_own = is_own and f"Database of_{number}." in body["message"].replace(",", ".")
        self._crossed += not is_own
        return elapsed_ms

    async def _echo(self, http: Connection, number: int) -> float:
        start = time.perf_counter()
        await http.request("POST", ECHO, {"message": f"username: user_{number}_0"})
        return (time.perf_counter() - start) * 1000

    async def _each(
        self, count: int, call: Callable[[Connection, int], Awaitable[Result]]
    ) -> list[Result]:
        """What calls return; as many at a time as there are chatters."""
        waiting = iter(range(count))
        results: dict[int, Result] = {}

        async def chatter() -> None:
            http = await Connection.open(self._address, self._token)
            for index in waiting:
                results[index] = await call(http, index)
            http.close()

        await asyncio.gather(*(chatter() for _ in range(self._chatters)))
        return [results[index] for index in range(count)]


class Connection:
    """One HTTP connection. A client library would take more of the two cores than what is
    measured, and by that flatter it."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, headers: str
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._headers = headers

    @classmethod
    async def open(cls, address: SplitResult, token: str) -> Connection:
        """A connection whose requests bear the token."""
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        headers = (
            f"Host: {address.netloc}\r\nAuthorization: Bearer {token}\r\n"
            "Content-Type: application/json\r\n"
        )
        return cls(reader, writer, headers)

    async def request(self, method: str, path: str, body: object = None) -> bytes:
        """The body of the answer, which must be a success."""
        data = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\n{self._headers}Content-Length: {len(data)}\r\n\r\n"
        self._writer.write(head.encode() + data)
        answer = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = next((line for line in answer.split("\r\n") if "content-length:" in line), ":0")
        received = await self._reader.readexactly(int(length.partition(":")[2]))
        if not answer.startswith("http/1.1 2"):
            raise RuntimeError(f"{method} {path}: {answer.splitlines()[0]} {received.decode()}")
        return received

    def close(self) -> None:
        """Close it."""
        self._writer.close()


def _replica_bytes() -> int:
    """What the agent's replica has for its own."""
    for process in psutil.Process().children(recursive=True):
        if "ServeReplica:agent" in " ".join(process.cmdline()):
            return int(process.memory_full_info().uss)
    raise RuntimeError("there is no replica of the agent")


def _p99(times_ms: list[float]) -> float:
    return round(statistics.quantiles(times_ms, n=100)[98], 1)


if __name__ == "__main__":
    main()

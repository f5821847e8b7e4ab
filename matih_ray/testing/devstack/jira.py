"""A Jira site of our own in a process of its own, and what tests do to it.

with JiraServer() as jira:
    jira.do("generate", project="SHOP", count=100)
    jira.fault("POST .*/search/jql", 429, {"Retry-After": "1"})
"""

from __future__ import annotations

import subprocess
import sys
import time
from types import TracebackType
from typing import Any

import httpx
import psutil

from matih_ray.testing.devstack.jira_app import (
    CLIENT_ID,
    CLIENT_SECRET,
    TOKEN,
    USER,
)
from matih_ray.testing.devstack.jira_calls import REFRESH_TOKEN
from matih_ray.testing.devstack.ports import free_port

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 60.0
POLL_S = 0.05

__all__ = ["CLIENT_ID", "CLIENT_SECRET", "REFRESH_TOKEN", "TOKEN", "USER", "JiraServer"]


class JiraServer:
    """The server. `do` calls a method of its `Site`, or one of the orders that it knows besides."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def do(self, what: str, **given: Any) -> Any:
        """Carry out an order."""
        order = {"do": what, "with": given}
        answer = httpx.post(
            f"{self.url}/_admin", json=order, timeout=ANSWER_TIMEOUT_S, trust_env=False
        )
        return answer.raise_for_status().json()

    def fault(
        self, match: str, status: int, headers: dict[str, str] | None = None, **more: Any
    ) -> None:
        """Answer the next calls that match so; `times` and `every` say how many of them."""
        self.do("fault", match=match, status=status, headers=headers or {}, **more)

    def calls(self, containing: str = "") -> list[str]:
        """What was asked so far."""
        return [call for call in self.do("calls") if containing in call]

    def issues(self) -> dict[str, dict[str, Any]]:
        """All issues of the site by id: the truth that a load is compared with."""
        return {issue["id"]: issue for issue in self.do("issues")}

    @property
    def pid(self) -> int:
        """The server's process."""
        assert self._process is not None, "not started"
        return self._process.pid

    def connections(self) -> int:
        """Connections that clients in this process have open here."""
        return sum(
            1
            for connection in psutil.Process().net_connections("tcp")
            if connection.raddr
            and connection.raddr.port == self.port
            and connection.status == psutil.CONN_ESTABLISHED
        )

    def __enter__(self) -> JiraServer:
        command = [sys.executable, "-m", "matih_ray.testing.devstack.jira_app", str(self.port)]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                self.do("calls")
            except httpx.TransportError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.__exit__(None, None, None)
                    raise RuntimeError("the Jira test server did not start") from None
                time.sleep(POLL_S)
            else:
                return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

"""What stands where `oracledb.connect` stands: the driver's interface, over `oracle`'s messages.

Only the connection is replaced; exceptions, their codes and classes are the driver's own. As the
driver does, it gives numbers the shortest digits, and decimals of them where they are asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from multiprocessing.connection import Client
from typing import Any

import oracledb
from oracledb import errors

VERSION = "23.4.0.24.5"


def connect(*, user: str, password: str, host: str, port: int, service_name: str, **_: Any) -> Any:
    """A connection to the stand-in for a server.

    Raises:
        oracledb.Error: As the driver, with its codes.
    """
    channel = _Channel(host, port)
    channel.ask((user, password, service_name))
    return StandInConnection(channel)


class _Channel:
    def __init__(self, host: str, port: int) -> None:
        self._connection = Client((host, port))

    def ask(self, question: object) -> None:
        """A question whose answer is nothing or an error."""
        answer = self.answer(question)
        if answer is not None:
            raise _error(*answer)

    def answer(self, question: object) -> Any:
        """The answer to a question."""
        try:
            self._connection.send(question)
            return self._connection.recv()
        except (OSError, EOFError):
            raise _error(3113, "end-of-file on communication channel") from None

    def close(self) -> None:
        """Leave."""
        self._connection.close()


class StandInConnection:
    """As much of the driver's `Connection` as a source uses."""

    version = VERSION

    def __init__(self, channel: _Channel) -> None:
        self._channel = channel

    def cursor(self) -> StandInCursor:
        """A cursor; the server keeps the rows of one at a time."""
        return StandInCursor(self._channel)

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()


class StandInCursor:
    """As much of the driver's `Cursor` as a source uses."""

    def __init__(self, channel: _Channel) -> None:
        self._channel = channel
        self._decimals = False
        self.arraysize = 100
        self.prefetchrows = 2

    def execute(
        self, statement: str, *, fetch_lobs: bool = True, fetch_decimals: bool = False
    ) -> None:
        """Run a statement. Large values are here only without places to ask for them."""
        self._decimals = fetch_decimals
        self._fetch_lobs = fetch_lobs
        self._channel.ask(("execute", statement))

    def fetchmany(self) -> list[tuple[Any, ...]]:
        """The next `arraysize` rows."""
        found = self._channel.answer(("fetch", self.arraysize))
        return [self._row(row) for row in found]

    def fetchall(self) -> list[tuple[Any, ...]]:
        """The rest of the rows."""
        rows: list[tuple[Any, ...]] = []
        while page := self.fetchmany():
            rows += page
        return rows

    def _row(self, row: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(self._value(value) for value in row)

    def _value(self, value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
            return value
        digits = format(Decimal(value), "f")
        if "." in digits:
            digits = digits.rstrip("0").rstrip(".")
        if self._decimals:
            return Decimal(digits)
        return float(digits) if "." in digits else int(digits)

    def __enter__(self) -> StandInCursor:
        return self

    def __exit__(self, *_: object) -> None:
        """The rows are gone with the next statement."""


def _error(code: int, text: str) -> oracledb.Error:
    error = errors._Error(message=f"ORA-{code:05}: {text}", code=code)  # noqa: SLF001 the only way to get the driver's own
    raised: oracledb.Error = error.exc_type(error)
    return raised

"""What whoever pulls a COPY promises: each passes the same tests on a real server."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg2
import pytest

from matih_ray.errors import SourceError, SourceTimeoutError, SourceUnavailableError
from matih_ray.kernels import PADDING
from matih_ray.sources.postgres.copying import Copy, CopyStream
from matih_ray.sources.postgres.failures import mapped_errors
from matih_ray.sources.postgres.socket_copy import BLOCK_BYTES, SocketCopy
from matih_ray.testing.devstack.postgres import PostgresServer

Open = Callable[[Any, str], Copy]
ENDLESS = """COPY (SELECT repeat('x', 100) FROM generate_series(1, 100000) a,
                   generate_series(1, 100000) b) TO STDOUT"""


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        server.execute(
            """CREATE FUNCTION noisy(n bigint) RETURNS bigint LANGUAGE plpgsql AS $$
               BEGIN
                 IF n % 1000 = 0 THEN RAISE WARNING 'now at %', n; END IF;
                 RETURN n;
               END $$"""
        )
        yield server


class LossyConnection(psycopg2.extensions.connection):
    """Loses so many cancels, as happens to those that come before their statement begins."""

    cancels_to_lose = 0

    def cancel(self) -> None:
        if self.cancels_to_lose:
            self.cancels_to_lose -= 1
        else:
            super().cancel()


@pytest.fixture
def connection(server: PostgresServer) -> Iterator[Any]:
    connection = psycopg2.connect(
        host=server.host,
        port=server.port,
        user=server.user,
        dbname="postgres",
        sslmode="disable",
        connection_factory=LossyConnection,
    )
    connection.autocommit = True
    yield connection
    connection.close()


@pytest.fixture(params=[CopyStream, SocketCopy])
def begin(request: pytest.FixtureRequest) -> Open:
    return request.param


def taken(copy: Copy) -> bytes:
    """All lines. Blocks are of whole lines, with padding."""
    found = []
    with contextlib.closing(copy):
        for block in copy.blocks():
            held = bytes(block)
            assert held.endswith(b"\n" + PADDING)
            found.append(held.removesuffix(PADDING))
    return b"".join(found)


def answer(connection: Any) -> int:
    """Whether the connection is still of use."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 42")
        return int(cursor.fetchone()[0])


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 5, 1000, 300_000])
def test_all_rows_come_in_their_order(connection: Any, begin: Open, rows: int) -> None:
    query = f"SELECT n, repeat('x', n % 90) FROM generate_series(1, {rows}) n"
    wanted = b"".join(b"%d\t%s\n" % (n, b"x" * (n % 90)) for n in range(1, rows + 1))
    for _ in range(2):
        assert taken(begin(connection, f"COPY ({query}) TO STDOUT")) == wanted
        assert answer(connection) == 42


@pytest.mark.parametrize("size", [BLOCK_BYTES - 40, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES])
def test_a_row_may_be_larger_than_a_block(connection: Any, begin: Open, size: int) -> None:
    rows = f"VALUES ('a'), (repeat('b', {size})), ('c'), (repeat('d', {size})), (repeat('e', 70))"
    found = taken(begin(connection, f"COPY ({rows}) TO STDOUT"))
    assert [len(line) for line in found.splitlines()] == [1, size, 1, size, 70]


def test_rows_of_a_slow_query_come_when_they_are_there(connection: Any, begin: Open) -> None:
    # 9 KB a row: more than the server holds back
    query = "SELECT repeat('x', 9000), pg_sleep(n % 2 * 1.1) FROM generate_series(1, 4) n"
    lines = taken(begin(connection, f"COPY ({query}) TO STDOUT")).splitlines()
    assert lines == [b"x" * 9000 + b"\t"] * 4
    assert answer(connection) == 42


def test_empty_rows_are_rows(connection: Any, begin: Open) -> None:
    query = "COPY (SELECT FROM generate_series(1, 100000)) TO STDOUT"
    assert taken(begin(connection, query)) == b"\n" * 100_000


def test_text_that_looks_like_an_end_is_none(connection: Any, begin: Open) -> None:
    for text in ("Z", "\\.", "Zd", "E", "c"):
        query = f"COPY (SELECT '{text}'::text FROM generate_series(1, 2000)) TO STDOUT"
        line = text.replace("\\", "\\\\").encode() + b"\n"
        assert taken(begin(connection, query)) == line * 2000


def test_warnings_in_between_are_no_rows(connection: Any, begin: Open) -> None:
    query = "COPY (SELECT noisy(n) FROM generate_series(1, 20000) n) TO STDOUT"
    assert taken(begin(connection, query)).splitlines() == [b"%d" % n for n in range(1, 20_001)]


@pytest.mark.parametrize(
    ("statement", "state"),
    [
        ("COPY (SELECT 1 / (150000 - n) FROM generate_series(1, 200000) n) TO STDOUT", "22012"),
        ("COPY (SELECT 1 / 0) TO STDOUT", "22012"),
        ("COPY absent TO STDOUT", "42P01"),
        ("COPY (SELECT", "42601"),
    ],
)
def test_what_the_server_refuses_has_its_state(
    connection: Any, begin: Open, statement: str, state: str
) -> None:
    with pytest.raises(SourceError, match=r"^reading: ") as caught, mapped_errors("reading"):
        taken(begin(connection, statement))
    assert caught.value.context["sqlstate"] == state
    assert answer(connection) == 42


def test_a_copy_may_be_left_at_any_time(connection: Any, begin: Open) -> None:
    for blocks in range(3):
        copy = begin(connection, ENDLESS)
        for _, _block in zip(range(blocks), copy.blocks(), strict=False):
            pass
        copy.close()
        copy.close()
        assert answer(connection) == 42


@pytest.mark.parametrize("blocks", [0, 2])
def test_a_copy_is_left_though_its_cancel_came_too_early(
    connection: Any, begin: Open, blocks: int
) -> None:
    connection.cancels_to_lose = 2
    copy = begin(connection, ENDLESS)
    for _, _block in zip(range(blocks), copy.blocks(), strict=False):
        pass
    copy.close()
    assert connection.cancels_to_lose == 0
    assert answer(connection) == 42


def test_another_thread_may_end_a_copy(connection: Any, begin: Open) -> None:
    copy = begin(connection, "COPY (SELECT pg_sleep(600)) TO STDOUT")
    ended = threading.Event()

    def read() -> None:
        try:
            with mapped_errors("reading"):
                taken(copy)
        except SourceTimeoutError:  # cancelled
            ended.set()

    reader = threading.Thread(target=read)
    reader.start()
    copy.close()
    reader.join(30)
    assert not reader.is_alive()
    assert answer(connection) == 42


def test_a_session_that_is_ended_is_unavailable(
    server: PostgresServer, connection: Any, begin: Open
) -> None:
    copy = begin(connection, ENDLESS)
    blocks = copy.blocks()
    next(blocks)
    server.execute(f"SELECT pg_terminate_backend({connection.info.backend_pid})")
    with pytest.raises(SourceUnavailableError), mapped_errors("reading"):
        list(blocks)
    copy.close()


def test_a_connection_that_breaks_is_unavailable(connection: Any, begin: Open) -> None:
    copy = begin(connection, ENDLESS)
    blocks = copy.blocks()
    next(blocks)
    broken = socket.socket(fileno=connection.fileno())
    broken.shutdown(socket.SHUT_RDWR)
    broken.detach()
    with pytest.raises(SourceUnavailableError), mapped_errors("reading"):
        list(blocks)
    copy.close()


def test_a_message_of_no_copy_is_not_taken_for_rows(connection: Any) -> None:
    copy = SocketCopy(connection, "SELECT 1")
    with pytest.raises(SourceUnavailableError, match="'T'"), mapped_errors("reading"):
        list(copy.blocks())
    copy.close()

"""The MariaDB of the tests starts, keeps what it was told, and leaves nothing behind."""

from __future__ import annotations

import psutil
import pytest

from matih_ray.testing.devstack.mariadb import MariaDbMissingError, MariaDbServer, find_program


@pytest.fixture
def server():
    try:
        server = MariaDbServer()
    except MariaDbMissingError as missing:
        pytest.skip(str(missing))
    yield server
    server.remove()


def test_it_starts_answers_and_leaves_nothing(server):
    with server:
        assert server.execute("SELECT SUM(seq) FROM mysql.seq_1_to_4") == [(10,)]
        process = psutil.Process(server.pid)
        listening = {c.laddr for c in process.net_connections() if c.status == psutil.CONN_LISTEN}
        assert listening == {(server.host, server.port)}
    assert not process.is_running()
    assert not server.directory.exists()


def test_what_was_committed_survives_a_kill(server):
    with server:
        server.execute(
            "CREATE DATABASE d", "CREATE TABLE d.t (n int)", "INSERT INTO d.t VALUES (7)"
        )
        server.stop()
        server.start()
        server.kill()
        server.start()
        assert server.execute("SELECT n FROM d.t") == [(7,)]


def test_a_wrong_option_is_an_error_with_the_servers_words(server):
    wrong = MariaDbServer(options={"no-such-option": "1"})
    with pytest.raises(RuntimeError, match="no-such-option"):
        wrong.start()
    wrong.remove()


def test_a_machine_without_mariadb_is_told_what_to_install():
    with pytest.raises(MariaDbMissingError, match="apt-get install mariadb-server"):
        find_program("no-such-program-of-mariadb")

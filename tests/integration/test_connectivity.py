"""Every way in which the network can fail, provoked for real on loopback, is told by its stage."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from matih_ray.errors import (
    AuthenticationFailedError,
    ConfigurationError,
    DatabaseNotFoundError,
    MatihError,
    MissingExtraError,
    SourceError,
    SourcePermissionError,
    SourceTimeoutError,
    TlsHandshakeError,
)
from matih_ray.model.connector import StageState
from matih_ray.settings import Settings
from matih_ray.sources.connectivity import (
    NOT_PROBED,
    STAGES,
    StagedTest,
    StageName,
    diagnosis,
    with_login,
)
from matih_ray.sources.host_policy import HostPolicy
from matih_ray.sources.probe import DirectTls, probe
from tests.integration.certificates import DAY, Authority, Pair

POLICY = HostPolicy.of(Settings())
# Long enough for two busy cores; only tests of hung servers wait for all of theirs.
PATIENT_S = 20.0
IMPATIENT_S = 0.5


@contextlib.contextmanager
def listening(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server on loopback that treats each connection in its own way; yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        stopped = threading.Event()

        def run() -> None:
            while not stopped.is_set():
                with contextlib.suppress(TimeoutError):
                    connection, _ = server.accept()
                    with connection, contextlib.suppress(OSError):
                        connection.settimeout(PATIENT_S)
                        serve(connection)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            stopped.set()
            thread.join()


def silent(connection: socket.socket) -> None:
    """Takes everything and says nothing, until the client has had enough."""
    while connection.recv(4096):
        pass


def encrypted(pair: Pair) -> Callable[[socket.socket], None]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)

    def serve(connection: socket.socket) -> None:
        context.wrap_socket(connection, server_side=True).close()

    return serve


def states(test: StagedTest) -> str:
    """One letter per stage: P passed, F failed, S skipped."""
    assert [stage.name for stage in test.stages] == [name.value for name in STAGES]
    for stage in test.stages:
        assert (stage.latency_ms is None) or stage.latency_ms >= 0
    return "".join(stage.state.value[0] for stage in test.stages)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def good(authority: Authority) -> Pair:
    return authority.server("good")


# --- DNS and TCP -----------------------------------------------------------------------------


def test_a_server_that_listens_passes_both_stages_of_the_network():
    with listening(silent) as port:
        found = probe("localhost", port, POLICY, timeout_s=PATIENT_S)
    assert found.success
    assert found.remediation is None
    assert states(found) == "PPSSSS"
    assert found.stage(StageName.DNS).latency_ms is not None
    assert found.stage(StageName.TLS).latency_ms is None
    assert found.addresses
    assert all(address.is_loopback for address in found.addresses)


def test_a_name_that_nobody_knows_fails_at_dns():
    found = probe("no-such-host.invalid", 5432, POLICY, timeout_s=PATIENT_S)
    assert (found.error and found.error.code) == "DNS_RESOLUTION_FAILED"
    assert states(found) == "FSSSSS"
    assert "spelling" in str(found.remediation)


def test_a_forbidden_host_fails_before_anything_is_sent():
    found = probe("169.254.169.254", 80, POLICY, timeout_s=PATIENT_S)
    assert (found.error and found.error.code) == "HOST_NOT_ALLOWED"
    assert states(found) == "FSSSSS"
    assert found.addresses == ()


def test_a_resolver_that_hangs_is_given_up():
    release = threading.Event()

    class Hanging(HostPolicy):
        def resolve_allowed(self, host: str, port: int) -> tuple:
            release.wait(PATIENT_S)
            return super().resolve_allowed(host, port)

    try:
        found = probe("localhost", 1, Hanging(), timeout_s=IMPATIENT_S)
    finally:
        release.set()
    assert (found.error and found.error.code) == "DNS_RESOLUTION_FAILED"
    assert "in time" in str(found.error)


def test_a_closed_port_is_refused():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    found = probe("127.0.0.1", port, POLICY, timeout_s=PATIENT_S)
    assert (found.error and found.error.code) == "CONNECTION_REFUSED"
    assert states(found) == "PFSSSS"
    assert "host and port" in str(found.remediation)


def test_a_port_that_takes_no_connection_times_out():
    """A listener with a full queue: Linux drops further attempts, as a firewall does."""
    with socket.socket() as server, contextlib.ExitStack() as clients:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(4):
            client = clients.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        found = probe("127.0.0.1", server.getsockname()[1], POLICY, timeout_s=IMPATIENT_S)
    assert (found.error and found.error.code) == "TIMEOUT"
    assert states(found) == "PFSSSS"


def test_the_first_address_that_answers_is_enough():
    """`localhost` may be ::1 first, where this server does not listen."""
    with listening(silent) as port:
        assert states(probe("localhost", port, POLICY, timeout_s=PATIENT_S)) == "PPSSSS"


# --- TLS -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "mode"),
    [
        ("localhost", "verify-full"),
        ("localhost.", "verify-full"),
        ("127.0.0.1", "verify-ca"),
        ("127.0.0.1", "require"),
    ],
)
def test_a_good_certificate_passes(authority: Authority, good: Pair, host: str, mode):
    tls = DirectTls(mode, None if mode == "require" else authority.root)
    with listening(encrypted(good)) as port:
        found = probe(host, port, POLICY, direct_tls=tls, timeout_s=PATIENT_S)
    assert found.error is None
    assert states(found) == "PPPSSS"


@pytest.mark.parametrize(
    ("case", "host", "mode", "says", "remedy"),
    [
        ("good", "127.0.0.1", "verify-full", "mismatch|IP address", "name that the certificate"),
        (
            "other-name",
            "localhost",
            "verify-full",
            "Hostname mismatch",
            "name that the certificate",
        ),
        ("expired", "localhost", "verify-full", "expired", "has expired"),
        ("expired", "localhost", "verify-ca", "expired", "has expired"),
        ("future", "localhost", "verify-ca", "not yet valid", "clocks"),
        ("stranger", "localhost", "verify-full", "issuer|verify", "root certificate"),
        ("stranger", "localhost", "verify-ca", "issuer|verify", "root certificate"),
    ],
)
def test_a_wrong_certificate_is_told_apart(
    authority: Authority, tmp_path: Path, case: str, host: str, mode, says: str, remedy: str
):
    pairs = {
        "good": lambda: authority.server("right"),
        "other-name": lambda: authority.server("other", host="db.example"),
        "expired": lambda: authority.server("expired", after=-3 * DAY, until=-DAY),
        "future": lambda: authority.server("future", after=DAY, until=2 * DAY),
        "stranger": lambda: Authority(tmp_path, "stranger").server("theirs"),
    }
    tls = DirectTls(mode, authority.root)
    with listening(encrypted(pairs[case]())) as port:
        found = probe(host, port, POLICY, direct_tls=tls, timeout_s=PATIENT_S)
        # the same server is good enough for whoever asks for encryption only
        lenient = probe(host, port, POLICY, direct_tls=DirectTls("require"), timeout_s=PATIENT_S)
    assert isinstance(found.error, TlsHandshakeError)
    with pytest.raises(TlsHandshakeError, match=says):
        raise found.error
    assert remedy in str(found.remediation)
    assert states(found) == "PPFSSS"
    assert states(lenient) == "PPPSSS"


def test_our_own_authority_is_not_one_of_the_system(good: Pair):
    with listening(encrypted(good)) as port:
        found = probe(
            "localhost", port, POLICY, direct_tls=DirectTls("verify-full"), timeout_s=PATIENT_S
        )
    assert isinstance(found.error, TlsHandshakeError)


def clear_text(connection: socket.socket) -> None:
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def rude(connection: socket.socket) -> None:
    connection.recv(1)  # and close, with the rest unread: the client sees a reset


@pytest.mark.parametrize("server", [clear_text, rude])
def test_a_server_without_tls_fails_the_handshake(server: Callable[[socket.socket], None]):
    with listening(server) as port:
        found = probe(
            "127.0.0.1", port, POLICY, direct_tls=DirectTls("require"), timeout_s=PATIENT_S
        )
    assert (found.error and found.error.code) == "SSL_HANDSHAKE_FAILED"
    assert states(found) == "PPFSSS"


def test_a_server_that_hangs_during_the_handshake_times_out():
    with listening(silent) as port:
        found = probe(
            "127.0.0.1", port, POLICY, direct_tls=DirectTls("require"), timeout_s=IMPATIENT_S
        )
    assert (found.error and found.error.code) == "TIMEOUT"
    assert states(found) == "PPFSSS"


def drip(connection: socket.socket) -> None:
    """Announces a TLS record of 16 kB and sends it byte by byte, for minutes if it may."""
    connection.sendall(b"\x16\x03\x03\x40\x00")
    while True:
        connection.sendall(b"\x02")
        time.sleep(0.02)


def test_a_server_that_drips_its_handshake_times_out_too():
    with listening(drip) as port:
        found = probe(
            "127.0.0.1", port, POLICY, direct_tls=DirectTls("require"), timeout_s=IMPATIENT_S
        )
    assert (found.error and found.error.code) == "TIMEOUT"
    assert states(found) == "PPFSSS"


@pytest.mark.parametrize("content", [None, "not a certificate"])
def test_a_root_certificate_that_cannot_be_used_is_a_mistake_of_the_caller(
    tmp_path: Path, content: str | None
):
    path = tmp_path / "root.crt"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigurationError, match="root certificates"):
        probe("localhost", 1, POLICY, direct_tls=DirectTls("verify-ca", path))


def test_nothing_of_a_probe_stays_open():
    before = threading.active_count()
    with listening(silent) as port:
        for _ in range(20):
            assert probe("127.0.0.1", port, POLICY, timeout_s=PATIENT_S).success
    assert threading.active_count() <= before + 1


# --- the source's half -----------------------------------------------------------------------


def probed() -> StagedTest:
    with listening(silent) as port:
        return probe("127.0.0.1", port, POLICY, timeout_s=PATIENT_S)


def test_a_login_completes_the_stages():
    both = with_login(probed(), latency_ms=12.5, tls=True)
    assert both.success
    assert states(both) == "PPPPPP"
    assert both.stage(StageName.AUTHENTICATION).latency_ms == 12.5
    assert states(with_login(probed(), latency_ms=1, tls=False)) == "PPSPPP"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (TlsHandshakeError("x"), "PPFSSS"),
        (AuthenticationFailedError("x"), "PPPFSS"),
        (DatabaseNotFoundError("x"), "PPPPFS"),
        (SourcePermissionError("x"), "PPPPPF"),
        (SourceTimeoutError("x"), "PPPFSS"),  # not TCP: that has just worked
        (MissingExtraError("x"), "PPPFSS"),
        (SourceError("x"), "PPPFSS"),
    ],
)
def test_an_error_of_the_login_is_put_at_its_stage(error: MatihError, expected: str):
    both = with_login(probed(), latency_ms=3, tls=True, error=error)
    assert states(both) == expected
    assert both.error is error
    assert both.remediation == diagnosis(error).remediation


def test_a_failed_probe_stays_what_it_is():
    failed = probe("no-such-host.invalid", 1, POLICY, timeout_s=PATIENT_S)
    assert with_login(failed, latency_ms=3, tls=True) is failed


def test_without_a_probe_the_login_answers_for_its_own_stages():
    assert states(with_login(NOT_PROBED, latency_ms=1, tls=True)) == "SSPPPP"
    refused = with_login(NOT_PROBED, latency_ms=1, tls=True, error=SourceTimeoutError("x"))
    assert states(refused) == "SFSSSS"
    assert refused.stage(StageName.TCP).state is StageState.FAILED


def test_every_code_of_a_connectivity_test_has_its_own_remedy():
    kinds = [
        kind
        for kind in (*SourceError.__subclasses__(), *_deeper(SourceError), MissingExtraError)
        if kind.code
        in {
            "CONNECTION_REFUSED", "AUTHENTICATION_FAILED", "SSL_HANDSHAKE_FAILED",
            "DATABASE_NOT_FOUND", "PERMISSION_DENIED", "TIMEOUT", "DNS_RESOLUTION_FAILED",
        }
    ]  # fmt: skip
    assert len(kinds) == 7
    assert len({diagnosis(kind("x")).remediation for kind in kinds}) == 7


def _deeper(kind: type[MatihError]) -> list[type[MatihError]]:
    return [each for below in kind.__subclasses__() for each in below.__subclasses__()]

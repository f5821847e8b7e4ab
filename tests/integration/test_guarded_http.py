"""Redirects, rebinding and shared addresses do not get around the host policy; real HTTP."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from matih_ray.errors import DnsResolutionError, HostNotAllowedError, SourceRejectedError
from matih_ray.sources.guarded_http import ADDRESSES_TTL_S, MAX_HOSTS, GuardedTransport
from matih_ray.sources.host_policy import HostPolicy
from tests.integration.certificates import Authority

METADATA = "169.254.169.254"


@dataclass
class Site:
    """A server on 127.0.0.1 and what it was asked: `Host` headers, bodies and connections."""

    port: int
    hosts: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    connections: set[tuple[str, int]] = field(default_factory=set)
    redirect: str | None = None


@contextlib.contextmanager
def serving(certificate: tuple[Path, Path] | None = None) -> Iterator[Site]:
    site = Site(0)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_any(self) -> None:
            site.hosts.append(self.headers["host"])
            site.bodies.append(self.rfile.read(int(self.headers.get("content-length") or 0)))
            site.connections.add(self.client_address)
            self.send_response(200 if site.redirect is None else 307)
            if site.redirect is not None:
                self.send_header("location", site.redirect)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        do_GET = do_POST = do_any  # noqa: N815 - http.server's names

        def log_message(self, *_: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass  # a handshake that the client breaks off

    with Quiet(("127.0.0.1", 0), Handler) as server:
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        site.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield site
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as running:
        yield running


Names = dict[str, list[list[str]]]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """Names of a DNS that is the attacker's: each question gets the next answer, then the last.

    The system's resolver is replaced, because no public name may be asked here; nothing of ours is.
    """
    answers: Names = {}
    real = socket.getaddrinfo

    def resolve(host: str, port: int, *rest: object, **options: object) -> object:
        if host not in answers:
            return real(host, port, *rest, **options)
        found = answers[host].pop(0) if len(answers[host]) > 1 else answers[host][0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return answers


@contextlib.contextmanager
def client(
    policy: HostPolicy | None = None, clock: Callable[[], float] | None = None, **options: object
) -> Iterator[httpx.Client]:
    times = {} if clock is None else {"clock": clock}
    transport = GuardedTransport(policy or HostPolicy(), trust_env=False, **times, **options)
    with httpx.Client(transport=transport, trust_env=False, timeout=20) as opened:
        yield opened


def test_a_request_reaches_its_host_by_name(site: Site):
    with client() as http:
        answer = http.post(f"http://localhost:{site.port}/a?b=c", content=b"body")
    assert (answer.status_code, answer.text) == (200, "ok")
    assert str(answer.request.url) == f"http://localhost:{site.port}/a?b=c"
    assert site.hosts == [f"localhost:{site.port}"]
    assert site.bodies == [b"body"]


def test_connections_are_kept(site: Site):
    with client() as http:
        for _ in range(5):
            assert http.get(f"http://127.0.0.1:{site.port}/").is_success
    assert len(site.connections) == 1


@pytest.mark.parametrize("host", [METADATA, "2852039166", "[::ffff:169.254.169.254]", "0xa9fea9fe"])
def test_metadata_is_out_of_reach(host: str):
    with client() as http, pytest.raises(HostNotAllowedError):
        http.get(f"http://{host}/latest/meta-data/")


@pytest.mark.parametrize(
    "target", [f"http://{METADATA}/", "http://[fd00:ec2::254]/", "//0xa9fea9fe/", "http://evil.x/"]
)
def test_a_redirect_does_not_get_around_it(site: Site, names: Names, target: str):
    names["evil.x"] = [[METADATA]]
    site.redirect = target
    with client() as http, pytest.raises(HostNotAllowedError):
        http.get(f"http://127.0.0.1:{site.port}/", follow_redirects=True)
    assert len(site.hosts) == 1


def test_a_name_that_changes_its_meaning_gains_nothing(site: Site, names: Names):
    """The second answer would be used by a client that connects to the name."""
    names["rebind.x"] = [["127.0.0.1"], [METADATA]]
    with client() as http:
        assert http.get(f"http://rebind.x:{site.port}/").text == "ok"
    assert site.hosts == [f"rebind.x:{site.port}"]
    assert names["rebind.x"] == [[METADATA]]


def test_names_are_checked_again_after_a_while(site: Site, names: Names):
    names["rebind.x"] = [["127.0.0.1"], [METADATA]]
    now = [0.0]
    with client(clock=lambda: now[0]) as http:
        assert http.get(f"http://rebind.x:{site.port}/").is_success
        now[0] = ADDRESSES_TTL_S - 1
        assert http.get(f"http://rebind.x:{site.port}/").is_success
        now[0] = ADDRESSES_TTL_S
        with pytest.raises(HostNotAllowedError):
            http.get(f"http://rebind.x:{site.port}/")


def test_one_forbidden_address_among_several_is_enough(site: Site, names: Names):
    names["mixed.x"] = [["127.0.0.1", METADATA]]
    with client() as http, pytest.raises(HostNotAllowedError):
        http.get(f"http://mixed.x:{site.port}/")
    assert site.hosts == []


def test_the_next_address_is_tried_when_one_takes_no_connection(site: Site, names: Names):
    names["two.x"] = [["127.0.0.2", "127.0.0.1"]]  # nobody listens on the first
    with client() as http:
        answer = http.post(f"http://two.x:{site.port}/", content=iter([b"a", b"b"]), headers={
            "content-length": "2"})  # fmt: skip
    assert answer.is_success
    assert site.bodies == [b"ab"]


def test_a_host_that_is_away_is_httpx_own_error(site: Site, names: Names):
    names["away.x"] = [["127.0.0.2", "127.0.0.3"]]
    with client() as http:
        with pytest.raises(httpx.ConnectError):
            http.get(f"http://away.x:{site.port}/")
        with pytest.raises(DnsResolutionError):
            http.get("http://no-such-host.invalid/")


def test_a_certificate_is_checked_against_the_name(tmp_path: Path, names: Names):
    """Also when a connection to the same address is open, verified for another name."""
    authority = Authority(tmp_path)
    pair = authority.server("server", host="good.x")
    names["good.x"] = names["other.x"] = [["127.0.0.1"]]
    trust = ssl.create_default_context(cafile=authority.root)
    with serving((pair.certificate, pair.key)) as site, client(verify=trust) as http:
        assert http.get(f"https://good.x:{site.port}/").text == "ok"
        for host in ("other.x", "127.0.0.1"):
            with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
                http.get(f"https://{host}:{site.port}/")
        assert http.get(f"https://good.x.:{site.port}/").text == "ok"
    assert site.hosts == [f"good.x:{site.port}", f"good.x.:{site.port}"]


def test_one_source_has_a_limited_number_of_hosts(site: Site, names: Names):
    hosts = [f"h{number}.x" for number in range(MAX_HOSTS + 1)]
    names.update({host: [["127.0.0.1"]] for host in hosts})
    with client() as http:
        for host in hosts[:-1]:
            assert http.get(f"http://{host}:{site.port}/").is_success
        with pytest.raises(SourceRejectedError, match=str(MAX_HOSTS)):
            http.get(f"http://{hosts[-1]}:{site.port}/")
        assert http.get(f"http://{hosts[0]}:{site.port}/").is_success

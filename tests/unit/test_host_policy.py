"""Metadata addresses are out of reach, however they are spelled and whatever name leads there."""

from __future__ import annotations

import copy
import pickle
import socket
from ipaddress import ip_address

import pytest

from matih_ray.errors import ConfigurationError, DnsResolutionError, HostNotAllowedError
from matih_ray.settings import Settings
from matih_ray.sources.host_policy import HostPolicy

DEFAULT = HostPolicy.of(Settings())


def policy(**settings: object) -> HostPolicy:
    return HostPolicy.of(Settings(**settings))


METADATA = [
    "169.254.169.254",
    "169.254.169.254.",
    " 169.254.169.254",
    "2852039166",  # decimal
    "0xa9fea9fe",
    "0xA9.0xFE.0xA9.0xFE",
    "0251.0376.0251.0376",  # octal
    "169.254.43518",  # two parts and the rest
    "169.16689662",
    "169.254.170.2",  # ECS
    "１６９.２５４.１６９.２５４",  # noqa: RUF001 - full-width digits are the point
    "::ffff:169.254.169.254",
    "::ffff:a9fe:a9fe",
    "0:0:0:0:0:ffff:a9fe:a9fe",
    "::169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::a9fe:a9fe",
    "2002:a9fe:a9fe::1",  # 6to4
    "2001:0:a9fe:a9fe::1",  # Teredo's server
    "2001:0:1::5601:5601",  # Teredo's client, inverted
    "fe80::1",
    "fe80::a9fe:a9fe%1",
    "fd00:ec2::254",
    "fd00:ec2::23",
    "fd20:ce::254",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
]


@pytest.mark.parametrize("host", METADATA)
def test_metadata_addresses_are_refused_in_every_spelling(host: str):
    with pytest.raises((HostNotAllowedError, DnsResolutionError)) as caught:
        DEFAULT.resolve_allowed(host, 80)
    if _resolves(host.strip().rstrip(".")):
        assert caught.type is HostNotAllowedError
        assert caught.value.context["host"]


def _resolves(host: str) -> bool:
    try:
        return bool(socket.getaddrinfo(host, 80))
    except (OSError, UnicodeError):
        return False


def test_most_spellings_do_resolve_here():
    """Otherwise the test above would show nothing."""
    refused = [host for host in METADATA if _resolves(host.strip().rstrip("."))]
    assert len(refused) > len(METADATA) - 4
    assert {"2852039166", "0xa9fea9fe", "0251.0376.0251.0376"} <= set(refused)


@pytest.mark.parametrize("host", ["169.254.169.254", "fd00:ec2::254", "0xa9fea9fe"])
def test_no_setting_opens_metadata_addresses(host: str):
    for opened in ("0.0.0.0/0,::/0", "169.254.169.254", "169.254.0.0/16,fd00:ec2::/32"):
        with pytest.raises(HostNotAllowedError, match="metadata"):
            policy(hosts_allowed=opened).resolve_allowed(host, 80)


@pytest.mark.parametrize("host", ["0.0.0.0", "0", "::", "224.0.0.1", "255.255.255.255", "ff02::1"])
def test_what_is_no_host_is_refused(host: str):
    with pytest.raises(HostNotAllowedError):
        DEFAULT.resolve_allowed(host, 80)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("10.1.2.3", "10.1.2.3"),
        ("192.168.0.9.", "192.168.0.9"),
        ("8.8.8.8", "8.8.8.8"),
        ("::1", "::1"),
        ("2001:db8::5", "2001:db8::5"),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.1"),
    ],
)
def test_other_addresses_are_allowed_and_returned(host: str, address: str):
    assert DEFAULT.resolve_allowed(host, 5432) == (ip_address(address),)


def test_the_answer_is_what_the_check_saw():
    found = DEFAULT.resolve_allowed("localhost", 80)
    assert found
    assert all(address.is_loopback for address in found)
    assert DEFAULT.resolve_allowed("LOCALHOST.", 80) == found


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "127.9", "::1", "10.0.0.1", "172.16.0.1", "192.168.1.1",
             "100.64.0.1", "fd12::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1",
             "64:ff9b::7f00:1", "2002:7f00:1::", "/var/run/postgresql", "@abstract"],
)  # fmt: skip
def test_private_hosts_can_be_denied(host: str):
    with pytest.raises(HostNotAllowedError):
        policy(private_hosts=False).resolve_allowed(host, 80)


def test_public_addresses_stay_allowed_where_private_ones_are_denied():
    strict = policy(private_hosts=False)
    assert strict.resolve_allowed("8.8.8.8", 80) == (ip_address("8.8.8.8"),)
    assert strict.resolve_allowed("172.32.0.1", 80) == (ip_address("172.32.0.1"),)


def test_one_denied_address_among_several_is_enough(monkeypatch: pytest.MonkeyPatch):
    answers = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80))
        for address in ("8.8.8.8", "169.254.169.254")
    ]
    # the resolver, and nothing of ours, because no name here has two such addresses
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answers)
    with pytest.raises(HostNotAllowedError, match=r"169\.254\.169\.254"):
        DEFAULT.resolve_allowed("two.example", 80)


def test_a_name_is_resolved_once(monkeypatch: pytest.MonkeyPatch):
    """A name that changes between check and use would otherwise pass."""
    asked = []

    def rebinding(name: str, port: int, **_: object) -> list[object]:
        asked.append(name)
        address = "8.8.8.8" if len(asked) == 1 else "169.254.169.254"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    assert DEFAULT.resolve_allowed("rebind.example", 80) == (ip_address("8.8.8.8"),)
    assert asked == ["rebind.example"]


def test_an_allow_list_allows_nothing_else():
    only = policy(hosts_allowed="10.0.0.0/8, localhost, .internal.example")
    assert only.resolve_allowed("10.255.0.1", 1) == (ip_address("10.255.0.1"),)
    assert only.resolve_allowed("::ffff:10.0.0.1", 1) == (ip_address("::ffff:10.0.0.1"),)
    assert only.resolve_allowed("LocalHost.", 1)
    for host in ("11.0.0.1", "127.0.0.1", "::1", "::ffff:11.0.0.1", "/run/postgresql"):
        with pytest.raises(HostNotAllowedError):
            only.resolve_allowed(host, 1)


@pytest.mark.parametrize(
    ("entry", "host", "denied"),
    [
        ("127.0.0.0/8", "localhost", True),
        ("localhost", "\uff4cocalhost", True),  # a full-width l
        ("localhost", "localhost\u3002", True),  # an ideographic full stop
        ("\uff2cocalhost.", "localhost", True),
        ("::1", "::1", True),
        ("localhost", "localhost", True),
        ("localhost", "LOCALHOST.", True),
        ("localhost", "db.localhost", True),
        (".localhost", "localhost", False),
        ("host", "localhost", False),  # whole labels only
        ("10.0.0.0/8", "127.0.0.1", False),
    ],
)
def test_a_deny_list_denies_networks_and_names(entry: str, host: str, denied: bool):
    checked = policy(hosts_denied=entry)
    if denied:
        with pytest.raises(HostNotAllowedError):
            checked.resolve_allowed(host, 80)
    else:
        assert checked.resolve_allowed(host, 80)


def test_denials_win_over_what_is_allowed():
    both = policy(hosts_allowed="127.0.0.0/8", hosts_denied="127.0.0.2")
    assert both.resolve_allowed("127.0.0.1", 1)
    with pytest.raises(HostNotAllowedError):
        both.resolve_allowed("127.0.0.2", 1)


@pytest.mark.parametrize(
    "host",
    ["no-such-host.invalid", "", ".", "a..b", "x" * 64 + ".example", "y" * 300, "a\x00b", "a b",
     "169.254.169.254,localhost", "[::1]", "user@localhost", "127.0.0.1:80"],
)  # fmt: skip
def test_what_cannot_be_resolved_is_a_dns_error(host: str):
    with pytest.raises(DnsResolutionError):
        DEFAULT.resolve_allowed(host, 80)


@pytest.mark.parametrize("entry", ["10.0.0.1/8", "10.0.0", "a b", "https://x.example", "*.x.y"])
def test_an_entry_that_means_nothing_is_refused(entry: str):
    for setting in ("hosts_allowed", "hosts_denied"):
        with pytest.raises(ConfigurationError, match=f"MATIH_{setting.upper()}"):
            policy(**{setting: entry})


def test_a_policy_is_a_value():
    one = policy(hosts_denied="10.0.0.0/8,.x.example", private_hosts=False)
    assert pickle.loads(pickle.dumps(one)) == copy.copy(one) == one
    assert hash(one) == hash(policy(hosts_denied="10.0.0.0/8,.x.example", private_hosts=False))


def test_sockets_of_the_machine_have_no_address():
    assert DEFAULT.resolve_allowed("/var/run/postgresql", 5432) == ()

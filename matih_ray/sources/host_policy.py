"""Where a source may be: checked on the addresses that a host resolves to, never on its spelling.

A tenant types the host of a connector, so it could be that of a cloud's metadata service, which
gives credentials to whoever asks from inside. Looking at the text would not help: the same address
has decimal, octal, hexadecimal and IPv6 spellings, and any name may lead to it. So a host is
resolved once, as the system resolver would, all its addresses are checked, and the caller connects
to one of *these*: a name that resolves to something else a moment later (DNS rebinding) gains
nothing. Redirects are new hosts and must come through here again.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from matih_ray.errors import ConfigurationError, DnsResolutionError, HostNotAllowedError
from matih_ray.settings import Settings

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# RFC 1035 §2.3.4, without the dot at the end.
MAX_HOST_CHARS = 253


def _networks(*texts: str) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


# No setting opens these: no data source is there, and what is there gives credentials away.
_METADATA = _networks(
    "169.254.0.0/16",  # link-local: the metadata services of AWS, Azure, Google and most others
    "fe80::/10",  # link-local
    "fd00:ec2::/32",  # AWS
    "fd20:ce::254/128",  # Google Cloud
    "100.100.100.200/32",  # Alibaba Cloud
    "168.63.129.16/32",  # Azure's platform channel
    "192.0.0.192/32",  # Oracle Cloud
)
# Not the address of one host; Linux takes 0.0.0.0 and :: for the machine itself.
_NO_HOST = _networks("0.0.0.0/8", "224.0.0.0/4", "240.0.0.0/4", "::/128", "ff00::/8")
_PRIVATE = _networks(
    "127.0.0.0/8",
    "::1/128",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",  # RFC 6598, used inside clouds
    "fc00::/7",
    "fec0::/10",  # site-local, deprecated and still routed in places
)
# IPv6 addresses whose last 32 bits are an IPv4 address that packets are translated to.
_EMBEDDING = _networks("::/96", "64:ff9b::/96", "64:ff9b:1::/48")


@dataclass(frozen=True)
class HostPolicy:
    """Where sources may be. Suffixes are lower case; one with a dot in front means only what is
    below it.

    With `allowed_networks` or `allowed_suffixes`, a host must be in one of them. Denials win.
    """

    allowed_networks: tuple[Network, ...] = ()
    allowed_suffixes: tuple[str, ...] = ()
    denied_networks: tuple[Network, ...] = ()
    denied_suffixes: tuple[str, ...] = ()
    private_hosts: bool = True

    @classmethod
    def of(cls, settings: Settings) -> HostPolicy:
        """The policy that the settings ask for.

        Raises:
            ConfigurationError: An entry is neither a network nor a host suffix.
        """
        allowed_networks, allowed_suffixes = _entries(settings.hosts_allowed, "hosts_allowed")
        denied_networks, denied_suffixes = _entries(settings.hosts_denied, "hosts_denied")
        return cls(
            allowed_networks,
            allowed_suffixes,
            denied_networks,
            denied_suffixes,
            settings.private_hosts,
        )

    def resolve_allowed(self, host: str, port: int) -> tuple[Address, ...]:
        """The addresses of a host, all of them allowed, in the resolver's order; connect to these.

        One resolution, which takes as long as the system resolver does. A path (the directory of a
        local socket) has no address: the answer is empty if it is allowed.

        Raises:
            HostNotAllowedError: The host, or any one of its addresses, is not allowed.
            DnsResolutionError: There is no such host.
        """
        if host.startswith(("/", "@")):
            self._check_local_socket(host)
            return ()
        name = _ascii(host)
        if any(_under(name, suffix) for suffix in self.denied_suffixes):
            raise _refused(host, "is on the list of denied hosts")
        addresses = _resolve(name, host, port)
        for address in addresses:
            self._check(name, host, address)
        return addresses

    def check_addresses(self, host: str, addresses: Collection[Address]) -> None:
        """Check what somebody else has resolved a host to.

        Raises:
            HostNotAllowedError: The host, or any one of the addresses, is not allowed.
        """
        name = _ascii(host)
        if any(_under(name, suffix) for suffix in self.denied_suffixes):
            raise _refused(host, "is on the list of denied hosts")
        for address in addresses:
            self._check(name, host, address)

    def _check_local_socket(self, host: str) -> None:
        if not self.private_hosts or self.allowed_networks or self.allowed_suffixes:
            raise _refused(host, "is a socket of the machine itself")

    def _check(self, name: str, host: str, address: Address) -> None:
        """Raise unless the address, in every way it can be meant, is allowed."""
        for meaning in _meanings(address):
            reason = self._reason_against(meaning)
            if reason is not None:
                raise _refused(host, f"is {meaning}, {reason}")
        if not (self.allowed_networks or self.allowed_suffixes):
            return
        by_name = any(_under(name, suffix) for suffix in self.allowed_suffixes)
        # of a mapped address the operator names the IPv4 form, so one meaning is enough here
        if not by_name and not any(
            _within(meaning, self.allowed_networks) for meaning in _meanings(address)
        ):
            raise _refused(host, f"is {address}, which is not on the list of allowed hosts")

    def _reason_against(self, address: Address) -> str | None:
        if _within(address, _METADATA):
            return "a link-local or metadata address"
        if _within(address, _NO_HOST):
            return "not the address of one host"
        if _within(address, self.denied_networks):
            return "which is on the list of denied hosts"
        if not self.private_hosts and _within(address, _PRIVATE):
            return "a private address"
        return None


def _ascii(host: str) -> str:
    """The one spelling of a host that names are compared in; empty if it can be none."""
    bare = host.strip().rstrip(".")
    if len(bare) > MAX_HOST_CHARS:  # the codec's time grows with the square
        return ""
    try:
        # IDNA maps full-width letters, other dots and other scripts, as the resolver does
        name = bare.encode("idna").decode("ascii").rstrip(".").lower()
    except UnicodeError:  # a label that is empty or too long for DNS
        return ""
    return "" if len(name) > MAX_HOST_CHARS or "\x00" in name else name


def _resolve(name: str, host: str, port: int) -> tuple[Address, ...]:
    unknown = DnsResolutionError(
        f"the host {_shown(host)} is not known here; check its spelling and this runtime's DNS",
        host=_shown(host),
    )
    if not name:
        raise unknown
    try:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise unknown from None
    addresses = (ipaddress.ip_address(str(entry[4][0])) for entry in found)
    return tuple(dict.fromkeys(addresses))


def _meanings(address: Address) -> Iterator[Address]:
    """The address itself and the IPv4 addresses that it may be translated to."""
    yield address
    if not isinstance(address, ipaddress.IPv6Address):
        return
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
    # not :: and ::1, which are addresses of their own
    if _within(address, _EMBEDDING) and int(address) > 1:
        yield ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)


def _within(address: Address, networks: tuple[Network, ...]) -> bool:
    return any(address in network for network in networks)


def _under(name: str, suffix: str) -> bool:
    below = suffix if suffix.startswith(".") else f".{suffix}"
    return name == suffix or name.endswith(below)


def _refused(host: str, why: str) -> HostNotAllowedError:
    return HostNotAllowedError(
        f"sources may not be at {_shown(host)}: it {why}; use another host, or ask the operator of "
        "this runtime to allow it",
        host=_shown(host),
    )


def _shown(host: str) -> str:
    """The host on one line of a bounded length."""
    return repr(host[:MAX_HOST_CHARS])[1:-1]


def _entries(text: str | None, setting: str) -> tuple[tuple[Network, ...], tuple[str, ...]]:
    networks: list[Network] = []
    suffixes: list[str] = []
    for written in (text or "").lower().split(","):
        entry = written.strip().rstrip(".")
        if not entry:
            continue
        try:
            networks.append(ipaddress.ip_network(entry))
        except ValueError:
            if not _is_suffix(entry) or not _ascii(entry.removeprefix(".")):
                raise ConfigurationError(
                    f"MATIH_{setting.upper()} holds {entry!r}, which is neither a network like "
                    "10.0.0.0/8 (no bits beyond the prefix) nor a host suffix like .example.com",
                    setting=setting,
                ) from None
            below = "." if entry.startswith(".") else ""
            suffixes.append(below + _ascii(entry.removeprefix(".")))
    return tuple(networks), tuple(suffixes)


def _is_suffix(entry: str) -> bool:
    labels = entry.removeprefix(".").split(".")
    return all(label.replace("-", "").replace("_", "").isalnum() for label in labels) and not (
        labels[-1].isdigit()  # a mistyped address
    )

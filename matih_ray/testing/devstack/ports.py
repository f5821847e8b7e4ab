"""Free loopback ports."""

from __future__ import annotations

import socket

# Ports that were given out: the system may name one again as long as nobody listens on it yet.
_given: set[int] = set()


def free_port() -> int:
    """A TCP port that is free on 127.0.0.1 now, outside the range Ray gives to its workers, and
    that this process was not given before."""
    for _ in range(50):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if not 10_000 <= port <= 20_000 and port not in _given:
            _given.add(port)
            return port
    raise RuntimeError("no free loopback port outside 10000-20000 after 50 tries")

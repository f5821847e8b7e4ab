"""What happens to a conversation, and what it wants done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import SecretStr

from matih_ray.agent.conversation import Destination, Outcome, Stream
from matih_ray.model.ids import EndpointId

# --- events ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Opened:
    """A session was opened."""


@dataclass(frozen=True)
class Said:
    """The user wrote something."""

    text: str


@dataclass(frozen=True)
class Connected:
    """The test succeeded; the connector is stored. `keeps_changes`: its tables can be loaded by the
    log of their changes."""

    connector_id: EndpointId
    name: str
    server_version: str | None = None
    keeps_changes: bool = False


@dataclass(frozen=True)
class Discovered:
    """The catalog as it is now. `total` counts streams beyond those given, too; `sinks` is where
    rows can go."""

    streams: tuple[Stream, ...]
    total: int
    skipped: int = 0
    sinks: tuple[Destination, ...] = ()


@dataclass(frozen=True)
class Executed:
    """What became of each chosen stream."""

    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True)
class Failed:
    """An effect failed; the message is for people."""

    message: str


@dataclass(frozen=True)
class Forbidden:
    """The user may not do this (403)."""


@dataclass(frozen=True)
class Pending:
    """An effect is still under way behind this conversation's back."""


@dataclass(frozen=True)
class Unresolved:
    """A host that was given cannot be used from here; the message says why."""

    message: str


Event = (
    Opened | Said | Connected | Discovered | Executed | Failed | Forbidden | Pending | Unresolved
)

# --- effects ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class KeepSecrets:
    """Hold these for the connector, apart from the session. Do not show in `repr`."""

    secrets: Mapping[str, SecretStr]


@dataclass(frozen=True)
class CheckHost:
    """See whether a host has an address. Answered by Unresolved, if by anything."""

    host: str


@dataclass(frozen=True)
class DropSecrets:
    """Forget what is held."""

    kind: Literal["drop"] = "drop"


@dataclass(frozen=True)
class Connect:
    """Test the connection and save the connector. Answered by Connected, Failed, Pending."""

    kind: Literal["connect"] = "connect"


@dataclass(frozen=True)
class Discover:
    """List the streams, read anew if `is_new`. Answered by Discovered, Failed, Pending."""

    is_new: bool = False
    kind: Literal["discover"] = "discover"


@dataclass(frozen=True)
class Execute:
    """Start first runs and create schedules, those that are missing. Answered by Executed."""

    kind: Literal["execute"] = "execute"


@dataclass(frozen=True)
class Remove:
    """Delete a connector that nothing was loaded with."""

    connector_id: EndpointId
    kind: Literal["remove"] = "remove"


# What has to be done even if the process that began it has died. It may be repeated.
LongEffect = DropSecrets | Connect | Discover | Execute | Remove
Effect = KeepSecrets | CheckHost | LongEffect

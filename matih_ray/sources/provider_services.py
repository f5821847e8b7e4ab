"""What the calls of one tenant to one provider share, beyond a process: pace, turns and tokens.

Handed to a source inside its `EndpointSpec` by whoever builds it, since only that side knows where
the other tasks are. A source that is built without them uses those of its own process.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from matih_ray.sources.rate_governor import ProcessGovernor, RateGovernor

# CPUs that reading a slice of such a provider takes. With one slice for each core, cores are idle
# while slices ask what must come first, and while they wait for their last answers. Not for APIs
# without a governor, of which nobody knows what they bear.
SLICE_CPUS = 0.5
# A turn that is not ended counts as ended after this long: its holder has died.
TURN_S = 60.0


class Turns(Protocol):
    """Lets one at a time do something that has a name."""

    def begin(self, name: str) -> bool:
        """Take the turn; False while somebody else has it."""

    def end(self, name: str) -> None:
        """Give the turn back."""


class SecretKeeper(Protocol):
    """The stored secrets of one connector, for those that the provider replaces."""

    def read(self) -> Mapping[str, str]: ...

    def write(self, secrets: Mapping[str, str]) -> None:
        """Replace all of them in one step."""


class ProcessTurns:
    """`Turns` for the threads of one process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._until: dict[str, float] = {}

    def begin(self, name: str) -> bool:
        """See `Turns`."""
        with self._lock:
            now = self._clock()
            if self._until.get(name, 0.0) > now:
                return False
            self._until[name] = now + TURN_S
            return True

    def end(self, name: str) -> None:
        """See `Turns`."""
        with self._lock:
            self._until.pop(name, None)


class ProcessSecrets:
    """A `SecretKeeper` that forgets when the process ends: for sources that are not stored."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        self._secrets = dict(secrets)

    def read(self) -> Mapping[str, str]:
        """See `SecretKeeper`."""
        return dict(self._secrets)

    def write(self, secrets: Mapping[str, str]) -> None:
        """See `SecretKeeper`."""
        self._secrets = dict(secrets)


@dataclass(frozen=True)
class ProviderServices:
    """The shared services of one connector. `secrets` is None where they are not stored."""

    governor: RateGovernor = field(default_factory=ProcessGovernor)
    turns: Turns = field(default_factory=ProcessTurns)
    secrets: SecretKeeper | None = None

"""A replica of the agent in a process of its own, to be killed: `python -m tests.agent.replica`.

Prints its URL. `--die-before` and `--die-after` name a method of `Backend` around which the process
ends as if its machine had lost power.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from matih_ray.agent.effects import Backend
from tests.agent.lab import open_agent_lab
from tests.api.server import serving

ROOT = Path(__file__).parents[2]


class Replica:
    """A running one."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process = process
        self.url = url

    def kill(self) -> None:
        """End it as the kernel does when memory is short."""
        self.process.kill()
        self.process.wait()


@contextmanager
def replica(home: Path, redis_url: str, *options: str) -> Iterator[Replica]:
    """A replica over these stores."""
    command = [sys.executable, "-m", "tests.agent.replica", str(home), redis_url, *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    try:
        yield Replica(process, process.stdout.readline().strip())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def dying(name: str, *, before: bool) -> None:
    """Let this process end around a method."""
    method = getattr(Backend, name)

    def deadly(*args: object, **kwargs: object) -> None:
        if not before:
            method(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(Backend, name, deadly)


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("home", type=Path)
    parser.add_argument("redis_url")
    parser.add_argument("--die-before")
    parser.add_argument("--die-after")
    args = parser.parse_args()
    if args.die_before or args.die_after:
        dying(args.die_before or args.die_after, before=bool(args.die_before))
    # other connectors take seconds to import
    types = ("MEMORY", "POSTGRESQL")
    for lab in open_agent_lab(args.home, types, agent_sessions_url=args.redis_url):
        with serving(lab.app) as url:
            sys.stdout.write(url + "\n")
            sys.stdout.flush()
            signal.pause()


if __name__ == "__main__":
    main()

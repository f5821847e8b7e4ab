"""The command line: a client of the control API, and `matih sql`, which runs in this process.

It talks HTTP, so that it can do exactly what any other client can and works from any machine; it
never imports Ray. May import `api.wire` (the shapes of answers), `api.tokens` for `matih token`,
`model`, and `streaming` for `matih sql`. Each module holds the commands of one noun.

Exit codes: 0 done; 1 the answer is no (a run that did not complete, a connection that failed);
2 the caller's fault; 3 the environment (unreachable, refused, no valid token); 70 a bug; 130
interrupted.
"""

from __future__ import annotations

import sys

from matih_ray.cli.app import app
from matih_ray.cli.failures import EXIT_BUG, CliError
from matih_ray.cli.output import complain

__all__ = ["main"]


def main() -> None:
    """The `matih` command."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a name may hold anything
    try:
        app(prog_name="matih")
    except CliError as error:
        complain(error.message, error.problem)
        sys.exit(error.exit_code)
    except Exception as error:  # noqa: BLE001 the boundary: a bug has its exit code too
        complain(f"this is a bug in matih, please report it: {type(error).__name__}: {error}")
        sys.exit(EXIT_BUG)

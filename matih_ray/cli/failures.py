"""Exit codes, and the one error that commands end with."""

from __future__ import annotations

from matih_ray.api.wire import Problem

EXIT_NO = 1
EXIT_CALLER = 2
EXIT_ENVIRONMENT = 3
EXIT_BUG = 70  # EX_SOFTWARE of sysexits.h
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells count

# Statuses that say something about the service or the way to it, not about the request.
_ENVIRONMENT = frozenset({401, 407, 408, 429, 501, 502, 503, 504})


class CliError(Exception):
    """A command cannot do what it was asked; `problem` is what the API said, if it did."""

    def __init__(self, message: str, exit_code: int, problem: Problem | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code
        self.problem = problem


def of_problem(problem: Problem) -> CliError:
    """The error for a problem that the API answered with."""
    if problem.status in _ENVIRONMENT:
        exit_code = EXIT_ENVIRONMENT
    else:
        exit_code = EXIT_BUG if problem.status >= 500 else EXIT_CALLER
    return CliError(problem.detail, exit_code, problem)

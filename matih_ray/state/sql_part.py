"""What the parts of the SQL metadata store share: the database, the clock, reading documents."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any, TypeVar

from matih_ray.errors import StateVersionError, ValidationError
from matih_ray.model.value import Value
from matih_ray.state.engine import Database

Stored = TypeVar("Stored", bound=Value)

# For what listings read: whoever looks at the same rows again (pages refresh every few seconds)
# gets the frozen values that are known, instead of values parsed anew, which is most of a listing's
# time. As many as pages that people look at together, at some kilobytes each.
remembered = functools.lru_cache(maxsize=2048)


def utc_now() -> datetime:
    """The current time with its zone."""
    return datetime.now(timezone.utc)


class SqlPart:
    """One noun of the metadata store."""

    def __init__(self, database: Database, clock: Callable[[], datetime] = utc_now) -> None:
        self._database = database
        self._clock = clock


def stored_value(kind: type[Stored], document: str, /, **columns: Any) -> Stored:
    """The value of a row: its document completed by its columns.

    Raises:
        StateVersionError: The document was written by software with another idea of the value.
    """
    try:
        if not columns:
            return kind.from_json(document)
        return kind.from_json({**json.loads(document), **columns})
    except (ValidationError, ValueError) as error:
        problem = error.message if isinstance(error, ValidationError) else "not JSON"
        raise StateVersionError(
            f"a stored {kind.__name__} cannot be read by this software ({problem}); "
            "run the version that wrote it",
            kind=kind.__name__,
        ) from None

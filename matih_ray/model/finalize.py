"""What happens at the end of a run, before readers see any of its rows."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, field_validator

from matih_ray.model.value import Value

# Stands for the run's id in the name of a tag.
RUN = "{run}"
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


class Finalize(Value):
    """Write, audit, publish: a run's rows are gathered on a branch of the table and checked there,
    and readers see them all at once if, and only if, the checks pass.

    Always checked: every new file is there and the files hold as many rows as the run has written.
    `min_rows` is what the run must bring; `not_null` names columns without NULL in the run's rows;
    no two rows of the table may agree in `unique`, one of them being the run's. `tag` is a tag of
    the table that is set to what the run has published; `{run}` in it stands for the run's id.
    """

    min_rows: Annotated[int, Field(ge=0)] = 0
    not_null: tuple[str, ...] = ()
    unique: tuple[str, ...] = ()
    tag: str | None = None

    @field_validator("tag")
    @classmethod
    def _can_be_a_name(cls, tag: str | None) -> str | None:
        if tag is None:
            return None
        if not _TAG.fullmatch(tag.replace(RUN, "run")):
            raise ValueError("a tag is letters, digits, '.', '_' and '-', and {run} for the run")
        if tag == "main" or tag.startswith("matih-"):
            raise ValueError(f"{tag!r} is a name of the runtime's own; choose another tag")
        return tag

    @property
    def columns(self) -> tuple[tuple[str, str], ...]:
        """Every column that is named, with the field that names it."""
        named = [("notNull", name) for name in self.not_null]
        return (*named, *(("unique", name) for name in self.unique))

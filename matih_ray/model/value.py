"""The base of every value: frozen, camelCase in JSON, unknown keys refused."""

from __future__ import annotations

from typing import Any, TypeVar

import pydantic
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from matih_ray.errors import ValidationError

JsonValue = pydantic.JsonValue
Self = TypeVar("Self", bound="Value")


class Value(BaseModel):
    """A frozen value with a camelCase JSON form."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        ser_json_inf_nan="strings",
    )

    @classmethod
    def from_json(cls: type[Self], data: str | bytes | dict[str, Any]) -> Self:
        """Parse JSON text or an already decoded object.

        Raises:
            ValidationError: Names the first wrong field and says how many there are.
        """
        try:
            if isinstance(data, dict):
                return cls.model_validate(data)
            return cls.model_validate_json(data)
        except pydantic.ValidationError as error:
            raise invalid(cls.__name__, error) from None

    def to_json(self) -> str:
        """JSON text with camelCase keys."""
        return self.model_dump_json(by_alias=True)

    def to_dict(self) -> dict[str, JsonValue]:
        """The JSON form as Python objects."""
        return self.model_dump(mode="json", by_alias=True)


def invalid(what: str, error: pydantic.ValidationError) -> ValidationError:
    """Our typed error for pydantic's report, without the values (they may be secret)."""
    problems = error.errors(include_input=False, include_url=False)
    first = problems[0]
    field = ".".join(str(part) for part in first["loc"]) or "(root)"
    more = f" ({len(problems) - 1} more)" if len(problems) > 1 else ""
    return ValidationError(
        f"{what}: {field}: {first['msg']}{more}", field=field, problems=len(problems)
    )

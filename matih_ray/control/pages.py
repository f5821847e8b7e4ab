"""Pages of listings: one shape and one limit for all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from matih_ray.errors import ValidationError
from matih_ray.state.base import MAX_PAGE_ROWS

Item = TypeVar("Item")

DEFAULT_PAGE_ROWS = 100
# Below the stores' own limit, so that one row more can be asked for to know whether more exist.
MAX_PAGE_ITEMS = 500
# More than any listing has; databases count in 64 bits, and JSON numbers have no end.
MAX_OFFSET = 1_000_000_000
assert MAX_PAGE_ITEMS < MAX_PAGE_ROWS  # noqa: S101 a fact about two constants


@dataclass(frozen=True)
class Page(Generic[Item]):
    """Some items of a listing, and whether there are more after them."""

    items: Sequence[Item]
    offset: int
    limit: int
    has_more: bool


def page_of(fetch: Callable[[int, int], Sequence[Item]], offset: int, limit: int) -> Page[Item]:
    """The page that `fetch(offset, limit)` yields.

    Raises:
        ValidationError: `offset` or `limit` is out of range; context names the field.
    """
    if not 0 <= offset <= MAX_OFFSET:
        raise ValidationError(f"offset must be 0 to {MAX_OFFSET}", field="offset")
    if not 1 <= limit <= MAX_PAGE_ITEMS:
        raise ValidationError(
            f"limit is {limit}; a page has 1 to {MAX_PAGE_ITEMS} items", field="limit"
        )
    found = fetch(offset, limit + 1)
    return Page(found[:limit], offset, limit, has_more=len(found) > limit)

"""What the stores accept as identifiers and pages, the same in front of each of them."""

from __future__ import annotations

from matih_ray.errors import ValidationError
from matih_ray.state.base import MAX_PAGE_ROWS

# PostgreSQL refuses an index entry above a third of its 8 kB page (about 2,700 bytes). The widest
# key is four identifiers (tenant, endpoint, unit, sink), or a tenant and a key of the KV store.
MAX_NAME_BYTES = 500
MAX_KEY_BYTES = 2_000


def checked_name(value: str, max_bytes: int = MAX_NAME_BYTES) -> str:
    """The identifier itself, if every store can hold it.

    Raises:
        ValidationError: Empty, too long, or with a character that some store cannot hold (NUL,
            a lone surrogate). The message does not repeat the value.
    """
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise ValidationError("an identifier holds a character that is not valid Unicode") from None
    if size == 0:
        raise ValidationError("an identifier is empty")
    if size > max_bytes:
        raise ValidationError(
            f"an identifier of {size} bytes is too long; at most {max_bytes} are allowed",
            bytes=size,
        )
    if "\x00" in value:
        raise ValidationError("an identifier holds a NUL character; remove it")
    return value


def check_page(offset: int, limit: int) -> None:
    """Raise `ValidationError` unless this is a page that a listing may return."""
    if offset < 0:
        raise ValidationError(f"offset is {offset}; it starts at 0", field="offset")
    if not 1 <= limit <= MAX_PAGE_ROWS:
        raise ValidationError(
            f"limit is {limit}; a page has 1 to {MAX_PAGE_ROWS} rows", field="limit"
        )

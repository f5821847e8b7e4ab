"""Which tables there are."""

from __future__ import annotations

from collections.abc import Iterator

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchNamespaceError


def tables_below(catalog: Catalog, namespace: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Identifiers of all tables in a namespace and the namespaces within it."""
    try:
        yield from (tuple(name) for name in catalog.list_tables(namespace))
        deeper = [tuple(one) for one in catalog.list_namespaces(namespace)]
    except NoSuchNamespaceError:
        return
    for one in deeper:
        if one != namespace:
            yield from tables_below(catalog, one)

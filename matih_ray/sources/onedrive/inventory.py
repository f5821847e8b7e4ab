"""What is known of a drive from one run to the next: the tree of its items' ids. Pure.

Delta tells what is new. That a folder was renamed, that items below a deleted folder are gone, and
what a drive lost while its token was too old, shows only against what was there before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from matih_ray.sources.declared import packed, unpacked
from matih_ray.sources.onedrive.rows import ROOT, joined

# Of all drives of a checkpoint, which is one value of the key-value store: some hundred thousand
# items. What does not fit is not known.
MAX_STORED_CHARS = 2_500_000
# Items that a plan keeps in mind at a time, about 300 bytes each.
MAX_KNOWN_ITEMS = 1_000_000
# Folders in folders; SharePoint's paths have 400 characters at most.
MAX_DEPTH = 400
_NO_PARENT, _UNKNOWN_PARENT = -1, -2


@dataclass(frozen=True)
class Known:
    """One item: its folder's id, and its name if it is a folder itself."""

    parent: str | None
    folder_name: str | None = None


@dataclass
class Tree:
    """The items of a drive by id."""

    items: dict[str, Known] = field(default_factory=dict)

    def copy(self) -> Tree:
        """One that can be changed."""
        return Tree(dict(self.items))

    def path(self, folder_id: str | None) -> str | None:
        """A folder's path; None if it, or a folder above it, is not known."""
        names: list[str] = []
        current = folder_id
        for _ in range(MAX_DEPTH):
            known = self.items.get(current) if current is not None else None
            if known is None or known.folder_name is None:
                return None
            if known.parent is None:
                break
            names.append(known.folder_name)
            current = known.parent
        else:
            return None
        path: str | None = ROOT
        for name in reversed(names):
            path = joined(path, name)
        return path

    def below(self, folders: Iterable[str]) -> Iterator[str]:
        """Ids of all items in folders, at any depth."""
        children: dict[str, list[str]] = {}
        for item_id, known in self.items.items():
            if known.parent is not None:
                children.setdefault(known.parent, []).append(item_id)
        waiting = list(folders)
        seen = set(waiting)
        while waiting:
            for child in children.get(waiting.pop(), ()):
                if child not in seen:
                    seen.add(child)
                    waiting.append(child)
                    yield child


def stored(tree: Tree) -> str:
    """A tree as a checkpoint keeps it."""
    ids = sorted(tree.items)
    numbers = {item_id: number for number, item_id in enumerate(ids)}
    parents = [_number(numbers, tree.items[item_id].parent) for item_id in ids]
    names = [(numbers[i], tree.items[i].folder_name) for i in ids]
    return packed([ids, parents, {str(n): name for n, name in names if name is not None}])


def restored(text: str) -> Tree:
    """A tree that a checkpoint keeps.

    Raises:
        PlanError: It is not one of ours.
    """
    ids, parents, names = unpacked(text)
    return Tree(
        {
            item_id: Known(_parent(ids, parent), names.get(str(number)))
            for number, (item_id, parent) in enumerate(zip(ids, parents, strict=True))
        }
    )


def _number(numbers: Mapping[str, int], parent: str | None) -> int:
    return _NO_PARENT if parent is None else numbers.get(parent, _UNKNOWN_PARENT)


def _parent(ids: list[str], number: int) -> str | None:
    if number == _NO_PARENT:
        return None
    return "" if number == _UNKNOWN_PARENT else ids[number]

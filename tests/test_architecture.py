"""The shape of the code, held by reading it: who may import whom, no cycles, Ray in few places,
and nothing too long to be read at once."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROGRAMS = ("matih_ray", "serve_apps", "jobs")

# The arrow: each part may import parts of a lower rank, and itself. Parts of one rank do not know
# each other. What is not named here is an error, so that a new part gets its place on purpose.
RANKS = {
    "errors": 0,
    "kernels": 0,
    "settings": 0,
    "model": 1,
    "registry": 1,
    "telemetry": 1,
    "sources": 2,
    "mappers": 2,
    "staging": 2,
    "sinks": 2,
    "state": 2,
    "planning": 3,
    "control": 4,
    "agent": 5,
    "api": 6,
    "execution": 6,
    "streaming": 6,
    "cli": 7,
    "serve_apps": 8,
    "jobs": 8,
    "testing": 9,
}
# Steps to the side, each with its reason.
SIDEWAYS = {
    ("sinks", "matih_ray.sources.base"): "EndpointSpec describes configured sinks as well",
    ("sinks", "matih_ray.state.factory"): "the knowledge base is in the metadata store",
    ("sinks", "matih_ray.state.knowledge"): "the knowledge base is in the metadata store",
}
# The bare package holds the version only.
BARE = "matih_ray"

MAY_IMPORT_RAY = (
    "matih_ray.execution",
    "matih_ray.streaming.runtime",
    "matih_ray.streaming.savepoints",
    "matih_ray.staging.object_store",
    "serve_apps",
    "jobs",
)
# Contract suites are tests, the migrations a record, the errors a table: lists, not code to be held
# in mind.
UNLIMITED = ("matih_ray.testing.contracts", "matih_ray.state.migrations", "matih_ray.errors")
MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 70


@dataclass(frozen=True)
class Module:
    name: str
    path: Path
    tree: ast.Module
    lines: int

    @property
    def part(self) -> str:
        """The part of the architecture that the module belongs to."""
        first, _, rest = self.name.partition(".")
        return (rest.partition(".")[0] or BARE) if first == "matih_ray" else first


@cache
def modules() -> dict[str, Module]:
    found = {}
    for program in PROGRAMS:
        for path in sorted((ROOT / program).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            text = path.read_text()
            found[name] = Module(name, path, ast.parse(text), text.count("\n"))
    return found


def imported_names(module: Module) -> Iterator[str]:
    """Everything imported anywhere: at the top, in functions, for type checking only."""
    is_package = module.path.name == "__init__.py"
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.name.split(".")
                kept = len(parents) - node.level + is_package
                base = ".".join([*parents[:kept], *([base] if base else [])])
            # `from package import module` imports the module
            yield from (f"{base}.{alias.name}" for alias in node.names)


def dependencies(module: Module) -> set[str]:
    """Modules of ours that a module imports."""
    ours = set()
    for name in imported_names(module):
        candidate = name
        while candidate and candidate not in modules():
            candidate = candidate.rpartition(".")[0]
        if candidate:
            ours.add(candidate)
    return ours - {module.name}


def part_of(name: str) -> str:
    return modules()[name].part


def test_every_part_has_its_place():
    unknown = {module.part for module in modules().values()} - set(RANKS) - {BARE}
    assert not unknown, f"give {unknown} a rank"


def test_imports_point_one_way():
    wrong = []
    for module in modules().values():
        for imported in dependencies(module):
            mine, theirs = module.part, part_of(imported)
            if theirs in (BARE, mine) or (mine, imported) in SIDEWAYS:
                continue
            if mine == BARE or RANKS[theirs] >= RANKS[mine]:
                wrong.append(f"{module.name} ({mine}) imports {imported} ({theirs})")
    assert not wrong, "\n".join(sorted(wrong))


def test_every_step_to_the_side_is_still_taken():
    taken = {
        (module.part, imported)
        for module in modules().values()
        for imported in dependencies(module)
    }
    assert set(SIDEWAYS) <= taken


def test_nothing_in_the_product_imports_what_is_for_tests():
    wrong = [
        f"{module.name} imports {imported}"
        for module in modules().values()
        for imported in dependencies(module)
        if part_of(imported) == "testing" and module.part != "testing"
    ]
    assert not wrong


def test_testing_imports_no_program():
    wrong = [
        f"{module.name} imports {imported}"
        for module in modules().values()
        if module.part == "testing"
        for imported in dependencies(module)
        if part_of(imported) in ("cli", "serve_apps", "jobs")
    ]
    assert not wrong


def test_there_are_no_cycles_of_any_kind():
    graph = {name: dependencies(module) for name, module in modules().items()}
    cycles = [sorted(component) for component in components(graph) if len(component) > 1]
    assert not cycles, f"modules that import each other: {cycles}"


def components(graph: dict[str, set[str]]) -> Iterator[set[str]]:
    """Strongly connected components, by depth-first search forwards and then backwards
    (Kosaraju's algorithm)."""
    order: list[str] = []
    seen: set[str] = set()
    for start in graph:
        _finish(start, graph, seen, order)
    backwards: dict[str, set[str]] = {name: set() for name in graph}
    for name, targets in graph.items():
        for target in targets:
            backwards[target].add(name)
    seen = set()
    for name in reversed(order):
        component: list[str] = []
        _finish(name, backwards, seen, component)
        yield set(component)


def _finish(start: str, graph: dict[str, set[str]], seen: set[str], order: list[str]) -> None:
    if start in seen:
        return
    seen.add(start)
    stack = [(start, iter(graph[start]))]
    while stack:
        name, targets = stack[-1]
        following = next((target for target in targets if target not in seen), None)
        if following is None:
            order.append(name)
            stack.pop()
        else:
            seen.add(following)
            stack.append((following, iter(graph[following])))


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        ({"a": {"b"}, "b": set()}, []),
        ({"a": {"b"}, "b": {"a"}}, [{"a", "b"}]),
        (
            {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": {"e"}, "e": {"d"}},
            [{"a", "b", "c"}, {"d", "e"}],
        ),
    ],
)
def test_a_cycle_would_be_found(graph: dict[str, set[str]], expected: list[set[str]]):
    found = [component for component in components(graph) if len(component) > 1]
    assert sorted(found, key=min) == expected


def test_ray_is_imported_only_where_work_is_placed():
    wrong = [
        f"{module.name} imports {name}"
        for module in modules().values()
        if not any(
            module.name == allowed or module.name.startswith(allowed + ".")
            for allowed in MAY_IMPORT_RAY
        )
        for name in imported_names(module)
        if name.split(".")[0] == "ray"
    ]
    assert not wrong, "\n".join(wrong)


def test_modules_can_be_read_at_once():
    long = {
        module.name: module.lines
        for module in modules().values()
        if module.lines > MAX_MODULE_LINES and not module.name.startswith(UNLIMITED)
    }
    assert not long


def test_functions_can_be_seen_at_once():
    long = {
        f"{module.name}:{node.name}": node.end_lineno - node.lineno + 1
        for module in modules().values()
        if not module.name.startswith(UNLIMITED)
        for node in ast.walk(module.tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > MAX_FUNCTION_LINES
    }
    assert not long


def test_every_package_says_what_it_is_for():
    silent = [module.name for module in modules().values() if not ast.get_docstring(module.tree)]
    assert not silent


@pytest.mark.parametrize("name", ["utils", "util", "helpers", "helper", "common", "misc"])
def test_no_module_is_named_for_nothing(name: str):
    assert not [module for module in modules() if module.split(".")[-1] == name]

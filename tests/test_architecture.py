"""Imports point one way and never in a circle, Ray stays where it belongs, modules stay small.

All imports count: at module level, inside functions, and under `TYPE_CHECKING`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("matih_ray", "serve_apps", "jobs")

# Innermost first; a layer may import itself and every layer before it. Peers share a row.
LAYERS: list[set[str]] = [
    {"matih_ray.errors", "matih_ray"},
    {"matih_ray.model"},
    {"matih_ray.settings", "matih_ray.registry"},
    {"matih_ray.telemetry"},
    {"matih_ray.sources", "matih_ray.staging", "matih_ray.state"},
    {"matih_ray.sinks"},
    {"matih_ray.planning"},
    {"matih_ray.control"},
    {"matih_ray.api", "matih_ray.execution"},
    {"matih_ray.cli", "serve_apps"},
    {"jobs"},
]
# Sinks share the value that describes a connector with sources, and nothing else of theirs.
SHARED = {"matih_ray.sources.base"}
RAY_ALLOWED = ("matih_ray.execution", "matih_ray.staging.object_store", "serve_apps", "jobs")
TESTING = "matih_ray.testing"
MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def sources() -> dict[str, tuple[Path, ast.Module]]:
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            found[module_name(path)] = (path, ast.parse(path.read_text()))
    return found


def imports_of(name: str) -> Iterator[str]:
    """Modules that a module imports; names imported from a package count as their module."""
    for node in ast.walk(sources()[name][1]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{name} has a relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in sources() else node.module


def layer_of(name: str) -> int | None:
    for depth, layer in enumerate(LAYERS):
        for package in layer:
            if name == package or (package != "matih_ray" and name.startswith(package + ".")):
                return depth
    return None


def package_of(name: str) -> list[str]:
    """What counts as one package: `matih_ray.state`, `serve_apps`."""
    parts = name.split(".")
    return parts[: 2 if parts[0] == "matih_ray" else 1]


def product() -> list[str]:
    return [name for name in sources() if not name.startswith(TESTING)]


@pytest.mark.parametrize("name", product())
def test_imports_point_inwards(name: str) -> None:
    depth = layer_of(name)
    assert depth is not None, f"{name} belongs to no layer"
    for imported in imports_of(name):
        if imported not in sources() or imported in SHARED:
            continue
        assert not imported.startswith(TESTING), f"{name} imports test code: {imported}"
        inner = layer_of(imported)
        assert inner is not None
        assert inner < depth or package_of(imported) == package_of(name), (
            f"{name} must not import {imported}"
        )


def test_nothing_imports_in_a_circle() -> None:
    graph = {
        name: {imported for imported in imports_of(name) if imported in sources()}
        for name in sources()
    }
    while True:
        leaves = {name for name, targets in graph.items() if not targets}
        if not leaves:
            break
        graph = {name: targets - leaves for name, targets in graph.items() if name not in leaves}
    assert graph == {}, f"these import each other: {sorted(graph)}"


@pytest.mark.parametrize("name", product())
def test_ray_stays_where_it_belongs(name: str) -> None:
    uses = any(imported.split(".")[0] == "ray" for imported in imports_of(name))
    assert not uses or name.startswith(RAY_ALLOWED), f"{name} imports Ray"


@pytest.mark.parametrize("name", list(sources()))
def test_modules_and_functions_stay_readable(name: str) -> None:
    path, tree = sources()[name]
    lines = path.read_text().count("\n")
    assert lines <= MODULE_LINES_MAX, f"{path} has {lines} lines"
    assert ast.get_docstring(tree), f"{path} does not say what it is for"
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= FUNCTION_LINES_MAX, f"{path}:{node.lineno} {node.name}: {length}"

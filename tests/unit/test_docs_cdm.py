"""docs/cdm.md says of every model what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from matih_ray.model.cdm import CDM_MODELS, ENVELOPE, CdmColumn
from matih_ray.registry import load_registry

PAGE = (Path(__file__).parents[2] / "docs" / "cdm.md").read_text()


def section(title: str) -> str:
    [text] = re.findall(
        rf"^##+ {re.escape(title)}\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL
    )
    return text


def rows(text: str) -> list[tuple[str, ...]]:
    """The cells of a table, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")][2:]
    return [tuple(cell.strip() for cell in line.strip("|").split(" | ")) for line in lines]


def told(columns: tuple[CdmColumn, ...]) -> list[tuple[str, ...]]:
    return [
        (f"`{one.name}`", f"{one.type}{', never NULL' if one.required else ''}", one.description)
        for one in columns
    ]


@pytest.mark.parametrize("model_id", CDM_MODELS)
def test_every_model_has_its_table(model_id: str):
    model = CDM_MODELS[model_id]
    assert model.description in section(model_id)
    assert rows(section(model_id)) == told(model.columns)


def test_no_model_is_described_that_does_not_exist():
    assert re.findall(r"^### (\S+)$", PAGE, re.MULTILINE) == list(CDM_MODELS)


def test_the_envelope_is_described():
    assert rows(section("The envelope")) == told(ENVELOPE)


def test_every_mapper_is_listed():
    plugins = load_registry()
    mapped = [
        (f"`{family}`", f"`{unit_id}`", f"`{mapper.model.model_id}`")
        for family in plugins.names("mappers")
        for unit_id, mapper in sorted(plugins.resolve("mappers", family).mappers.items())
    ]
    assert rows(section("What is mapped")) == mapped

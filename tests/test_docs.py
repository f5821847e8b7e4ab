"""Links lead somewhere, and the lock is one that any registry can serve."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page: Path):
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_page_is_in_the_index():
    index = (ROOT / "docs" / "index.md").read_text()
    assert [page.name for page in PAGES[1:] if f"({page.name})" not in index] == ["index.md"]


def test_the_lock_names_every_declared_requirement_and_no_registry():
    lock = (ROOT / "requirements.txt").read_text()
    project = (ROOT / "pyproject.toml").read_text()
    declared = set(re.findall(r'^  "([A-Za-z0-9_.-]+)[^"]*[<>=;]', project, re.MULTILINE))
    locked = set(re.findall(r"^([a-z0-9.-]+)==", lock, re.MULTILINE))
    assert len(declared) > 20
    assert {re.sub(r"[-_.]+", "-", name).lower() for name in declared} - locked == set()
    for page in [*ROOT.glob("requirements*.txt"), ROOT / "tests" / "benchmarks" / "peers.txt"]:
        text = page.read_text()
        assert "--hash=sha256:" in text
        assert "://" not in text
        assert "index" not in re.sub(r"--hash=\S+", "", text)

"""Test servers in JavaScript, fetched once by npm.

npm is asked, and not some address, because it knows its own registry and mirrors. The package's
version and checksum are pinned here; those of what it needs are npm's choice, checked by npm. What
was fetched is kept in the user's cache, and no package's install script is ever run.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

# Some hundred packages, from a registry that may be slow.
FETCH_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class NodePackage:
    """A package; `integrity` as npm writes it: the algorithm and the digest in base64."""

    name: str
    version: str
    integrity: str


def find_node() -> str:
    """The path of `node`.

    Raises:
        RuntimeError: There is none.
    """
    if path := shutil.which("node"):
        return path
    raise RuntimeError("no Node.js found: install node, 18 or newer, and npm")


def installed(package: NodePackage) -> Path:
    """The package's own directory, fetched if it is not in the cache.

    Raises:
        RuntimeError: npm is missing or failed, or the package is not the one that was pinned.
    """
    directory = _cache() / f"{package.name}-{package.version}"
    if not directory.exists():
        _fetch(package, directory)
    check(package, directory)
    return directory / "node_modules" / package.name


def check(package: NodePackage, directory: Path) -> None:
    """Compare what npm found with what was pinned.

    Raises:
        RuntimeError: It is another package.
    """
    lock = json.loads((directory / "node_modules" / ".package-lock.json").read_text())
    found = lock["packages"].get(f"node_modules/{package.name}", {}).get("integrity")
    if found != package.integrity:
        raise RuntimeError(
            f"{package.name} in {directory} has the checksum {found}, not {package.integrity}; "
            "remove it"
        )


def _fetch(package: NodePackage, directory: Path) -> None:
    """Fetch into a directory of our own and rename it: several processes may do so at a time."""
    npm = shutil.which("npm")
    if npm is None:
        raise RuntimeError(f"{package.name} comes from npm: install npm")
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent) as temporary:
        project = Path(temporary) / "project"
        project.mkdir()
        (project / "package.json").write_text('{"private": true}')
        done = subprocess.run(
            [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts",
             f"{package.name}@{package.version}"],
            cwd=project, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
            timeout=FETCH_TIMEOUT_S,
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(f"npm could not fetch {package.name}: {done.stderr[-2000:]}")
        check(package, project)
        try:
            project.rename(directory)
        except OSError:
            if not directory.exists():  # otherwise another process was faster
                raise


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "matih-ray" / "node"

"""The driver as the runtime of these tests has it: the real one, with a stand-in for `connect`.

This directory is in front on the path of the runtime's processes, so `import oracledb` finds this
file; it puts the real package in its own place. The product has no hook for it.
"""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path

HERE = str(Path(__file__).parent)

spec = PathFinder.find_spec("oracledb", [place for place in sys.path if place != HERE])
assert spec is not None
assert spec.loader is not None
real = module_from_spec(spec)
sys.modules["oracledb"] = real
spec.loader.exec_module(real)

from matih_ray.testing.devstack import oracle_driver  # noqa: E402 needs the real one

real.connect = oracle_driver.connect  # type: ignore[attr-defined]

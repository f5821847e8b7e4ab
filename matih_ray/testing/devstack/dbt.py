"""dbt with its adapter for Flink, in an environment of its own."""

from __future__ import annotations

from pathlib import Path

from matih_ray.testing.devstack.python_servers import environment

# The adapter was written for dbt-core 1.3, which Python 3.11 cannot import. With 1.4, which is one
# release younger, only this is left: what stands for a field of a dataclass must be made anew for
# each.
_FOR_1_4 = """
import importlib.util, pathlib, re
package = importlib.util.find_spec("dbt").submodule_search_locations[0]
path = pathlib.Path(package, "adapters", "flink", "relation.py")
text = path.read_text()
text, count = re.subn(r"= (Flink\\w+Policy)[(][)]", r"= field(default_factory=\\1)", text)
assert count == 2, text
# a new file: the installer's cache may share the old one
new = path.with_suffix(".new")
new.write_text("from dataclasses import field\\n" + text)
new.replace(path)
"""


def dbt_programs() -> Path:
    """The directory that `dbt` is in.

    Raises:
        RuntimeError: The environment could not be made.
    """
    return environment("dbt", _FOR_1_4, with_sources=True)

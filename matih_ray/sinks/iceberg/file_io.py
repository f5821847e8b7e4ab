"""Where the files of tables are read and written: PyArrow's file systems for every warehouse.

Why not what PyIceberg chooses: for Azure it takes fsspec first, which is not installed with us, and
with PyArrow it understands `abfss://container/path` only, while every other engine writes
`abfss://container@account.dfs.core.windows.net/path`.
"""

from __future__ import annotations

from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.typedef import EMPTY_DICT, Properties

_AZURE = ("abfs", "abfss", "wasb", "wasbs")


class WarehouseIO(PyArrowFileIO):
    """PyArrow's file systems, and both forms of Azure's locations."""

    @staticmethod
    def parse_location(location: str, properties: Properties = EMPTY_DICT) -> tuple[str, str, str]:
        """Scheme, host and the path for the file system, which begins with bucket or container."""
        scheme, host, path = PyArrowFileIO.parse_location(location, properties)
        if scheme in _AZURE and "@" in host:
            path = f"{host.partition('@')[0]}{path.removeprefix(host)}"
        return scheme, host, path


def location_of(scheme: str, host: str, path: str) -> str:
    """The address of a path of a file system that has it below this scheme and host."""
    if scheme == "file":
        return f"file://{path}"
    bucket = host.partition("@")[0]
    within = path.removeprefix(f"{bucket}/") if path.startswith(f"{bucket}/") else path
    return f"{scheme}://{host}/{within.lstrip('/')}"

"""The examples of docs/connectors.md are connectors, and every built-in type has one."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from matih_ray.control.connector_fields import stored_credentials, stored_parts
from matih_ray.control.connector_types import connector_type
from matih_ray.control.connectors import ConnectorDraft
from matih_ray.control.ports import Ports
from matih_ray.registry import BUILT_INS
from matih_ray.settings import Settings
from matih_ray.state.factory import open_stores
from matih_ray.testing.fakes import RecordingLauncher, memory_registry

PAGE = (Path(__file__).parents[2] / "docs" / "connectors.md").read_text()
SECTIONS = dict(re.findall(r"^## ([A-Z_0-9]+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))


def test_every_type_has_its_section():
    assert set(SECTIONS) == set(BUILT_INS["sources"])


@pytest.mark.parametrize("name", SECTIONS)
def test_the_example_is_a_connector_of_its_type(tmp_path: Path, name: str):
    [example] = re.findall(r"```json\n(.*?)```", SECTIONS[name], re.DOTALL)
    draft = ConnectorDraft.from_json(json.loads(example))
    assert draft.type == name
    settings = Settings(home=tmp_path)
    stores = open_stores(settings)
    ports = Ports(
        settings=settings,
        registry=memory_registry(),
        metadata=stores.metadata,
        kv=stores.kv,
        credentials=stores.credentials,
        launcher=RecordingLauncher(),
    )
    type_ = connector_type(ports, name)
    parts = stored_parts(type_, draft, draft.credentials)
    assert parts.attributes == {}, "fields that the type does not know"
    assert "…" not in json.dumps(parts.config, ensure_ascii=False), "secrets in the configuration"
    assert set(stored_credentials(type_, draft.credentials)) == set(draft.credentials)
    stores.close()

"""Where the catalog is, and that its secrets stay inside."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from matih_ray.errors import ConfigurationError, ForbiddenError, ValidationError
from matih_ray.settings import Settings
from matih_ray.sinks.iceberg import IcebergSink
from matih_ray.sinks.iceberg.boundary import translated
from matih_ray.sinks.iceberg.catalog import CatalogConfig, open_catalog
from matih_ray.sources.base import EndpointSpec
from matih_ray.testing.contracts.sink_lab import TENANT, target

WAREHOUSE_IO = "matih_ray.sinks.iceberg.file_io.WarehouseIO"
PASSWORD = "hunter2-s3cret"


def spec(config: dict, secrets: dict | None = None) -> EndpointSpec:
    return EndpointSpec(TENANT, "lake", "My lake", "iceberg", config, secrets or {})


def test_the_default_is_below_home_and_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    properties = CatalogConfig.from_settings(Settings(home=Path("here"))).properties
    assert properties["uri"] == f"sqlite:///{tmp_path}/here/iceberg/catalog.db"
    assert properties["warehouse"] == f"file://{tmp_path}/here/iceberg/warehouse"
    assert not (tmp_path / "here").exists()


def test_one_catalog_for_all_sinks_of_a_process(tmp_path):
    settings = Settings(home=tmp_path)
    one, other = (open_catalog(CatalogConfig.from_settings(settings)) for _ in range(2))
    assert one is other


def test_settings_and_secrets_reach_the_catalog():
    settings = Settings(
        iceberg_catalog_type="rest",
        iceberg_catalog_uri="http://127.0.0.1:1",
        iceberg_warehouse="s3://bucket/path/",
        iceberg_properties=json.dumps({"token": PASSWORD, "s3.path-style-access": True}),
    )
    config = CatalogConfig.from_settings(settings)
    assert config.kind == "rest"
    assert dict(config.properties) == {
        "uri": "http://127.0.0.1:1",
        "warehouse": "s3://bucket/path",
        "token": PASSWORD,
        "s3.path-style-access": "True",
        "py-io-impl": WAREHOUSE_IO,
    }
    assert PASSWORD not in repr(config)


@pytest.mark.parametrize("text", ["", "[]", "{", '"x"'])
def test_properties_that_are_no_object_are_refused_without_being_shown(text):
    with pytest.raises(ConfigurationError, match="MATIH_ICEBERG_PROPERTIES"):
        CatalogConfig.from_settings(Settings(iceberg_properties=text or " "))


def test_a_rest_catalog_needs_an_address():
    with pytest.raises(ConfigurationError, match="MATIH_ICEBERG_CATALOG_URI"):
        CatalogConfig.from_settings(Settings(iceberg_catalog_type="rest"))


def test_a_uri_that_is_none_is_a_configuration_error(tmp_path):
    settings = Settings(home=tmp_path, iceberg_catalog_uri=f"no url {PASSWORD}")
    with pytest.raises(ConfigurationError) as caught:
        IcebergSink.from_settings(settings, TENANT).prepare(target())
    assert PASSWORD not in caught.value.message


def test_a_registered_sink_takes_its_secrets_from_the_store():
    config = CatalogConfig.from_spec(
        spec(
            {"catalogType": "sql", "warehouse": "/data", "properties": {"a": "b"}},
            {"uri": "sqlite:////tmp/x.db", "properties": json.dumps({"s3.secret": PASSWORD})},
        )
    )
    assert dict(config.properties) == {
        "uri": "sqlite:////tmp/x.db",
        "warehouse": "file:///data",
        "a": "b",
        "s3.secret": PASSWORD,
        "py-io-impl": WAREHOUSE_IO,
    }


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"warehouse": "/data"}, "uri"),
        ({"uri": "sqlite:////tmp/x.db"}, "warehouse"),
        ({"uri": "x", "catalogType": "hive"}, "catalogType"),
        ({"uri": "x", "colour": "red"}, "colour"),
    ],
)
def test_a_wrong_sink_configuration_names_the_field(config, field):
    with pytest.raises(ValidationError) as caught:
        IcebergSink(spec(config))
    assert caught.value.context["field"] == field


@pytest.mark.parametrize(
    "properties",
    [
        {"uri": f"postgresql+psycopg2://me:{PASSWORD}@host/db"},
        {"uri": "http://x", "token": PASSWORD},
        {"uri": "http://x", "s3.secret-access-key": PASSWORD},
        {"uri": "http://x", "credential": f"id:{PASSWORD}"},
    ],
)
def test_foreign_messages_are_shown_without_secrets(properties):
    config = CatalogConfig("rest", properties)
    secret = properties.get("credential", PASSWORD)
    error = translated("load table t", OSError(5, f"cannot open x?k={secret}"), config)
    assert PASSWORD not in error.message
    assert "load table t" in error.message


def test_a_sink_serves_its_own_tenant_only(tmp_path):
    sink = IcebergSink.from_settings(Settings(home=tmp_path), "somebody else")
    with pytest.raises(ForbiddenError):
        sink.prepare(target())

"""What others rely on: names, error codes, settings, plugins. Changing it is a decision."""

from __future__ import annotations

import copy
import importlib
import inspect
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest

import matih_ray
from matih_ray import errors
from matih_ray.api.problems import family_of
from matih_ray.errors import MatihError, Recovery
from matih_ray.model.run import RunError
from matih_ray.registry import BUILT_INS, EXTRAS, load_registry
from matih_ray.settings import Settings

ROOT = Path(__file__).parents[1]
ERRORS = [
    kind for kind in vars(errors).values() if inspect.isclass(kind) and issubclass(kind, MatihError)
]
CONTEXT = {"field": "policy.columns", "rows": 7, "share": 0.5, "retry": True, "unit_id": None}

# Used from outside this package: by Serve, Ray jobs, plugins, other services and the command line.
PUBLIC = {
    "matih_ray": ["__version__"],
    "matih_ray.api.app": ["create_app"],
    "matih_ray.api.limits": ["Limits"],
    "matih_ray.api.tokens": ["Tokens", "open_tokens"],
    "matih_ray.cli": ["main"],
    "matih_ray.control.authorization": ["Action", "Principal", "Role", "authorize"],
    "matih_ray.control.building": ["DEFAULT_SINK", "build_sink", "build_source", "endpoint_spec"],
    "matih_ray.control.catalog": ["collect_catalog", "get_unit", "list_units"],
    "matih_ray.control.cdm_sinks": ["provision_cdm_sink"],
    "matih_ray.control.checkpoints": ["get_checkpoint", "reset_checkpoint"],
    "matih_ray.control.endpoints": [
        "EndpointChange",
        "EndpointDraft",
        "check_endpoint",
        "create_endpoint",
        "delete_endpoint",
        "get_endpoint",
        "list_endpoints",
        "update_endpoint",
    ],
    "matih_ray.control.health": ["check_stores", "list_plugins"],
    "matih_ray.control.loads": ["LoadRequest", "plan_unit"],
    "matih_ray.control.maintenance": ["maintain_tables"],
    "matih_ray.control.ports": ["Ports", "RunLauncher"],
    "matih_ray.control.rollback": ["rollback_run"],
    "matih_ray.control.runs": [
        "cancel_run",
        "get_run",
        "list_runs",
        "list_slices",
        "pause_run",
        "resume_run",
        "start_run",
    ],
    "matih_ray.mappers": ["MapperFamily", "apply_cdm", "register_cdm_mapper"],
    "matih_ray.registry": ["Registry", "load_registry"],
    "matih_ray.settings": ["Settings"],
    "matih_ray.sinks.base": ["PreparedTarget", "SinkEndpoint", "SinkTarget", "SliceWriter"],
    "matih_ray.sources.base": [
        "EndpointSpec",
        "SourceEndpoint",
        "SupportsIncrementalPlanning",
        "SupportsSnapshot",
    ],
    "matih_ray.staging.base": ["StagingHandle", "StagingProvider", "StagingSession"],
    "matih_ray.state.base": ["CredentialStore", "KeyValueStore", "MetadataStore"],
    "matih_ray.state.factory": ["open_stores", "process_stores"],
}


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names_are_there(module: str):
    missing = [
        name for name in PUBLIC[module] if not hasattr(importlib.import_module(module), name)
    ]
    assert not missing


def test_the_package_itself_exports_its_version_only():
    assert matih_ray.__all__ == ["__version__"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", matih_ray.__version__)


def test_use_cases_ask_for_the_principal_first():
    wrong = []
    for module, names in PUBLIC.items():
        if module.split(".")[1:2] != ["control"]:
            continue
        for name in names:
            function = getattr(importlib.import_module(module), name)
            if not inspect.isfunction(function) or module.endswith("building"):
                continue
            if name in ("authorize", "check_stores"):
                continue
            first, *rest = inspect.signature(function).parameters
            if (first, rest[0]) != ("principal", "ports"):
                wrong.append(f"{module}.{name}")
    assert not wrong


# --- errors ----------------------------------------------------------------------------------


def test_there_are_errors():
    assert len(ERRORS) > 40


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.code)
def test_an_error_survives_the_way_between_processes(kind: type[MatihError]):
    error = kind("what, where and the remedy", **CONTEXT)
    for copied in (pickle.loads(pickle.dumps(error)), copy.deepcopy(error), copy.copy(error)):
        assert type(copied) is kind
        assert (copied.message, dict(copied.context)) == (error.message, CONTEXT)
        assert (copied.code, copied.recovery) == (kind.code, kind.recovery)
        assert str(copied) == error.message


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.code)
def test_an_error_survives_being_stored(kind: type[MatihError]):
    stored = RunError.from_json(RunError.of(kind("why", **CONTEXT)).to_json())
    assert (stored.code, stored.message, stored.recovery) == (kind.code, "why", kind.recovery.value)
    assert stored.context == CONTEXT


def test_codes_are_unique_words():
    codes = [kind.code for kind in ERRORS]
    assert sorted(set(codes)) == sorted(codes)
    assert all(re.fullmatch(r"[A-Z][A-Z_]*[A-Z]", code) for code in codes)


def test_every_error_says_what_it_means_and_what_to_do():
    for kind in ERRORS:
        assert inspect.getdoc(kind), kind
        assert isinstance(kind.recovery, Recovery)
        assert 400 <= family_of(kind).status < 600


# --- documentation ---------------------------------------------------------------------------


def sections(page: str) -> dict[str, str]:
    """Text under each third-level heading."""
    parts = re.split(r"^#{1,3} ", (ROOT / "docs" / page).read_text(), flags=re.MULTILINE)
    return {heading: text for heading, _, text in (part.partition("\n") for part in parts)}


def test_every_error_code_is_documented_with_its_status_and_recovery():
    documented = {
        heading: text for heading, text in sections("errors.md").items() if heading.isupper()
    }
    assert set(documented) == {kind.code for kind in ERRORS}
    for kind in ERRORS:
        expected = f"{family_of(kind).status}, {kind.recovery.value}. "
        assert documented[kind.code].strip().startswith(expected), kind.code


def test_every_setting_is_documented_with_its_default():
    documented = {
        heading: text
        for heading, text in sections("settings.md").items()
        if heading.startswith("MATIH_")
    }
    assert set(documented) == {f"MATIH_{name.upper()}" for name in Settings.model_fields}
    for name, field in Settings.model_fields.items():
        default = field.default
        if hasattr(default, "get_secret_value"):
            default = default.get_secret_value()
        said = re.match(r"\s*Default `([^`]*)`\.", documented[f"MATIH_{name.upper()}"])
        assert (said and said[1]) == (None if default is None else str(default)), name


def test_every_setting_has_a_description_in_the_code():
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_settings_are_frozen_and_show_no_secret():
    settings = Settings(jwt_secret="s3cret", metadata_url="postgresql://u:s3cret@h/d")
    assert "s3cret" not in repr(settings) + str(settings) + settings.model_dump_json()
    with pytest.raises(ValueError, match="frozen"):
        settings.jwt_secret = None


# --- plugins ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, table in BUILT_INS.items() for name in table]
)
def test_every_built_in_plugin_resolves(kind, name: str):
    plugin = load_registry().resolve(kind, name)
    assert inspect.isclass(plugin)
    assert inspect.getdoc(plugin)


def test_every_extra_is_declared():
    project = (ROOT / "pyproject.toml").read_text()
    extras = re.findall(
        r"^(\w+) = \[", project.partition("[project.optional-dependencies]")[2], re.MULTILINE
    )
    assert set(EXTRAS.values()) <= set(extras)


def test_importing_the_package_costs_nothing_heavy():
    program = (
        "import sys, matih_ray, matih_ray.settings, matih_ray.registry, matih_ray.errors;"
        "print({'ray', 'daft', 'pyarrow', 'pyiceberg', 'sqlalchemy', 'fastapi'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"

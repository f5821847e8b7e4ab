"""cluster.yaml is what KubeRay accepts, and what this package needs."""

from __future__ import annotations

import copy
import importlib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from matih_ray.settings import Settings
from serve_apps.agent_api import AgentApiArgs
from serve_apps.control_api import ControlApiArgs
from tests.fixtures.crd_schema import load

ROOT = Path(__file__).parents[2]
SCHEMA = load(ROOT / "tests" / "fixtures" / "rayservice.schema.json.gz")
SERVE_PORT = 8000


@pytest.fixture
def service() -> dict[str, Any]:
    """The manifest; aliases resolved, so that parts can be changed one by one."""
    return copy.deepcopy(yaml.safe_load((ROOT / "cluster.yaml").read_text()))


def serve_config(service: dict[str, Any]) -> dict[str, Any]:
    return yaml.safe_load(service["spec"]["serveConfigV2"])


def groups(service: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = service["spec"]["rayClusterConfig"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def containers(service: dict[str, Any]) -> list[dict[str, Any]]:
    return [each for group in groups(service) for each in group["template"]["spec"]["containers"]]


def problems(service: dict[str, Any]) -> list[str]:
    validator = jsonschema.Draft202012Validator(SCHEMA)
    return [f"{error.json_path}: {error.message[:200]}" for error in validator.iter_errors(service)]


def test_the_manifest_fits_the_custom_resource(service):
    assert (service["apiVersion"], service["kind"]) == ("ray.io/v1", "RayService")
    assert problems(service) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["spec", "rayClusterConfig", "enableInTreeAutoscaler"], True),
        (["spec", "rayClusterConfig", "headGroupSpec", "replicas"], 2),
        (["spec", "rayClusterConfig", "headGroupSpec", "rayStartParams", "num-cpus"], 0),
        (["spec", "rayClusterConfig", "authOptions", "mode"], "password"),
        (["spec", "rayClusterConfig", "workerGroupSpecs"], {"groupName": "a"}),
        (["spec", "serveConfig"], "applications: []"),
        (["spec", "serveConfigV2"], {"applications": []}),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else str(value),
)
def test_the_schema_would_notice(service, path: list[str], value: object):
    node = service
    for name in path[:-1]:
        node = node[name]
    node[path[-1]] = value
    assert problems(service)


def test_the_schema_reaches_into_pods(service):
    containers(service)[0]["imagePulPolicy"] = "Always"
    containers(service)[1]["resources"]["limit"] = {}
    assert len(problems(service)) == 2


def test_serve_accepts_its_part_and_finds_the_builders(service):
    schema = ServeDeploySchema.model_validate(serve_config(service))
    arguments = {"control": ControlApiArgs, "agent": AgentApiArgs}
    assert [application.name for application in schema.applications] == list(arguments)
    for application in schema.applications:
        module, _, name = application.import_path.partition(":")
        assert callable(getattr(importlib.import_module(module), name))
        arguments[application.name].model_validate(application.args, extra="forbid")
    assert schema.http_options.port == SERVE_PORT


def test_every_variable_is_a_setting(service):
    fields = {f"MATIH_{name.upper()}" for name in Settings.model_fields}
    named = {item["name"] for each in containers(service) for item in each["env"]}
    in_comments = {
        line.split("--from-literal=")[1].split("=")[0]
        for line in (ROOT / "cluster.yaml").read_text().splitlines()
        if "--from-literal=" in line
    }
    assert len(in_comments) == 7
    assert {name for name in named | in_comments if name.startswith("MATIH_")} <= fields


def test_no_secret_is_written_down(service):
    for each in containers(service):
        assert each["envFrom"] == [{"secretRef": {"name": "matih-runtime"}}]
        secret = {
            "MATIH_" + name.upper()
            for name, field in Settings.model_fields.items()
            if "SecretStr" in str(field.annotation)
        }
        assert not secret & {item["name"] for item in each["env"]}


def test_every_container_is_bounded_probed_and_unprivileged(service):
    for each in containers(service):
        resources = each["resources"]
        assert set(resources["limits"]) == {"cpu", "memory", "ephemeral-storage"}
        assert resources["requests"]["memory"] == resources["limits"]["memory"]
        assert each["readinessProbe"]["exec"]["command"]
        assert (
            each["livenessProbe"]["failureThreshold"] > each["readinessProbe"]["failureThreshold"]
        )
        assert each["securityContext"]["allowPrivilegeEscalation"] is False
        assert SERVE_PORT in [port["containerPort"] for port in each["ports"]]
        assert all(len(port["name"]) <= 15 for port in each["ports"])
    for group in groups(service):
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        volumes = {volume["name"] for volume in pod["volumes"]}
        for each in pod["containers"]:
            assert {mount["name"] for mount in each["volumeMounts"]} == volumes


def test_the_worker_group_scales_by_itself(service):
    cluster = service["spec"]["rayClusterConfig"]
    assert cluster["enableInTreeAutoscaling"] is True
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] < group["maxReplicas"]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert cluster["authOptions"]["mode"] == "token"


def test_the_object_store_leaves_room_for_the_processes(service):
    for group in groups(service):
        (container,) = group["template"]["spec"]["containers"]
        memory = container["resources"]["limits"]["memory"]
        assert memory.endswith("Gi")
        limit_bytes = int(memory.removesuffix("Gi")) << 30
        assert int(group["rayStartParams"]["object-store-memory"]) <= 0.4 * limit_bytes

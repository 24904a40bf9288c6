"""deploy/kustomize held against the code and the compose file; against published schemas too, where they are there."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from carpark.domain.routing import event_queues
from carpark.settings import Settings, load_settings
from carpark.settings.fields import options_of
from tests.deploy.files import KUSTOMIZE, SERVICES, compose, mebibytes

OURS = {option.variable for option in options_of(Settings).values()}
KUSTOMIZATION: dict[str, Any] = yaml.safe_load((KUSTOMIZE / "kustomization.yaml").read_text(encoding="utf-8"))
OBJECTS: list[dict[str, Any]] = [
    each
    for name in KUSTOMIZATION["resources"]
    for each in yaml.safe_load_all((KUSTOMIZE / name).read_text(encoding="utf-8"))
]
STACK = compose()["services"]
GIVEN = {
    "CARPARK_BROKER_URL": "amqp://user:password@rabbitmq.carpark.svc:5672/",
    "CARPARK_REDIS_URL": "redis+sentinel://:password@a,b,c/carpark/0",
    "CARPARK_WRITER_TOKEN": "token",
    "CARPARK_DASHBOARD_LOGIN": "me:password",
}
"""What the secrets hold."""


def of_kind(kind: str) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each for each in OBJECTS if each["kind"] == kind}


DEPLOYMENTS = of_kind("Deployment")


def container(name: str) -> dict[str, Any]:
    (only,) = DEPLOYMENTS[name]["spec"]["template"]["spec"]["containers"]
    found: dict[str, Any] = only
    return found


def test_every_file_is_in_the_kustomization() -> None:
    there = {path.name for path in KUSTOMIZE.glob("*.yaml")} - {"kustomization.yaml"}
    assert there == set(KUSTOMIZATION["resources"])


def test_the_six_services_are_the_stacks() -> None:
    assert DEPLOYMENTS.keys() == SERVICES.keys()
    for name in SERVICES:
        assert container(name)["args"] == STACK[name]["command"]
        assert container(name)["image"] == "carpark"
    (image,) = KUSTOMIZATION["images"]
    assert f"{image['newName']}:{image['newTag']}" == STACK["queues"]["image"]


@pytest.mark.parametrize("name", SERVICES)
def test_every_variable_is_a_setting_with_a_right_value(name: str) -> None:
    (generator,) = KUSTOMIZATION["configMapGenerator"]
    environ = dict(literal.split("=", 1) for literal in generator["literals"])
    assert container(name)["envFrom"] == [{"configMapRef": {"name": generator["name"]}}]
    for variable in container(name)["env"]:
        environ[variable["name"]] = variable.get("value", GIVEN.get(variable["name"]))
        secret = variable.get("valueFrom", {}).get("secretKeyRef")
        assert secret is None or secret["name"] in ("carpark", "rabbitmq-default-user")
    assert environ.keys() <= OURS
    settings = load_settings(environ)
    assert (settings.bind, settings.queue_type) == ("0.0.0.0", "quorum")
    needed = set(STACK[name]["environment"]) & GIVEN.keys()
    if name == "writer":
        needed -= {"CARPARK_BROKER_URL"}
    elif name == "queues":
        needed = {"CARPARK_BROKER_URL"}
    elif name != "worker":
        needed -= {"CARPARK_WRITER_TOKEN"}
    assert needed <= environ.keys()


@pytest.mark.parametrize("name", SERVICES)
def test_ports_probes_and_limits(name: str) -> None:
    this = container(name)
    (port,) = this["ports"]
    assert port["containerPort"] == SERVICES[name].port
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        action = this[probe].get("httpGet") or this[probe]["tcpSocket"]
        assert action["port"] == port["name"]
        assert action.get("path") == {"writer": "/healthz", "dashboard": None}.get(name, "/metrics")
    assert this["resources"]["limits"]["memory"] == f"{mebibytes(STACK[name]['mem_limit'])}Mi"
    notes = DEPLOYMENTS[name]["spec"]["template"]["metadata"].get("annotations", {})
    assert notes.get("prometheus.io/port", str(SERVICES[name].port)) == str(SERVICES[name].port)
    assert bool(notes) == (name != "dashboard")


@pytest.mark.parametrize("name", SERVICES)
def test_it_runs_without_rights_and_can_write_only_where_it_must(name: str) -> None:
    pod = DEPLOYMENTS[name]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    assert container(name)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    mounts = {mount["name"] for mount in container(name)["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod["volumes"]}
    assert mounts == ({"tmp", "data"} if name == "writer" else {"tmp"})


def test_labels_names_and_claims_lead_to_each_other() -> None:
    for name, deployment in DEPLOYMENTS.items():
        spec = deployment["spec"]
        assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]
        assert spec["selector"]["matchLabels"] == {"app.kubernetes.io/name": name}
    for name, service in of_kind("Service").items():
        assert service["spec"]["selector"] == {"app.kubernetes.io/name": name}
        (port,) = service["spec"]["ports"]
        assert port["port"] == SERVICES[name].port
        assert port["targetPort"] == container(name)["ports"][0]["name"]
    claims = [
        volume["persistentVolumeClaim"]["claimName"]
        for deployment in DEPLOYMENTS.values()
        for volume in deployment["spec"]["template"]["spec"]["volumes"]
        if "persistentVolumeClaim" in volume
    ]
    assert claims == list(of_kind("PersistentVolumeClaim"))


def test_one_writer_at_a_time_holds_the_file() -> None:
    assert DEPLOYMENTS["writer"]["spec"]["replicas"] == 1
    assert DEPLOYMENTS["writer"]["spec"]["strategy"] == {"type": "Recreate"}


def test_workers_are_scaled_by_the_depth_of_the_event_queues_alone() -> None:
    (scaled,) = of_kind("ScaledObject").values()
    (login,) = of_kind("TriggerAuthentication").values()
    spec = scaled["spec"]
    assert spec["scaleTargetRef"] == {"name": "worker"}
    assert "replicas" not in DEPLOYMENTS["worker"]["spec"]  # or applying the file again would undo the scaling
    queues = list(event_queues(1))
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (1, len(queues))  # further ones would stand by
    assert [trigger["metadata"]["queueName"] for trigger in spec["triggers"]] == queues
    for trigger in spec["triggers"]:
        assert trigger["type"] == "rabbitmq"
        assert trigger["metadata"]["mode"] == "QueueLength"
        assert trigger["authenticationRef"]["name"] == login["metadata"]["name"]
    (secret,) = login["spec"]["secretTargetRef"]
    broker = next(each for each in container("worker")["env"] if each["name"] == "CARPARK_BROKER_URL")
    assert (secret["name"], secret["key"]) == tuple(broker["valueFrom"]["secretKeyRef"][key] for key in ("name", "key"))


def built() -> list[dict[str, Any]]:
    """What kustomize makes of the directory, where there is a kustomize; else what it is made of."""
    if kustomize := shutil.which("kustomize"):
        made = subprocess.run([kustomize, "build", str(KUSTOMIZE)], capture_output=True, text=True, check=True)
        return list(yaml.safe_load_all(made.stdout))
    return OBJECTS


@pytest.mark.skipif(
    importlib.util.find_spec("kubernetes_validate") is None,
    reason="kubernetes-validate is not installed: pip install --group kubernetes",
)
def test_the_objects_are_right_by_the_published_schemas() -> None:
    import kubernetes_validate

    checked = []
    for each in built():
        if "keda.sh" not in each["apiVersion"]:  # which is no part of Kubernetes
            kubernetes_validate.validate(each, "1.31", strict=True)
            checked.append(each["kind"])
    assert checked.count("Deployment") == len(SERVICES)


@pytest.mark.skipif(shutil.which("kustomize") is None, reason="there is no kustomize on PATH")
def test_kustomize_builds_the_directory() -> None:
    objects = built()
    (config,) = (each for each in objects if each["kind"] == "ConfigMap")
    assert re.fullmatch(r"carpark-\w+", config["metadata"]["name"])
    for each in objects:
        assert each["metadata"]["labels"]["app.kubernetes.io/part-of"] == "carpark"
        assert each["kind"] == "Namespace" or each["metadata"]["namespace"] == "carpark"
        if each["kind"] == "Deployment":
            (this,) = each["spec"]["template"]["spec"]["containers"]
            assert this["image"] == STACK["queues"]["image"]
            assert this["envFrom"][0]["configMapRef"]["name"] == config["metadata"]["name"]

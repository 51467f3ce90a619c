"""The chart, rendered by Helm, valid for Kubernetes, and held to the code: commands, settings, routes, metrics."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import yaml
from deployed import COMMANDS, DEPLOY, HEALTH_CHECKS, VARIABLES

from pacs_cbir.serve.health import health_router
from pacs_cbir.settings import Settings, load_settings

CHART = DEPLOY / "helm" / "pacs-cbir"
VALUES = [None, *sorted((DEPLOY / "helm" / "examples").glob("*.yaml"))]
# The chart says these, or does not run the part that they are of.
NO_SETTING_OF_THE_SITE = {
    *("data_dir", "database_url", "database_owner_url", "worker_processes"),
    *("dicom_host", "dicom_port", "http_host", "http_port", "api_url", "scp_metrics_port"),
    *("hl7_host", "hl7_port", "hl7_issuers"),
}

Manifest = dict[str, Any]


def render(values: dict[str, Any] | None = None) -> list[Manifest]:
    chart = helm_python.Chart.load(CHART)
    chart.validate_schema(values)
    rendered = chart.render(values, name="cbir", namespace="imaging")
    return [one for text in rendered.values() for one in yaml.safe_load_all(text) if one]


def values_of(path: Path | None) -> dict[str, Any] | None:
    return None if path is None else yaml.safe_load(path.read_text())


@pytest.fixture(params=VALUES, ids=lambda path: "defaults" if path is None else path.stem)
def manifests(request: pytest.FixtureRequest) -> list[Manifest]:
    return render(values_of(request.param))


def pods(manifests: list[Manifest]) -> dict[str, tuple[Manifest, Manifest]]:
    """Part → its pod and its one container."""
    found = {}
    for one in manifests:
        if one["kind"] in {"Deployment", "Job"}:
            pod = one["spec"]["template"]["spec"]
            [container] = pod["containers"]
            found[container["name"]] = (pod, container)
    return found


def only(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    [found] = [one for one in manifests if one["kind"] == kind and one["metadata"]["name"] == name]
    return found


def test_kubernetes_takes_it(manifests: list[Manifest]) -> None:
    assert {one["kind"] for one in manifests} >= {"Deployment", "Job", "Service", "HorizontalPodAutoscaler"}
    for one in manifests:
        # The oldest that the chart is for, and the newest that there is a schema of.
        for version in ("1.27", kubernetes_validate.latest_version()):
            kubernetes_validate.validate(one, version, strict=True)


def test_helm_finds_no_fault() -> None:
    for path in VALUES:
        report = helm_python.lint(CHART, values_of(path), strict=True)
        # An icon is recommended; there is none.
        assert [one for one in report["messages"] if "icon" not in one["error"]] == []


def test_parts_run_commands_with_settings_that_there_are(manifests: list[Manifest]) -> None:
    assert pods(manifests).keys() == {"migrate", "scp", "worker", "api"}
    for name, (_, container) in pods(manifests).items():
        command = " ".join(container["args"])
        assert command in COMMANDS
        assert command == ("db upgrade" if name == "migrate" else name)
        names = [variable["name"] for variable in container["env"]]
        assert set(names) <= VARIABLES
        assert len(names) == len(set(names))


def test_the_settings_of_the_values_are_those_that_there_are() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert (
        schema["properties"]["settings"]["properties"].keys() == Settings.model_fields.keys() - NO_SETTING_OF_THE_SITE
    )
    with pytest.raises(helm_python.HelmValuesError, match="calling_ae_title"):
        render({"settings": {"calling_ae_title": ["PACS"]}})


def test_settings_come_through_as_they_were_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    given = values_of(DEPLOY / "helm" / "examples" / "hospital.yaml")
    assert given is not None
    for variable in pods(render(given))["scp"][1]["env"]:
        if variable["name"] != "PACS_CBIR_SETTINGS_FILE":
            monkeypatch.setenv(variable["name"], variable["value"])
    settings = load_settings()
    assert list(settings.calling_ae_titles) == given["settings"]["calling_ae_titles"]
    assert settings.peers["pacs"].address == ("10.1.2.3", 104)
    assert settings.viewer_url == given["settings"]["viewer_url"]
    assert settings.asked_api == "http://cbir-api:8000"


def probes(container: Manifest) -> Iterator[Manifest]:
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        if name in container:
            yield container[name]


def test_probes_ask_what_answers(manifests: list[Manifest]) -> None:
    routes = {route.path for route in health_router(None, None, None).routes}  # type: ignore[arg-type,attr-defined]
    for name, (_, container) in pods(manifests).items():
        ports = {port["name"]: str(port["containerPort"]) for port in container.get("ports", ())}
        listening = {variable["value"] for variable in container["env"] if variable["name"].endswith("_PORT")}
        assert set(ports.values()) <= listening
        assert len(list(probes(container))) == (0 if name == "migrate" else 2 if name == "worker" else 3)
        for probe in probes(container):
            if "exec" in probe:
                assert tuple(probe["exec"]["command"]) in HEALTH_CHECKS
            elif "httpGet" in probe:
                assert probe["httpGet"]["path"] in routes
                assert probe["httpGet"]["port"] in ports
            else:
                assert probe["tcpSocket"]["port"] in ports


def test_pods_may_do_little_and_write_little(manifests: list[Manifest]) -> None:
    for name, (pod, container) in pods(manifests).items():
        assert pod["securityContext"]["runAsNonRoot"]
        assert not pod["automountServiceAccountToken"]
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]
        writable = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
        assert writable == ({"/tmp"} if name == "migrate" else {"/tmp", "/var/lib/pacs-cbir"})
        [secret] = [volume["secret"] for volume in pod["volumes"] if "secret" in volume]
        assert [item["key"] for item in secret["items"]] == ["owner.toml" if name == "migrate" else "service.toml"]


def test_workers_grow_with_the_queue(manifests: list[Manifest]) -> None:
    scaler = only(manifests, "HorizontalPodAutoscaler", "cbir-worker")["spec"]
    assert scaler["scaleTargetRef"]["name"] == only(manifests, "Deployment", "cbir-worker")["metadata"]["name"]
    # Whoever sets both fights over the number.
    assert "replicas" not in only(manifests, "Deployment", "cbir-worker")["spec"]
    [metric] = scaler["metrics"]
    told = metric["external"]["metric"]
    assert (told["name"], told["selector"]["matchLabels"]) == ("pacs_cbir_jobs", {"state": "waiting"})


def test_services_and_policies_choose_pods_that_there_are(manifests: list[Manifest]) -> None:
    templates = [one["spec"]["template"] for one in manifests if one["kind"] in {"Deployment", "Job"}]
    labelled = [template["metadata"]["labels"] for template in templates]

    def chosen(selector: Manifest) -> bool:
        return any(selector.items() <= labels.items() for labels in labelled)

    for one in manifests:
        if one["kind"] == "Service":
            assert chosen(one["spec"]["selector"])
            part = one["spec"]["selector"]["app.kubernetes.io/component"]
            names = {port["name"] for port in pods(manifests)[part][1]["ports"]}
            assert {port["targetPort"] for port in one["spec"]["ports"]} <= names
        if one["kind"] == "NetworkPolicy":
            assert chosen(one["spec"]["podSelector"]["matchLabels"])
    asked = {variable["value"] for variable in pods(manifests)["scp"][1]["env"] if variable["name"].endswith("API_URL")}
    service = only(manifests, "Service", "cbir-api")
    assert asked == {f"http://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"}


def test_nobody_is_reached_but_by_a_policy(manifests: list[Manifest]) -> None:
    everybody = only(manifests, "NetworkPolicy", "cbir")["spec"]
    assert set(everybody["policyTypes"]) == {"Ingress", "Egress"}
    assert "ingress" not in everybody
    assert render({"networkPolicy": {"enabled": False}})
    assert not [one for one in render({"networkPolicy": {"enabled": False}}) if one["kind"] == "NetworkPolicy"]


def test_a_gpu_is_for_workers_and_api(request: pytest.FixtureRequest) -> None:
    for path in VALUES:
        given = values_of(path) or {}
        on_gpu = {
            name
            for name, (_, container) in pods(render(given)).items()
            if container["image"].endswith(":gpu") and container["resources"]["limits"]["nvidia.com/gpu"] == 1
        }
        assert on_gpu == ({"worker", "api"} if given.get("gpu", {}).get("enabled") else set())


def test_a_claim_that_is_there_is_taken() -> None:
    for claim in ("", "imaging"):
        rendered = render({"data": {"existingClaim": claim}})
        made = [one["metadata"]["name"] for one in rendered if one["kind"] == "PersistentVolumeClaim"]
        assert made == ([] if claim else ["cbir-data"])
        pod, _ = pods(rendered)["worker"]
        [used] = [one["persistentVolumeClaim"]["claimName"] for one in pod["volumes"] if "persistentVolumeClaim" in one]
        assert used == (claim or "cbir-data")


def test_values_of_the_chart_are_used() -> None:
    """No value that does nothing: each is named in a template."""
    templates = "".join(path.read_text() for path in (CHART / "templates").iterdir())

    def names(values: dict[str, Any]) -> Iterator[str]:
        for name, value in values.items():
            yield name
            if isinstance(value, dict) and name not in {"resources", "settings", "annotations", "monitoring"}:
                yield from names(value)

    declared = yaml.safe_load((CHART / "values.yaml").read_text())
    assert [name for name in names(declared) if not re.search(rf"\b{name}\b", templates)] == []

"""The walks of deploy/README.md that need a Docker or a cluster: what their commands name is there."""

from __future__ import annotations

import itertools
import re
import shlex

import helm_python
import yaml
from deployed import DEPLOY

TEXT = (DEPLOY / "README.md").read_text()
TYPED = [
    shlex.split(line, comments=True) for line in re.findall(r"^    (\S.*)$", TEXT.replace("\\\n", ""), re.MULTILINE)
]


def typed(program: str) -> list[list[str]]:
    """The commands of a program."""
    found = [words for words in TYPED if words and words[0] == program]
    assert found
    return found


def after(words: list[str], option: str) -> list[str]:
    """An option's values."""
    return [value for name, value in itertools.pairwise(words) if name == option]


def test_files_that_are_named_are_there() -> None:
    named = set(re.findall(r"\b(?:deploy|docker)/[\w./*-]+", " ".join(word for words in TYPED for word in words)))
    # `kubectl exec deploy/NAME` is a deployment, and secrets are made.
    named = {name for name in named if not name.startswith(("deploy/cbir-", "deploy/secrets/"))}
    assert len(named) > 5
    assert [name for name in named if not list(DEPLOY.parent.glob(name))] == []


def test_compose_is_asked_for_what_it_has() -> None:
    composed = [words for words in typed("docker") if words[1] == "compose"]
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    profiles = {profile for one in services.values() for profile in one.get("profiles", ())} | {"cpu", "gpu"}
    assert len(composed) == 4
    for words in composed:
        assert after(words, "-f") == ["deploy/compose.yaml"]
        assert set(after(words, "--profile")) <= profiles
        scaled = [one.split("=")[0] for one in after(words, "--scale")]
        assert {*scaled, *after(words, "exec")} <= services.keys()


def test_the_cluster_is_asked_for_what_the_chart_makes() -> None:
    [install] = typed("helm")
    name, chart = install[install.index("install") + 1 :][:2]
    [values] = after(install, "-f")
    given = yaml.safe_load((DEPLOY.parent / values).read_text())
    rendered = helm_python.Chart.load(DEPLOY.parent / chart).render(given, name=name, namespace="imaging")
    made = [one for text in rendered.values() for one in yaml.safe_load_all(text) if one]
    names = {(one["kind"].lower(), one["metadata"]["name"]) for one in made}
    secrets = {
        (volume["secret"]["secretName"], item["key"])
        for one in made
        if one["kind"] in {"Deployment", "Job"}
        for volume in one["spec"]["template"]["spec"]["volumes"]
        if "secret" in volume
        for item in volume["secret"]["items"]
    }
    kubectl = [words[1:] for words in typed("kubectl")]
    [secret] = [words for words in kubectl if "secret" in words]
    files = {word.split("/")[-1] for word in secret if word.startswith("--from-file=")}
    assert {(secret[secret.index("generic") + 1], file) for file in files} == secrets
    assert {("service", one) for words in kubectl for one in after(words, "service")} <= names
    executed = [one.split("/") for words in kubectl for one in after(words, "exec")]
    assert executed
    assert all(kind == "deploy" and ("deployment", pod) in names for kind, pod in executed)

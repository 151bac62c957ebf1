"""The manifests in deploy/: valid, consistent with each other, and open to nobody by accident."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml  # type: ignore[import-untyped]

from bltybench.scenario.file.resolve import require_budget, resolve
from bltybench.scenario.file.scenario_file import load_book

REPO = Path(__file__).resolve().parents[2]
DEPLOY = REPO / "deploy"
SCHEMAS = REPO / "tests" / "data" / "schemas"
COMPOSE = DEPLOY / "compose.yaml"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def schema(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((SCHEMAS / f"{name}.json").read_text())
    return loaded


def kubernetes() -> list[dict[str, Any]]:
    return [document for path in MANIFESTS for document in documents(path)]


def commands() -> list[list[str]]:
    """The command of each container."""
    composed = [service["command"] for service in documents(COMPOSE)[0]["services"].values()]
    pods = [document["spec"]["template"]["spec"] for document in kubernetes() if document["kind"] == "Job"]
    return [*composed, *(container["command"] for pod in pods for container in pod["containers"])]


@pytest.mark.parametrize(
    "document", kubernetes(), ids=lambda item: f"{item['kind']} {item['metadata']['name']}"
)
def test_kubernetes_accepts_each_manifest(document: dict[str, Any]) -> None:
    validator = jsonschema.Draft202012Validator(schema("kubernetes"))
    assert not [error.message for error in validator.iter_errors(document)]
    damaged = json.loads(json.dumps(document).replace('"metadata"', '"metadta"', 1))
    assert list(validator.iter_errors(damaged)), "the schema finds no typing error"


def test_compose_file_is_valid() -> None:
    (document,) = documents(COMPOSE)
    jsonschema.validate(document, schema("compose"))
    assert set(document["services"]["worker"]["depends_on"]) <= document["services"].keys()
    mounted = {volume.split(":")[0] for volume in document["services"]["master"]["volumes"]}
    assert mounted == document["volumes"].keys()


def test_compose_accepts_the_file_where_it_is_installed() -> None:
    docker = shutil.which("docker")
    if (
        docker is None
        or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode
    ):
        pytest.skip("docker compose is not installed")
    done = subprocess.run(
        [docker, "compose", "-f", str(COMPOSE), "config", "--quiet"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_scenario_of_the_manifests_reaches_the_sandbox_within_a_budget() -> None:
    resolved = resolve(load_book(DEPLOY / "scenarios.toml"))
    require_budget(resolved.target_name, resolved.target)
    host, port = "bltybench-sandbox", 8910
    assert resolved.target.base_url == f"http://{host}:{port}/v1"
    assert host in documents(COMPOSE)[0]["services"]
    services = {item["metadata"]["name"]: item["spec"] for item in kubernetes() if item["kind"] == "Service"}
    assert services[host]["ports"][0]["port"] == port
    labels = [
        item["spec"]["template"]["metadata"]["labels"] for item in kubernetes() if item["kind"] == "Job"
    ]
    for spec in services.values():
        assert spec["selector"] in labels
        assert spec.get("type", "ClusterIP") == "ClusterIP", "only the cluster reaches it"


def test_masters_expect_the_workers_that_are_started() -> None:
    masters = [command for command in commands() if "--master" in command]
    assert len(masters) == 2
    for command in masters:
        assert command[command.index("--master-bind-host") + 1] == "0.0.0.0"  # noqa: S104 - other machines
        assert command[command.index("--expect-workers") + 1] == "3"
    assert documents(COMPOSE)[0]["services"]["worker"]["scale"] == 3
    (workers,) = [item["spec"] for item in kubernetes() if item["metadata"]["name"] == "bltybench-workers"]
    assert workers["parallelism"] == workers["completions"] == 3
    hosts = {command[command.index("--master-host") + 1] for command in commands() if "--worker" in command}
    names = {item["metadata"]["name"] for item in kubernetes()} | documents(COMPOSE)[0]["services"].keys()
    assert hosts <= names


def test_image_has_what_the_commands_name() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    copied = [words.split()[:-1] for words in re.findall(r"^COPY (?:--\S+ )?(.+)$", text, re.MULTILINE)]
    for path in (name for names in copied for name in names):
        assert (REPO / path).exists(), path
    for command in commands():
        if "-f" in command:
            assert (REPO / command[command.index("-f") + 1]).is_file()


def test_nothing_is_published_and_no_key_is_written() -> None:
    for service in documents(COMPOSE)[0]["services"].values():
        assert "ports" not in service
    for path in (COMPOSE, *MANIFESTS):
        assert not re.search(r"sk-(?!sandbox)", path.read_text())

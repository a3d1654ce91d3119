"""The system of `compose.yaml` in containers, started by plain `docker` commands from that file's settings.

Needs the images (`make images`) and Docker, without its compose plugin. The variables `REGISTRY` and `IMAGE_TAG` say
which images, as they do to make.
"""

from __future__ import annotations

import os
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gaitfleet.client import ReplayClient
from gaitfleet.errors import ApiError
from gaitfleet.wire import RunStatus

ROOT = Path(__file__).resolve().parents[2]


def docker(*arguments: str, check: bool = True) -> str:
    """Run a docker command; what it printed."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0 or not check, f"docker {' '.join(arguments)}: {done.stderr}"
    return (done.stdout + done.stderr).strip()


def image_of(service: str) -> str:
    """Name of the image that holds a service."""
    registry, tag = os.environ.get("REGISTRY"), os.environ.get("IMAGE_TAG") or "0.1.0"
    return f"{registry}/gaitfleet-{service}:{tag}" if registry else f"gaitfleet-{service}:{tag}"


class Composition:
    """Containers of the services of `compose.yaml`, on a network of their own."""

    def __init__(self, directory: Path) -> None:
        content = yaml.safe_load((ROOT / "compose.yaml").read_text())
        self.services: dict[str, dict[str, Any]] = content["services"]
        self._name = f"gaitfleet-test-{uuid.uuid4().hex[:8]}"
        self._containers: list[str] = []
        self._volumes = set(content["volumes"])
        self._configs = {name: directory / name for name in content["configs"]}
        for name, path in self._configs.items():
            path.write_text(content["configs"][name]["content"])
            path.chmod(0o444)
        docker("network", "create", self._name)

    def start(self, service: str) -> str:
        """One more container of a service, once what it depends on is there; its name."""
        settings = self.services[service]
        needed = settings.get("depends_on", {})
        for other in needed if isinstance(needed, dict) else []:
            self.wait_until_healthy(self.containers(other)[0])
        name = f"{self._name}-{service}-{len(self.containers(service)) + 1}"
        network = ["--network", self._name, "--network-alias", service]
        docker("run", "--detach", "--name", name, *network, *self._options(settings), *self._command(settings))
        self._containers.append(name)
        return name

    def _options(self, settings: dict[str, Any]) -> Iterator[str]:
        assert settings["read_only"] is True
        yield "--read-only"
        for option, key in (("--cap-drop", "cap_drop"), ("--security-opt", "security_opt"), ("--tmpfs", "tmpfs")):
            for value in settings[key]:
                yield from (option, value)
        for name, value in settings.get("environment", {}).items():
            yield from ("--env", f"{name}={value}")
        for volume in settings.get("volumes", []):
            source, _, rest = volume.partition(":")
            known = source in self._volumes
            yield from ("--volume", f"{self._name}-{source}:{rest}" if known else f"{(ROOT / source).resolve()}:{rest}")
        for config in settings.get("configs", []):
            yield from ("--volume", f"{self._configs[config['source']]}:{config['target']}:ro")
        for port in settings.get("ports", []):
            address, _, inside = port.rsplit(":", 2)
            yield from ("--publish", f"{address}::{inside}")  # any free port outside

    @staticmethod
    def _command(settings: dict[str, Any]) -> list[str]:
        part = settings["image"].removeprefix("gaitfleet-").partition(":")[0]
        return [image_of(part), *settings.get("command", [])]

    def containers(self, service: str) -> list[str]:
        """Names of a service's containers, oldest first."""
        return [name for name in self._containers if name.startswith(f"{self._name}-{service}-")]

    def wait_until_healthy(self, container: str, seconds: float = 180) -> None:
        """Wait until the image's own check says so."""
        self.wait_for(
            lambda: docker("inspect", "--format", "{{.State.Health.Status}}", container) == "healthy",
            f"{container} is healthy",
            seconds,
        )

    def exit_status(self, container: str, seconds: float = 300) -> int:
        """How a container ended, once it has."""
        state = "{{.State.Status}} {{.State.ExitCode}}"
        self.wait_for(
            lambda: docker("inspect", "--format", state, container).startswith("exited"), f"{container} ends", seconds
        )
        return int(docker("inspect", "--format", "{{.State.ExitCode}}", container))

    def kill(self, container: str) -> None:
        """`kill -9` of its first process, which takes all others with it."""
        docker("kill", "--signal", "KILL", container)

    def restart(self, container: str) -> None:
        """Start it again, as whoever looks after containers does."""
        docker("start", container)

    def wait_for(self, condition: Callable[[], bool], what: str, seconds: float) -> None:
        """Wait for a condition; when it does not come, the error tells what every container said."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not within {seconds} s: {what}\n{self.said()}"
            time.sleep(1)

    def client(self) -> ReplayClient:
        """A client with the reader's token, through the port that is published."""
        _, _, port = docker("port", self.containers("replay-api")[0], "8080/tcp").rpartition(":")
        settings = self.services["replay-api"]["environment"]
        token = settings["GAITFLEET_REPLAY_API_READER_TOKENS"]
        run = self.services["run"]["environment"]["RUN"]
        return ReplayClient(f"http://127.0.0.1:{port}", run=run, token=token, timeout_seconds=10.0, attempts=1)

    def wait_for_api(self, condition: Callable[[ReplayClient], bool], what: str, seconds: float) -> None:
        """Wait until the API's answers fulfil a condition; one that is away counts as not yet."""

        def fulfilled() -> bool:
            try:
                with self.client() as client:
                    return condition(client)
            except ApiError:
                return False

        self.wait_for(fulfilled, what, seconds)

    def wait_for_status(self, condition: Callable[[RunStatus], bool], what: str, seconds: float) -> RunStatus:
        """Wait until the run's status fulfils a condition; that status."""
        found: list[RunStatus] = []

        def fulfilled(client: ReplayClient) -> bool:
            found.append(client.status())
            return condition(found[-1])

        self.wait_for_api(fulfilled, what, seconds)
        return found[-1]

    def said(self) -> str:
        """State and last words of every container."""
        states = (docker("ps", "--all", "--filter", f"name={self._name}", check=False),)
        logs = (f"--- {name}\n{docker('logs', '--tail', '30', name, check=False)}" for name in self._containers)
        return "\n".join([*states, *logs])

    def close(self) -> None:
        for name in self._containers:
            docker("rm", "--force", "--volumes", name, check=False)
        for volume in self._volumes:
            docker("volume", "rm", f"{self._name}-{volume}", check=False)
        docker("network", "rm", self._name, check=False)


@pytest.fixture(scope="session")
def composition(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composition]:
    """The whole system with two rollouts, running."""
    composition = Composition(tmp_path_factory.mktemp("composition"))
    try:
        for service in composition.services:
            composition.start(service)
        composition.start("rollout")
        yield composition
    finally:
        composition.close()

"""The system of `compose.yaml` in containers, by `docker compose` as a user starts it.

Needs the images (`make images`) and Docker with its compose plugin. The variables `REGISTRY` and `IMAGE_TAG` say which
images, as they do to make.
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

COMPOSE_FILE = Path(__file__).resolve().parents[2] / "compose.yaml"


def docker(*arguments: str, check: bool = True) -> str:
    """Run a docker command; what it printed."""
    # any free port: 8080 may be in use
    environment = os.environ | {"API_PORT": "0"}
    done = subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, check=False, timeout=300, env=environment
    )
    assert done.returncode == 0 or not check, f"docker {' '.join(arguments)}: {done.stderr}"
    return done.stdout.strip()


def image_of(service: str) -> str:
    """Name of the image that holds a service."""
    registry, tag = os.environ.get("REGISTRY"), os.environ.get("IMAGE_TAG") or "0.1.0"
    return f"{registry}/gaitfleet-{service}:{tag}" if registry else f"gaitfleet-{service}:{tag}"


class Composition:
    """The services of `compose.yaml`, as a project of their own."""

    def __init__(self) -> None:
        self.services: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE_FILE.read_text())["services"]
        self._project = f"gaitfleet-test-{uuid.uuid4().hex[:8]}"

    def compose(self, *arguments: str, check: bool = True) -> str:
        """Run a command of docker compose; what it printed."""
        return docker("compose", "--project-name", self._project, "--file", str(COMPOSE_FILE), *arguments, check=check)

    def containers(self, service: str) -> list[str]:
        """Names of a service's containers, those that have ended too, oldest first."""
        names = self.compose("ps", "--all", "--format", "{{.Name}}", service).split()
        return sorted(names, key=lambda name: int(name.rpartition("-")[2]))

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
        """Start it again: `restart: unless-stopped` leaves to a person what a person has killed."""
        docker("start", container)

    def wait_for(self, condition: Callable[[], bool], what: str, seconds: float) -> None:
        """Wait for a condition; when it does not come, the error tells what every container said."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not within {seconds} s: {what}\n{self.said()}"
            time.sleep(1)

    def client(self) -> ReplayClient:
        """A client with the reader's token, through the port that is published."""
        _, _, port = self.compose("port", "replay-api", "8080").rpartition(":")
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
        return f"{self.compose('ps', '--all', check=False)}\n{self.compose('logs', '--tail', '30', check=False)}"

    def close(self) -> None:
        self.compose("down", "--volumes", "--timeout", "5")


@pytest.fixture(scope="session")
def composition() -> Iterator[Composition]:
    """The whole system with two rollouts, running."""
    composition = Composition()
    try:
        composition.compose("up", "--detach", "--no-build", "--scale", "rollout=2")
        yield composition
    finally:
        composition.close()

"""What a rollout worker is told from outside; everything else comes with the run from the replay API."""

from __future__ import annotations

import os
import re
import socket
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from gaitfleet.client import read_token, usable_token, usable_url
from gaitfleet.episode import Role
from gaitfleet.identity import RUN_PATTERN

PREFIX = "GAITFLEET_ROLLOUT_"
"""What the names of its environment variables begin with."""


def _cores() -> int:
    """Cores this process may use: fewer than the machine has, in a container with a CPU set."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:80] or "worker"


class RolloutSettings(BaseSettings):
    """Settings of the rollout service, from the environment (``GAITFLEET_ROLLOUT_…``)."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore")

    replay_api_url: str = Field(
        default="http://127.0.0.1:8080", pattern=r"^https?://\S+$", description="Where the replay API is."
    )
    run: str = Field(pattern=RUN_PATTERN, description="The run to play for.")
    token: SecretStr | None = Field(default=None, description="Bearer token of role `rollout`; none: none is sent.")
    token_file: Path | None = Field(
        default=None, description="File that holds it instead; read again when the API refuses the token."
    )
    api_timeout_seconds: float = Field(default=30.0, gt=0, le=600, description="Limit for one request to the API.")

    role: Role = Field(
        default="train",
        description="`train`: with exploration, by the newest policy. `random`: uniformly random decisions. "
        "`evaluate`: every new policy without noise, by the official rules.",
    )
    worker: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$", min_length=1, max_length=80)] = Field(
        default_factory=_host, description="Name of this worker, unique within the run; unset: the host's name."
    )
    partial_episodes: Literal["post", "drop"] = Field(
        default="post",
        description="What becomes of an episode that a stop or a failing simulator cut short: posted as truncated, or "
        "dropped. Cut evaluation episodes are never posted at a stop: half an episode is no score.",
    )

    simulators: int = Field(
        default_factory=_cores, ge=1, le=1024, description="Simulator processes; unset: one per core."
    )
    episodes_per_process: int = Field(
        default=300, ge=1, description="Episodes after which a simulator process is replaced: OpenSim leaks memory."
    )
    memory_limit_mb: int = Field(
        default=1500,
        ge=50,
        description="Resident memory of a simulator process, in MiB, above which it is replaced between two episodes; "
        "above twice as much it is replaced at once.",
    )
    step_timeout_seconds: float = Field(
        default=30.0, gt=0, description="A simulator that makes no step (or reset) for so long is replaced."
    )
    startup_timeout_seconds: float = Field(
        default=180.0, gt=0, description="The same while its process starts, imports its simulator and loads the model."
    )

    spool_dir: Path = Field(
        default_factory=lambda: Path(tempfile.gettempdir()) / "gaitfleet-rollout",
        description="Directory for episodes that could not be posted yet; one directory per run is made in it.",
    )
    spool_max_bytes: int = Field(
        default=512 << 20,
        ge=1,
        description="Compressed bytes in the spool from which on the simulators pause; episodes under way still fit.",
    )
    posters: int = Field(default=2, ge=1, le=32, description="Threads that post episodes.")

    stop_timeout_seconds: float = Field(
        default=8.0, ge=1, description="After SIGTERM: stop, post or spool, and exit within this."
    )
    metrics_port: int = Field(default=0, ge=0, le=65535, description="Port for Prometheus; 0: none.")
    metrics_address: str = Field(
        default="0.0.0.0",  # noqa: S104  (Prometheus scrapes the pod from outside)
        description="Address that port is bound to.",
    )
    progress_file: Path | None = Field(
        default=None, description="File that is touched every second while the main loop turns, for a liveness probe."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(default="INFO", description="Least level logged.")

    @field_validator("replay_api_url")
    @classmethod
    def _can_be_asked(cls, url: str) -> str:
        return usable_url(url)

    @field_validator("token")
    @classmethod
    def _usable(cls, token: SecretStr | None) -> SecretStr | None:
        usable = usable_token(None if token is None else token.get_secret_value())
        return None if usable is None else SecretStr(usable)

    @field_validator("token_file")
    @classmethod
    def _holds_a_token(cls, path: Path | None) -> Path | None:
        with suppress(OSError):  # a file that is not there yet is waited for
            if path is not None:
                read_token(path)
        return path

    @model_validator(mode="after")
    def _one_source_of_the_token(self) -> Self:
        if self.token is not None and self.token_file is not None:
            raise ValueError("token and token_file are both set; set one of them")
        return self

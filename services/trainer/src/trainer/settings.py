"""Settings of the trainer, from environment variables with the prefix ``GAITFLEET_TRAINER_``."""

from __future__ import annotations

import os
import re
import secrets
import socket
from pathlib import Path
from typing import Self

import torch
from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from gaitfleet.client import read_token, usable_token, usable_url
from gaitfleet.identity import RUN_PATTERN

PREFIX = "GAITFLEET_TRAINER_"
"""What the names of its environment variables begin with."""

MOST_THREADS = 4
"""Threads of an update by default at most: matrices of a few hundred rows gain nothing from more."""

FIRST_BF16_CAPABILITY = 8
"""Compute capability, major, from which on NVIDIA's GPUs multiply bfloat16: Ampere."""


def default_threads() -> int:
    """Half of the cores, as simulators beside it need the others.

    Threads of one update wait for each other: on two cores that other processes kept busy, two threads did 2 to 5
    updates per second where one thread did 14 to 50.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores // 2, MOST_THREADS))


def default_holder() -> str:
    """Host name and a random part: unique for each start."""
    host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:80] or "trainer"
    return f"{host}-{secrets.token_hex(4)}"


class TrainerSettings(BaseSettings):
    """What differs between places; what is learned, and how, comes from the run's experiment."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True)

    replay_api_url: str = Field(
        default="http://127.0.0.1:8080", pattern=r"^https?://\S+$", description="Base URL of the replay API."
    )
    token: SecretStr | None = Field(default=None, description="Bearer token of role trainer; none: none is sent.")
    token_file: Path | None = Field(default=None, description="File that holds the token, instead of `token`.")
    run: str = Field(pattern=RUN_PATTERN, description="Id of the run to train.")
    device: str = Field(
        default="auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="`auto` (a GPU if there is one), `cpu` or `cuda`.",
    )
    threads: int = Field(
        default_factory=default_threads, ge=1, le=256, description="Threads of an update; default half of the cores."
    )
    half_precision: bool = Field(
        default=False, description="Fetch observations as float16: half the bytes, three digits."
    )
    bf16: bool = Field(
        default=False,
        description="Multiply in bfloat16, three digits, forward and backward; parameters, gradients, optimisers and "
        "losses stay float32. For GPUs from Ampere on.",
    )
    cuda_graphs: bool = Field(
        default=False,
        description="Record an update as a CUDA graph and replay it: the host launches one thing instead of hundreds. "
        "For GPUs; never run on one by this project yet.",
    )
    metrics_port: int = Field(default=0, ge=0, le=65_535, description="Port of the Prometheus metrics; 0: none.")
    metrics_address: str = Field(
        default="0.0.0.0",  # noqa: S104  (Prometheus scrapes the pod from outside)
        description="Address that port is bound to.",
    )
    progress_file: Path | None = Field(
        default=None, description="File that is touched every second while the main loop turns, for a liveness probe."
    )
    lease_ttl_seconds: float = Field(
        default=30.0, ge=3, le=600, description="After so long without a sign of life another trainer may take over."
    )
    holder: str = Field(
        default_factory=default_holder,
        max_length=100,
        pattern=r"^[A-Za-z0-9._-]+$",
        description="Who holds the lease; unique for each start.",
    )
    log_level: str = Field(
        default="INFO", pattern=r"^(?i:debug|info|warning|error)$", description="Least level that is logged."
    )

    @field_validator("replay_api_url")
    @classmethod
    def _can_be_asked(cls, url: str) -> str:
        return usable_url(url)

    @field_validator("token")
    @classmethod
    def _usable(cls, token: SecretStr | None) -> SecretStr | None:
        usable = usable_token(None if token is None else token.get_secret_value())
        return None if usable is None else SecretStr(usable)

    @model_validator(mode="after")
    def _one_token(self) -> Self:
        if self.token is not None and self.token_file is not None:
            raise ValueError("token and token_file are both set; set one")
        return self

    def read_token(self) -> str | None:
        """The token, from wherever it is; None when authentication is off.

        Raises
        ------
        OSError
            When `token_file` cannot be read.
        TokenError
            When it holds no token.
        """
        if self.token_file is not None:
            return read_token(self.token_file)
        return None if self.token is None else self.token.get_secret_value()

    def torch_device(self) -> torch.device:
        """The device that `device` means here.

        Raises
        ------
        ValueError
            When a GPU is asked for that is not there, `bf16` of one that cannot, or `cuda_graphs` without one.
        """
        if self.device not in ("auto", "cpu") and not torch.cuda.is_available():
            raise ValueError(f"device is {self.device!r}, but torch {torch.__version__} finds no GPU here")
        found = "cuda" if torch.cuda.is_available() else "cpu"
        device = torch.device(found if self.device == "auto" else self.device)
        if device.index is not None and device.index >= torch.cuda.device_count():
            raise ValueError(
                f"device is {self.device!r}, but the last GPU here is cuda:{torch.cuda.device_count() - 1}"
            )
        if self.cuda_graphs and device.type != "cuda":
            raise ValueError(f"cuda_graphs is true, but the trainer computes on {device}: it is for GPUs alone")
        if self.bf16 and device.type == "cuda":
            properties = torch.cuda.get_device_properties(device)
            if properties.major < FIRST_BF16_CAPABILITY:
                capability = f"{properties.major}.{properties.minor}"
                raise ValueError(
                    f"bf16 is true, but {properties.name} (compute capability {capability}) has no bfloat16"
                )
        return device

"""Every option of the service: one class, one prefix, checked at start."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

Tokens = Annotated[tuple[SecretStr, ...], NoDecode]
Component = Literal["replay-api", "rollout", "evaluation", "trainer"]
Dollars = Annotated[float, Field(ge=0, allow_inf_nan=False)]

MINIMUM_TOKEN_LENGTH = 16
"""Characters; shorter tokens can be guessed."""


class Settings(BaseSettings):
    """Options of the replay API, from environment variables ``GAITFLEET_REPLAY_API_<FIELD>``."""

    model_config = SettingsConfigDict(env_prefix="GAITFLEET_REPLAY_API_", frozen=True, hide_input_in_errors=True)

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8080, ge=0, le=65535, description="Port to listen on; 0 for any free one.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(default="INFO", description="Least level logged.")
    shutdown_seconds: int = Field(default=10, ge=1, description="How long requests may finish after SIGTERM.")

    authentication: Literal["token", "none"] = Field(
        default="token",
        description="`token`: bearer tokens by role. `none`: everybody may do everything; loopback only.",
    )
    rollout_tokens: Tokens = Field(default=(), description="Comma-separated; may post episodes and read.")
    trainer_tokens: Tokens = Field(default=(), description="Comma-separated; may sample, publish and read.")
    reader_tokens: Tokens = Field(default=(), description="Comma-separated; may read.")
    admin_tokens: Tokens = Field(default=(), description="Comma-separated; may do everything.")
    token_directory: Path | None = Field(
        default=None,
        description="Directory with files `rollout`, `trainer`, `reader`, `admin`, one token a line; read again "
        "when they change, so that a mounted secret can be rotated without a restart.",
    )

    secrets_directory: Path | None = Field(
        default=None,
        description="Directory of files that are named like these variables and hold their values, as a mounted "
        "Secret; where a variable is set, it is taken.",
    )
    mongodb_uri: SecretStr = Field(
        default=SecretStr("mongodb://127.0.0.1:27017"), description="Where MongoDB is, with credentials."
    )
    mongodb_database: str = Field(default="gaitfleet", pattern=r"^[A-Za-z0-9_-]{1,60}$", description="Database name.")

    checkpoint_store: str = Field(
        default="directory:./checkpoints",
        pattern=r"^(directory:.+|s3://[a-z0-9][a-z0-9.-]{2,62}(/.*)?)$",
        description="`directory:PATH` or `s3://BUCKET/PREFIX`.",
    )
    s3_endpoint_url: str | None = Field(default=None, description="Endpoint of an S3 that is not AWS.")
    s3_region: str = Field(default="us-east-1", description="Region of the bucket.")
    s3_path_style: bool = Field(
        default=False, description="Bucket in the path, as most S3 servers that are not AWS need."
    )
    s3_access_key_id: SecretStr | None = Field(
        default=None, description="Unset: credentials come from where every AWS client looks for them."
    )
    s3_secret_access_key: SecretStr | None = Field(default=None, description="Belongs to s3_access_key_id.")

    max_episode_bytes: int = Field(
        default=12 << 20,
        ge=1 << 10,
        le=15 << 20,
        description="Body of an episode as sent; MongoDB's documents end at 16 MB.",
    )
    max_decompressed_bytes: int = Field(default=64 << 20, ge=1 << 10, description="Body of an episode, decompressed.")
    max_checkpoint_bytes: int = Field(default=1 << 30, ge=1 << 10, description="Body of a checkpoint.")
    max_json_bytes: int = Field(
        default=4 << 20,
        ge=1 << 10,
        description="Body with an experiment or with priorities; that of any other request has 64 KiB.",
    )
    max_inflight_bytes: int = Field(
        default=512 << 20,
        ge=1 << 20,
        description="Episode bytes worked on at once, counted twice as sent and once decompressed, and as much of "
        "JSON, counted thirtyfold, as it may become in memory; then 429. One episode must fit.",
    )
    max_concurrent_episodes: int = Field(
        default=256,
        ge=1,
        description="Episodes taken in at once; then 429. More would only wait for the database, longer than a request "
        "may take.",
    )
    max_concurrent_samples: int = Field(default=64, ge=1, description="Sample requests served at once; then 429.")
    max_sample_bytes: int = Field(default=1 << 30, ge=1 << 20, description="Size of one answer with batches.")
    max_timestep_values: int = Field(
        default=20_000_000, ge=1000, description="Numbers in one answer of timesteps, rows times columns."
    )
    cpu_threads: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Threads that decode, check and featurise episodes. One does some 300 of 300 steps a second; with "
        "more the event loop waits longer for the interpreter.",
    )
    cache_idle_seconds: float = Field(
        default=3600.0, gt=0, description="A run that nobody used for this long gives its memory back."
    )
    preload_active_seconds: float = Field(
        default=3600.0, ge=0, description="Runs with an episode this recent are loaded at start, before anybody asks."
    )

    dollars_per_hour: dict[Component, Dollars] = Field(
        default={},
        description='Price of one pod by component, for the metrics of cost, as JSON: `{"rollout": 0.05}`. '
        "Components: replay-api, rollout, evaluation, trainer.",
    )
    budget_dollars_per_hour: Dollars | None = Field(
        default=None, description="What all pods together may cost; in the metrics only, where an alert compares it."
    )

    @field_validator("rollout_tokens", "trainer_tokens", "reader_tokens", "admin_tokens", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(SecretStr(part.strip()) for part in value.split(",") if part.strip())
        return value

    @field_validator("rollout_tokens", "trainer_tokens", "reader_tokens", "admin_tokens")
    @classmethod
    def _long_enough(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for token in value:
            if len(token.get_secret_value()) < MINIMUM_TOKEN_LENGTH:
                raise ValueError(
                    f"a token has {len(token.get_secret_value())} characters, needs {MINIMUM_TOKEN_LENGTH}"
                )
        return value

    @model_validator(mode="after")
    def _open_only_on_loopback(self) -> Self:
        if self.authentication == "none" and not is_loopback(self.host):
            raise ValueError(
                f"authentication is none, so host must be a loopback address, not {self.host!r}: "
                "set tokens, or listen on 127.0.0.1"
            )
        if self.authentication == "token" and not (self._tokens_given or self.token_directory):
            raise ValueError(
                "authentication is token but there is no token: set rollout_tokens, trainer_tokens, reader_tokens, "
                "admin_tokens or token_directory, or set authentication to none"
            )
        return self

    @model_validator(mode="after")
    def _whole_s3_key(self) -> Self:
        if (self.s3_access_key_id is None) != (self.s3_secret_access_key is None):
            raise ValueError("s3_access_key_id and s3_secret_access_key belong together: set both or none")
        return self

    @model_validator(mode="after")
    def _one_episode_fits(self) -> Self:
        needed = 2 * self.max_episode_bytes + self.max_decompressed_bytes
        if self.max_inflight_bytes < needed:
            raise ValueError(
                f"max_inflight_bytes is {self.max_inflight_bytes}; one episode may need {needed}: twice "
                "max_episode_bytes, and max_decompressed_bytes"
            )
        return self

    @property
    def _tokens_given(self) -> bool:
        return bool(self.rollout_tokens or self.trainer_tokens or self.reader_tokens or self.admin_tokens)


def from_environment() -> Settings:
    """Settings from environment variables, and from files where no variable is set.

    Secrets are better in files: variables are inherited by child processes and told by debuggers and crash reports.

    Returns
    -------
    Settings
        Of this process.

    Raises
    ------
    pydantic.ValidationError
        For a wrong value; it names the field.
    pydantic_settings.SettingsError
        When `secrets_directory` is something that is no directory.
    """
    return Settings(_secrets_dir=os.environ.get("GAITFLEET_REPLAY_API_SECRETS_DIRECTORY"))


def is_loopback(host: str) -> bool:
    """Whether a name or an address is one of this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

"""The experiment file: one YAML text that says what is simulated, what is learned and how.

The file is read by `gaitfleet up`, by the chart and by nothing else: the services receive the parsed experiment from
the replay API, so that they cannot disagree. Unknown keys are refused with the nearest valid name.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, TypeAdapter, ValidationError, model_validator

from gaitfleet.algorithm_settings import AlgorithmSettings, CrossqSettings, NetworkSettings, SacSettings, Td3Settings
from gaitfleet.course_settings import (
    CurriculumSettings,
    DemonstrationSettings,
    StageSettings,
    WarmStartSettings,
    merged,
)
from gaitfleet.errors import ExperimentError
from gaitfleet.settings import Settings
from gaitfleet.task_settings import (
    INTEGRATORS,
    OFFICIAL_SIMULATOR,
    ActionSettings,
    GymnasiumTask,
    InitialStateSettings,
    ProstheticsActionSettings,
    ProstheticsEndingSettings,
    ProstheticsObservationSettings,
    ProstheticsRewardSettings,
    ProstheticsTask,
    SimulatorSettings,
    SpacesSettings,
    TaskSettings,
)

__all__ = [
    "INTEGRATORS",
    "OFFICIAL_SIMULATOR",
    "ActionSettings",
    "AlgorithmSettings",
    "CheckpointSettings",
    "CrossqSettings",
    "CurriculumSettings",
    "DemonstrationSettings",
    "EvaluationSettings",
    "Experiment",
    "ExplorationChoice",
    "ExplorationSettings",
    "GymnasiumTask",
    "InitialStateSettings",
    "NetworkSettings",
    "ProstheticsActionSettings",
    "ProstheticsEndingSettings",
    "ProstheticsObservationSettings",
    "ProstheticsRewardSettings",
    "ProstheticsTask",
    "ReplaySettings",
    "RetentionSettings",
    "SacSettings",
    "Settings",
    "SimulatorSettings",
    "SpacesSettings",
    "TaskSettings",
    "Td3Settings",
    "WarmStartSettings",
    "load_experiment",
    "parse_experiment",
    "settings_hash",
]


class ReplaySettings(Settings):
    """What is kept for learning, and how fast it may be used."""

    capacity: int = Field(
        default=1_000_000, ge=100, le=1_000_000_000, description="Transitions (decisions) held for sampling."
    )
    min_size: int = Field(
        default=2_000, ge=1, le=1_000_000_000, description="Transitions that must be there before the first sample."
    )
    samples_per_insert: float = Field(
        default=256.0,
        gt=0,
        lt=1 << 53,
        description="Transitions sampled for every transition collected, held by the replay API. Divided by the batch "
        "size it is the update-to-data ratio: 256 with a batch size of 256 is one update for every decision.",
    )
    error_buffer: float | None = Field(
        default=None,
        gt=0,
        lt=1 << 53,
        description="Samples by which the trainer may be ahead of (or, where inserts are limited, behind) that ratio. "
        "Unset: a tenth of `min_size` times the ratio, and at least sixteen batches.",
    )
    limit_inserts: bool = Field(default=False, description="Also slow the rollouts when the trainer is behind.")
    sampling: Literal["uniform", "prioritized"] = Field(
        default="uniform",
        description="`prioritized`: proportional to the temporal-difference error (Schaul et al. 2016).",
    )
    priority_exponent: float = Field(default=0.6, ge=0, le=1, description="alpha of Schaul et al.; 0 is uniform.")
    importance_exponent: float = Field(default=0.4, ge=0, le=1, description="beta of Schaul et al.; 1 corrects fully.")


class ExplorationChoice(Settings):
    """One kind of exploration and how often an episode uses it."""

    kind: Literal["none", "sampled", "gaussian", "correlated", "pink", "parameter"] = Field(
        description="`none`; `sampled`: the policy's own distribution; `gaussian`: independent noise; `correlated`: an "
        "Ornstein-Uhlenbeck process with a time constant of 5 decisions; `pink`: 1/f noise (Eberhard et al. 2023), in "
        "the place of the independent noise of a stochastic policy's own distribution, added to a deterministic one; "
        "`parameter`: noise on the policy's weights, held for the episode (Plappert et al. 2018)."
    )
    weight: float = Field(default=1.0, gt=0, description="Relative share of the episodes.")
    deviation: float = Field(
        default=0.1,
        ge=0,
        le=2,
        description="Standard deviation of added noise; of `parameter`: root mean square change of the action. In "
        "policy units; unused by `none`, `sampled` and by `pink` with a stochastic policy.",
    )


class ExplorationSettings(Settings):
    """Noise of training episodes; drawn anew for every episode."""

    mix: tuple[ExplorationChoice, ...] | None = Field(
        default=None,
        min_length=1,
        description="Unset: `sampled` for algorithms with a stochastic policy, else `gaussian` with deviation 0.1.",
    )


class EvaluationSettings(Settings):
    """How published policies are judged."""

    episodes: int = Field(default=5, ge=1, le=1000, description="Episodes per evaluated checkpoint, without noise.")


class CheckpointSettings(Settings):
    """When checkpoints are published and which are kept. Newest, best and those whose evaluation is under way always
    are."""

    every_updates: int = Field(default=1000, ge=1, description="Updates between two publications.")
    every_seconds: float = Field(default=60.0, gt=0, description="Publish at the latest after this many seconds.")
    keep_last: int = Field(default=5, ge=1, description="Newest checkpoints that are always kept.")
    keep_every_steps: int = Field(
        default=50_000, ge=1, description="Of the older ones, the first in every so many updates is kept."
    )


class RetentionSettings(Settings):
    """What the database keeps. Evaluation episodes are always kept."""

    max_transitions: int | None = Field(
        default=None,
        ge=1_000,
        description="When there are more, the oldest training episodes are deleted, a 32nd of this at a time; "
        "unset: keep all.",
    )


_TASK: TypeAdapter[ProstheticsTask | GymnasiumTask] = TypeAdapter(TaskSettings)


class Experiment(Settings):
    """One experiment: the whole file."""

    task: TaskSettings = Field(default_factory=ProstheticsTask, description="What is simulated.")
    algorithm: Annotated[SacSettings | CrossqSettings | Td3Settings, Field(discriminator="name")] = Field(
        default_factory=SacSettings, description="What learns."
    )
    replay: ReplaySettings = Field(default_factory=ReplaySettings, description="What is sampled, and how fast.")
    exploration: ExplorationSettings = Field(default_factory=ExplorationSettings, description="Noise of the rollouts.")
    evaluation: EvaluationSettings = Field(default_factory=EvaluationSettings, description="How policies are judged.")
    checkpoints: CheckpointSettings = Field(default_factory=CheckpointSettings, description="When they are published.")
    retention: RetentionSettings = Field(default_factory=RetentionSettings, description="What the database keeps.")
    warm_start: WarmStartSettings | None = Field(
        default=None, description="Networks of another run to begin with; unset: random ones."
    )
    demonstrations: DemonstrationSettings | None = Field(
        default=None, description="Another run whose episodes fill a share of every batch; unset: none."
    )
    curriculum: CurriculumSettings | None = Field(
        default=None, description="Stages with tasks of their own; unset: the run has one task."
    )
    seed: int = Field(default=0, ge=0, lt=1 << 31, description="Root of every random stream of the run.")

    @property
    def error_buffer(self) -> float:
        """Samples by which either side may be ahead (Reverb's `error_buffer`)."""
        if self.replay.error_buffer is not None:
            return self.replay.error_buffer
        return max(0.1 * self.replay.min_size * self.replay.samples_per_insert, 16.0 * self.algorithm.batch_size)

    @property
    def exploration_mix(self) -> tuple[ExplorationChoice, ...]:
        """The mix asked for, or the algorithm's own."""
        if self.exploration.mix is not None:
            return self.exploration.mix
        if isinstance(self.algorithm, SacSettings | CrossqSettings):
            return (ExplorationChoice(kind="sampled"),)
        return (ExplorationChoice(kind="gaussian", deviation=0.1),)

    @property
    def stage_names(self) -> tuple[str, ...]:
        """Names of the stages, in order; one empty name where there is no curriculum."""
        return ("",) if self.curriculum is None else tuple(stage.name for stage in self.curriculum.stages)

    def stage_at(self, index: int) -> StageSettings | None:
        """A stage; None where there is no curriculum."""
        return None if self.curriculum is None else self.curriculum.stages[index]

    def task_at(self, index: int) -> ProstheticsTask | GymnasiumTask:
        """The task of a stage: the run's own with what differs there."""
        stage = self.stage_at(index)
        return self.task if stage is None else _TASK.validate_python(merged(self.task.model_dump(), stage.task))

    @model_validator(mode="after")
    def _every_stage_has_a_task(self) -> Self:
        for index, name in enumerate(self.stage_names):
            stage = self.stage_at(index)
            try:
                task = self.task_at(index)
            except ValidationError as error:
                raise ValueError(f"curriculum.stages.{name}.{_problems(error, 'task.')}") from None
            walks = isinstance(task, ProstheticsTask)
            if stage is not None and stage.gate is not None and stage.gate.gait_criteria and not walks:
                raise ValueError(
                    f"curriculum.stages.{name}.gate: {task.environment} has no {stage.gate.gait_criteria[0]}"
                )
        return self

    @model_validator(mode="after")
    def _every_batch_holds_own_transitions(self) -> Self:
        shown = 0.0 if self.demonstrations is None else self.demonstrations.share
        for stage in () if self.curriculum is None else self.curriculum.stages:
            former = 0.0 if stage.former is None else stage.former.share
            if shown + former >= 1:
                raise ValueError(
                    f"demonstrations.share is {shown:g} and curriculum.stages.{stage.name}.former.share {former:g}: "
                    "they must leave a share of every batch to the run itself"
                )
        return self

    @model_validator(mode="after")
    def _rewards_are_scaled_by_their_own_stage(self) -> Self:
        for stage in () if self.curriculum is None else self.curriculum.stages:
            if self.algorithm.reward_scaling and stage.blend_environment_steps is not None:
                raise ValueError(
                    f"algorithm.reward_scaling is true and curriculum.stages.{stage.name}.blend_environment_steps "
                    f"{stage.blend_environment_steps}: the largest return of a stage sets its scale, so that the "
                    "reward of the stage before would set it for good; set one of them only"
                )
        return self

    @model_validator(mode="after")
    def _the_limiter_can_move(self) -> Self:
        needed = max(float(self.algorithm.batch_size), self.replay.samples_per_insert)
        if self.error_buffer < needed:
            raise ValueError(
                f"replay.error_buffer is {self.error_buffer:g}; below {needed:g} (one batch, and the samples owed for "
                "one transition) the limiter could block both sides for ever"
            )
        if self.replay.min_size > self.replay.capacity:
            raise ValueError(f"replay.min_size {self.replay.min_size} is above replay.capacity {self.replay.capacity}")
        return self

    @property
    def hash(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 over the canonical JSON of the experiment."""
        return settings_hash(self)


def settings_hash(settings: Settings) -> str:
    """First 16 hexadecimal digits of the SHA-256 over the canonical JSON of a block of settings."""
    text = json.dumps(settings.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def parse_experiment(data: Any) -> Experiment:
    """Check an experiment that was already read from YAML or JSON.

    Raises
    ------
    ExperimentError
        Naming every field that is wrong, with the value received.
    """
    try:
        return Experiment.model_validate(data)
    except ValidationError as error:
        raise ExperimentError(_problems(error)) from None


def _problems(error: ValidationError, prefix: str = "") -> str:
    """One line for every field that is wrong, with the value received where that is short."""
    lines = []
    for item in error.errors():
        parts = [str(part) for part in item["loc"] if part not in ("prosthetics", "gymnasium")]
        field = (prefix + ".".join(parts)).rstrip(".") or "experiment"
        value = "" if isinstance(item["input"], dict | Experiment) else f" (got {item['input']!r:.100})"
        lines.append(f"{field}: {item['msg'].removeprefix('Value error, ')}{value}")
    return "\n".join(lines)


def load_experiment(path: Path) -> Experiment:
    """Read an experiment file.

    Raises
    ------
    ExperimentError
        When the file is missing, empty, is not YAML, or is not an experiment.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ExperimentError(f"{path}: {error}") from None
    except yaml.YAMLError as error:
        raise ExperimentError(f"{path} is not YAML: {error}") from None
    if data is None:  # more likely a slip than a wish for defaults: a run keeps its experiment for ever
        raise ExperimentError(f"{path} is empty: say `{{}}` for an experiment of defaults")
    try:
        return parse_experiment(data)
    except ExperimentError as error:
        raise ExperimentError(f"{path}:\n{error}") from None

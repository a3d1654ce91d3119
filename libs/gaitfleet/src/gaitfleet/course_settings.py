"""The blocks `warm_start`, `demonstrations` and `curriculum` of the experiment file: where a run begins, what it is
shown, and through which stages it goes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from gaitfleet.identity import RUN_PATTERN
from gaitfleet.settings import Settings

STAGE_PATTERN = r"^[a-z0-9][a-z0-9-]{0,31}$"
"""A stage's name becomes part of metadata, events and messages."""


class WarmStartSettings(Settings):
    """What the trainer knows at the very beginning of the run: networks that another run has learned.

    Actor, critics, targets, temperature and the normaliser of the observations are taken, and their shapes must be
    those of this experiment. Nothing else is: no counters, no random generators.
    """

    run: str = Field(pattern=RUN_PATTERN, description="The other run.")
    checkpoint: Literal["latest", "best"] | Annotated[int, Field(ge=1)] = Field(
        default="latest",
        description="Which of its checkpoints: the latest when this run's trainer first starts, the best by "
        "evaluation, or the one of this step.",
    )
    optimizers: bool = Field(
        default=False,
        description="Also take the optimisers' moments. They belong to the old run's gradients: worth it when task and "
        "reward stay the same.",
    )


class DemonstrationSettings(Settings):
    """Experience of another run in every batch, from the first update to the last (RLPD, Ball et al. 2023).

    Its training episodes are retold under this run's task; `demonstrations: RUN` alone means a share of one half.
    """

    run: str = Field(pattern=RUN_PATTERN, description="The other run, and with it those that it was forked from.")
    share: float = Field(default=0.5, gt=0, lt=1, description="Share of every batch.")

    @model_validator(mode="before")
    @classmethod
    def _run_alone(cls, value: Any) -> Any:
        return {"run": value} if isinstance(value, str) else value


class SurvivalSettings(Settings):
    """How many evaluation episodes must last how long."""

    share: float = Field(default=0.8, gt=0, le=1, description="Share of the episodes.")
    steps: int = Field(ge=1, description="Simulator steps that each of them lasts at least.")


class GateSettings(Settings):
    """When a stage is passed: everything that is stated must hold at once, over evaluation episodes of that stage."""

    policies: int = Field(
        default=1,
        ge=1,
        le=100,
        description="The newest so many policies are judged together, each by all its `evaluation.episodes`.",
    )
    survival: SurvivalSettings | None = Field(default=None, description="How many episodes last how long.")
    mean_return: float | None = Field(default=None, description="Mean official score at least.")
    mean_speed: float | None = Field(default=None, description="Mean forward speed in m/s at least.")
    mean_distance: float | None = Field(default=None, description="Mean forward way in m at least.")
    mean_foot_contacts: float | None = Field(
        default=None, ge=0, description="Mean number of alternating foot contacts at least."
    )
    mean_drift: float | None = Field(
        default=None, gt=0, description="Mean sideways way in m, to either side, below this."
    )
    min_environment_steps: int = Field(
        default=0, ge=0, description="Simulator steps of training that the stage lasts at least."
    )
    max_environment_steps: int | None = Field(
        default=None,
        ge=1,
        description="After so many the next stage begins, whatever the evaluations say; unset: never.",
    )

    @property
    def gait_criteria(self) -> list[str]:
        """Criteria that only a walker can meet."""
        names = ("mean_speed", "mean_distance", "mean_foot_contacts", "mean_drift")
        return [name for name in names if getattr(self, name) is not None]

    @property
    def judges(self) -> bool:
        """Whether evaluations can pass it."""
        return bool(self.gait_criteria) or self.survival is not None or self.mean_return is not None


class FormerSettings(Settings):
    """A share of every batch from what was learned from in the stage before, for the first steps of a stage."""

    share: float = Field(gt=0, lt=1, description="Share of every batch; it stays the same until it ends.")
    environment_steps: int = Field(ge=1, description="Simulator steps of training in the stage after which it ends.")


class StageSettings(Settings):
    """One stage: what is different in it, and when it is passed."""

    name: str = Field(pattern=STAGE_PATTERN, description="Lower-case letters, digits and hyphens; unique.")
    task: dict[str, Any] = Field(
        default_factory=dict,
        description="What differs from the run's `task`, merged into it key by key. The state layout, the observation "
        "and the actions must stay the same.",
    )
    replay: Literal["keep", "restart"] = Field(
        default="keep",
        description="Episodes of the stages before: `keep`: they are learned from too, with this stage's observation, "
        "reward and ending. `restart`: they are not, and the trainer waits for `replay.min_size` new transitions.",
    )
    former: FormerSettings | None = Field(
        default=None,
        description="With `replay: restart`: for how long which share of every batch still comes from the stage "
        "before, with this stage's observation, reward and ending. Unset: nothing does.",
    )
    blend_environment_steps: int | None = Field(
        default=None,
        ge=1,
        description="Over so many simulator steps of training in the stage the reward goes linearly from that of the "
        "stage before into its own; its gate is not judged before. Not with `algorithm.reward_scaling`. Unset: its "
        "own holds at once.",
    )
    gate: GateSettings | None = Field(
        default=None, description="When the next stage begins; every stage but the last has one."
    )

    @model_validator(mode="after")
    def _former_and_blend_can_be(self) -> Self:
        if self.former is not None and self.replay == "keep":
            raise ValueError(
                f"former.share is {self.former.share:g} with replay 'keep', which learns from all of them for good; "
                "set replay: restart"
            )
        latest = None if self.gate is None else self.gate.max_environment_steps
        if self.blend_environment_steps is not None and latest is not None and latest < self.blend_environment_steps:
            raise ValueError(
                f"gate.max_environment_steps is {latest}, below blend_environment_steps "
                f"{self.blend_environment_steps}: the stage would end before its own reward holds"
            )
        return self

    @property
    def least_environment_steps(self) -> int:
        """Simulator steps of training before its gate is judged: until its own reward holds, and as its gate says."""
        return max(self.blend_environment_steps or 0, 0 if self.gate is None else self.gate.min_environment_steps)

    @property
    def begins(self) -> str:
        """In words: what is learned from when it begins, and towards what."""
        replay = "learns from the stages before too" if self.replay == "keep" else "begins with an empty memory"
        former, blend = self.former, self.blend_environment_steps
        beside = (
            ""
            if former is None
            else f", and {former.share:.0%} of the stage before for {former.environment_steps:,} steps"
        )
        return replay + beside + ("" if blend is None else f"; its reward grows in over {blend:,} steps")

    def reward_weight(self, environment_steps: int) -> float:
        """Weight of its own reward, from 0 to 1, after so many simulator steps of training; the rest is that of the
        reward of the stage before."""
        blend = self.blend_environment_steps
        return 1.0 if blend is None else min(1.0, environment_steps / blend)


class CurriculumSettings(Settings):
    """Stages that the run goes through, one after the other."""

    stages: tuple[StageSettings, ...] = Field(min_length=2, max_length=100, description="In order.")

    @model_validator(mode="after")
    def _stages_follow_each_other(self) -> Self:
        names = [stage.name for stage in self.stages]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"stage {name!r} stands twice")
        *passed, last = self.stages
        for stage in passed:
            if stage.gate is None or not (stage.gate.judges or stage.gate.max_environment_steps):
                raise ValueError(f"stage {stage.name!r} needs a gate: a criterion or max_environment_steps")
        if last.gate is not None:
            raise ValueError(f"stage {last.name!r} is the last; its gate would lead nowhere")
        first = self.stages[0]
        for field in ("former", "blend_environment_steps"):
            if getattr(first, field) is not None:
                raise ValueError(f"stage {first.name!r} is the first: there is none before it for {field}")
        return self


def merged(block: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A block of settings with changes in it, blocks within it merged likewise."""
    both = dict(block)
    for key, value in changes.items():
        within = both.get(key)
        both[key] = merged(within, value) if isinstance(within, Mapping) and isinstance(value, Mapping) else value
    return both

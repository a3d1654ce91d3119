"""The `task` block of the experiment file: what is simulated, seen, done and rewarded."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Discriminator, Field, Tag, model_validator

from gaitfleet.settings import Settings

INTEGRATORS = (
    "RungeKuttaMerson",
    "RungeKutta3",
    "RungeKutta2",
    "RungeKuttaFeldberg",
    "SemiExplicitEuler2",
    "ExplicitEuler",
    "CPodes",
    "Verlet",
)
"""Integration methods of OpenSim's Manager."""


def _spans(low: float, high: float) -> bool:
    """Whether an action value has room between its bounds as tasks compute it, in float32."""
    with np.errstate(over="ignore", invalid="ignore"):
        width = np.float32(high) - np.float32(low)
    return bool(width > 0 and np.isfinite(width))


class ActionSettings(Settings):
    """How a policy's output becomes what the simulator receives."""

    repeat: int = Field(default=4, ge=1, le=100, description="Simulator steps for which one decision is held.")
    random_repeat: int = Field(
        default=0,
        ge=0,
        le=100,
        description="Every decision is held for up to this many steps more, drawn uniformly from the episode's seed. "
        "Never in evaluation. 0: always `repeat` steps. The 2018 system: 5, with `repeat` 1.",
    )
    bins: int | None = Field(
        default=None,
        ge=2,
        le=256,
        description="Only this many equally spaced levels of every action value reach the simulator. Unset: all do. "
        "The 2018 system: 2.",
    )


class ProstheticsActionSettings(ActionSettings):
    """How a policy's output becomes muscle excitations."""

    limits: dict[str, tuple[float, float]] = Field(
        default_factory=dict,
        description="Lowest and highest excitation of single muscles, by name; [0, 1] for the others. The policy's "
        "-1 to 1 covers just this range.",
    )

    @model_validator(mode="after")
    def _limits_are_excitations(self) -> Self:
        for muscle, (low, high) in self.limits.items():
            if not (low >= 0 and high <= 1 and _spans(low, high)):
                raise ValueError(f"limits of {muscle} are [{low:g}, {high:g}]; must be 0 <= lowest < highest <= 1")
        return self


class ProstheticsObservationSettings(Settings):
    """What the policy sees of the model."""

    preset: Literal["compact", "official-160", "seed-1260"] = Field(
        default="compact",
        description="`compact`: pose, velocities, muscles, contacts and target in the frame of the pelvis' heading. "
        "`official-160`: osim-rl's own vector (169 values for the intact model), without the target. `seed-1260`: the "
        "2018 system's (1284 values for the intact model), mended. `gaitfleet task show` explains each.",
    )
    history: int = Field(
        default=0,
        ge=0,
        le=32,
        description="How many earlier observations follow the present one, the latest first, `action.repeat` simulator "
        "steps apart; the episode's first stands for those before it. Each makes what the replay API holds of a "
        "decision larger by one observation. Not for `seed-1260`, which has its own.",
    )

    @model_validator(mode="after")
    def _one_history(self) -> Self:
        if self.history and self.preset == "seed-1260":
            raise ValueError(f"history is {self.history}; seed-1260 has a history of its own, so it must be 0")
        return self


class ProstheticsRewardSettings(Settings):
    """What is learned. The simulator's own reward is recorded beside it, whatever is chosen here."""

    preset: Literal[
        "round1", "round2", "walk", "run_fastest", "fixed_target_speed", "catalyst", "mattias", "coach", "coach-2018"
    ] = Field(
        default="round1",
        description="`round1`, `round2`: the official rewards of the 2018 challenge. `walk`: a shaping that finds a "
        "gait from scratch. `run_fastest`, `fixed_target_speed`, `catalyst`, `mattias`: shapings of 2018's first, "
        "third and fourth places. `coach`: the 21 terms of the 2018 system, mended; `coach-2018`: as it was. "
        "`gaitfleet task show` explains each.",
    )
    weights: dict[str, float] = Field(default_factory=dict, description="Other weights for named terms of the preset.")
    target_speed: float = Field(
        default=1.25,
        gt=0,
        le=5,
        description="Forward speed in m/s at which the `walk` shaping saturates, and which `fixed_target_speed` wants.",
    )
    effort_floor: float = Field(
        default=0.6,
        ge=0,
        le=5,
        description="`fixed_target_speed` does not punish effort below this norm of the excitations. With target "
        "speeds of 3, 2 and 1.25 m/s its authors used 1.5, 0.75 and 0.6.",
    )
    scale: float = Field(default=0.1, gt=0, description="Factor on the sum of the terms of every simulator step.")


class ProstheticsEndingSettings(Settings):
    """When an episode ends before its time limit. Evaluation episodes always use the official rule."""

    fall_height: float = Field(
        default=0.6, ge=0, le=0.9, description="Pelvis height in m below which the model has fallen. Official: 0.6."
    )
    head_behind_pelvis: float | None = Field(
        default=None,
        gt=0,
        le=2,
        description="Abort when the head is further behind the pelvis than this, in m. Unset: never. "
        "The 2018 system: 0.2.",
    )
    head_sideways: float | None = Field(
        default=None,
        gt=0,
        le=100,
        description="Abort when the head is further than this to either side of the start line, in m. Unset: never. "
        "The 2018 system: 0.5.",
    )
    coach_reward_below: float | None = Field(
        default=None,
        description="Abort when the terms of the coach add up to less than this (before `scale`): the run's own if its "
        "preset is one of the two coaches, else those of `coach`. Unset: never. The 2018 system: -10.",
    )
    abort_bootstraps: bool = Field(
        default=True,
        description="Whether an abort keeps the value of its last state, as a time limit does. True, because a rule "
        "stops the recording and not the walker: where the reward is mostly negative, a value of zero would make being "
        "aborted the aim. False: an abort costs the future, as a fall does.",
    )


class InitialStateSettings(Settings):
    """Where training episodes begin. Evaluation episodes always begin in the official pose."""

    kind: Literal["official", "stride"] = Field(
        default="official",
        description="`official`: osim-rl's own pose, upright and at rest. `stride`: random poses in mid-stride that "
        "move forward, mixed with the official one.",
    )
    official_share: float = Field(
        default=0.2, ge=0, le=1, description="Share of the episodes that begin in the official pose from the start on."
    )
    anneal_episodes: int | None = Field(
        default=1500,
        ge=1,
        description="The share of strides falls evenly to 0 over this many stored training episodes of the run, random "
        "ones included. null: it stays.",
    )
    speed_deviation: float = Field(
        default=1.5, ge=0, le=5, description="Forward speed of a stride in m/s: |N(0, this)|, ..."
    )
    max_speed: float = Field(default=3.5, ge=0, le=5, description="... and no more than this.")


class SimulatorSettings(Settings):
    """How OpenSim integrates. Evaluation episodes always use osim-rl's own RungeKuttaMerson at 5e-5."""

    integrator: Literal[INTEGRATORS] = Field(  # type: ignore[valid-type]
        default="SemiExplicitEuler2",
        description="Method of OpenSim's Manager. The default is more than twice as fast as osim-rl's own settings, "
        "and as near to the true states as RungeKuttaMerson at the same accuracy: docs/integrator.md.",
    )
    accuracy: float = Field(default=1e-3, gt=0, lt=0.01, description="Integrator accuracy; 0.01 and above is unstable.")


OFFICIAL_SIMULATOR = SimulatorSettings(integrator="RungeKuttaMerson", accuracy=5e-5)
"""osim-rl's own settings, at which official scores are taken."""


class ProstheticsTask(Settings):
    """The walker of the 2018 "AI for Prosthetics" challenge, in OpenSim."""

    environment: Literal["prosthetics"] = Field(default="prosthetics", description="`prosthetics`.")
    model: Literal["2D", "3D"] = Field(
        default="3D", description="`2D` is the planar model: the same muscles, nothing moves sideways."
    )
    prosthetic: bool = Field(default=True, description="Right leg amputated below the knee; false: the intact model.")
    round: Literal[1, 2] = Field(
        default=1, description="1: run at 3 m/s for 300 steps. 2: follow a changing target velocity for 1000 steps."
    )
    time_limit_steps: int | None = Field(
        default=None, ge=1, le=10_000, description="Simulator steps of 10 ms; unset: the round's own 300 or 1000."
    )
    observation: ProstheticsObservationSettings = Field(
        default_factory=ProstheticsObservationSettings, description="What the policy sees."
    )
    action: ProstheticsActionSettings = Field(default_factory=ProstheticsActionSettings, description="How it acts.")
    reward: ProstheticsRewardSettings = Field(
        default_factory=ProstheticsRewardSettings, description="What it is rewarded for."
    )
    ending: ProstheticsEndingSettings = Field(
        default_factory=ProstheticsEndingSettings, description="When an episode ends early."
    )
    initial_state: InitialStateSettings = Field(
        default_factory=InitialStateSettings, description="Where training episodes begin."
    )
    simulator: SimulatorSettings = Field(default_factory=SimulatorSettings, description="How the model is integrated.")


class SpacesSettings(Settings):
    """Sizes and bounds of a Gymnasium environment that gaitfleet does not know by name."""

    observation_size: int = Field(ge=1, le=100_000, description="Length of the flattened Box observation.")
    action_low: tuple[float, ...] = Field(min_length=1, description="Lower bound of every action value.")
    action_high: tuple[float, ...] = Field(min_length=1, description="Upper bounds, each above the lower one.")
    time_limit_steps: int = Field(ge=1, le=1_000_000, description="Steps after which an episode is truncated.")

    @model_validator(mode="after")
    def _bounds_match(self) -> Self:
        if len(self.action_low) != len(self.action_high):
            raise ValueError(f"action_low has {len(self.action_low)} values, action_high {len(self.action_high)}")
        for i, (low, high) in enumerate(zip(self.action_low, self.action_high, strict=True)):
            if not _spans(low, high):
                raise ValueError(
                    f"action {i} has the bounds [{low:g}, {high:g}]; the lower must be below the upper, and both, like "
                    "their difference, numbers of single precision"
                )
        return self


class GymnasiumTask(Settings):
    """Any Gymnasium environment with Box observations and Box actions; its observation is the state."""

    environment: str = Field(
        pattern=r"^gymnasium:[A-Za-z0-9_./:-]{1,100}$",
        description="`gymnasium:` and the id, as `gymnasium:Pendulum-v1`.",
    )
    spaces: SpacesSettings | None = Field(
        default=None, description="Sizes and bounds; only for ids that gaitfleet does not know by name."
    )
    time_limit_steps: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Steps after which an episode is truncated; unset: the registered one.",
    )
    action: ActionSettings = Field(default_factory=lambda: ActionSettings(repeat=1), description="How it acts.")
    reward_scale: float = Field(default=1.0, gt=0, description="Factor on the environment's own reward.")


def _task_tag(value: Any) -> str:
    environment = value.get("environment", "") if isinstance(value, dict) else getattr(value, "environment", "")
    return "gymnasium" if str(environment).startswith("gymnasium:") else "prosthetics"


TaskSettings = Annotated[
    Annotated[ProstheticsTask, Tag("prosthetics")] | Annotated[GymnasiumTask, Tag("gymnasium")],
    Discriminator(_task_tag),
]

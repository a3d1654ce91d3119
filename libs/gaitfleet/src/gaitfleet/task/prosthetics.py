"""The walker of the 2018 "AI for Prosthetics" challenge as a task."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches

import numpy as np
import numpy.typing as npt

from gaitfleet.errors import ExperimentError
from gaitfleet.experiment import InitialStateSettings, ProstheticsEndingSettings, ProstheticsTask
from gaitfleet.layout import StateLayout
from gaitfleet.pose import Pose
from gaitfleet.task.interface import Task, TaskDescription
from gaitfleet.task.prosthetics_ending import AbortRules
from gaitfleet.task.prosthetics_history import History, Observation, Rows
from gaitfleet.task.prosthetics_layout import action_names, prosthetics_layout
from gaitfleet.task.prosthetics_measures import GaitMeasures
from gaitfleet.task.prosthetics_observation import CompactObservation
from gaitfleet.task.prosthetics_official_observation import OfficialObservation
from gaitfleet.task.prosthetics_reward import RewardFunction
from gaitfleet.task.prosthetics_seed_observation import EARLIER_STEPS, SeedObservation
from gaitfleet.task.prosthetics_strides import draw_pose
from gaitfleet.trajectory import Float32, Float64, Trajectory

ROUND_STEPS = {1: 300, 2: 1000}
"""Time limits of the two rounds of the challenge, in simulator steps of 10 ms."""

OBSERVATIONS: dict[str, type[Observation]] = {
    "compact": CompactObservation,
    "official-160": OfficialObservation,
    "seed-1260": SeedObservation,
}
"""What the policy sees of a row, by preset."""

ROUND1_VELOCITY = (3.0, 0.0, 0.0)
"""Target velocity of round 1 in m/s: forward, up, right."""


class ProstheticsTaskFunctions(Task):
    """`Task` over rows of `gaitfleet.task.prosthetics_layout`.

    Raises
    ------
    ExperimentError
        When the settings weigh a reward term, or limit a muscle, that does not exist.
    """

    def __init__(self, settings: ProstheticsTask) -> None:
        layout = prosthetics_layout(settings.model, settings.prosthetic)
        actions = action_names(settings.model, settings.prosthetic)
        self.settings = settings
        self._observation = _observation(settings, layout)
        self._reward = RewardFunction(layout, settings.reward, settings.prosthetic, settings.round)
        self._measures = GaitMeasures(layout, settings.prosthetic)
        self._aborted = AbortRules(layout, settings)
        self._pelvis_y = layout.index("body_pos/pelvis/y")
        low, high = _excitation_limits(actions, settings.action.limits)
        self.description = TaskDescription(
            environment=settings.environment,
            state_layout=layout,
            observation_names=self._observation.names,
            observation_units=self._observation.units,
            action_names=actions,
            action_low=low,
            action_high=high,
            action_repeat=settings.action.repeat,
            action_random_repeat=settings.action.random_repeat,
            action_bins=settings.action.bins,
            time_limit_steps=settings.time_limit_steps or ROUND_STEPS[settings.round],
            has_target_velocity=settings.round == 2,
            has_initial_pose=settings.initial_state.kind != "official",
        )

    def observe(self, state: Float32, target_velocity: Float32 | None, at: Rows | None = None) -> Float32:
        if target_velocity is None:
            target_velocity = np.broadcast_to(np.array(ROUND1_VELOCITY, np.float32), (len(state), 3))
        return self._observation(state, target_velocity, np.arange(len(state)) if at is None else at)

    def reward_terms(self, trajectory: Trajectory) -> dict[str, Float64]:
        return self._reward(trajectory)

    @property
    def reward_scale(self) -> float:
        return self.settings.reward.scale

    def fallen(self, state: Float32) -> npt.NDArray[np.bool_]:
        low: npt.NDArray[np.bool_] = state[:, self._pelvis_y] < self.settings.ending.fall_height
        return low

    @property
    def may_abort(self) -> bool:
        return self._aborted.any

    def aborted(self, trajectory: Trajectory) -> npt.NDArray[np.bool_]:
        return self._aborted(trajectory)

    @property
    def abort_bootstraps(self) -> bool:
        return self.settings.ending.abort_bootstraps

    def measures(self, trajectory: Trajectory) -> dict[str, float | int | None]:
        return self._measures(trajectory)

    def target_velocities(self, seed: int) -> Float32 | None:
        if self.settings.round == 1:
            return None
        return target_track(seed, self.description.time_limit_steps + 1)

    def initial_pose(self, seed: int, training_episodes: int) -> Pose | None:
        return draw_pose(self.settings, seed, training_episodes)

    def for_evaluation(self) -> Task:
        official = {
            "ending": ProstheticsEndingSettings(),
            "initial_state": InitialStateSettings(),
            "action": self.settings.action.model_copy(update={"random_repeat": 0}),
        }
        return ProstheticsTaskFunctions(self.settings.model_copy(update=official))


def _observation(settings: ProstheticsTask, layout: StateLayout) -> History:
    row = OBSERVATIONS[settings.observation.preset](layout, settings.prosthetic)
    if isinstance(row, SeedObservation):
        return History(row, EARLIER_STEPS, kept=row.highest_order)
    return History(row, settings.observation.history, every=settings.action.repeat)


def _excitation_limits(muscles: tuple[str, ...], limits: Mapping[str, tuple[float, float]]) -> tuple[Float32, Float32]:
    """Lowest and highest excitation of every muscle, each [A]."""
    for name in limits:
        if name not in muscles:
            near = get_close_matches(name, muscles, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"muscles are {', '.join(muscles)}"
            raise ExperimentError(f"task.action.limits: unknown muscle {name!r}; {hint}")
    low, high = np.array([limits.get(muscle, (0.0, 1.0)) for muscle in muscles], np.float32).T.copy()
    return low, high


def target_track(seed: int, rows: int) -> Float32:
    """Target velocity of round 2 for every state row, [rows, 3] in m/s.

    As osim-rl's `generate_new_targets`: 1.25 m/s straight ahead at first; after every Poisson(300) steps the speed
    changes by U(-0.5, 0.5) m/s and the heading by U(-pi/8, pi/8). osim-rl draws from the global generators of
    `random` and `numpy`; here the episode's seed decides.
    """
    generator = np.random.default_rng(seed)
    changes = np.cumsum(generator.poisson(300, 10))
    speed_steps = generator.uniform(-0.5, 0.5, 10)
    heading_steps = generator.uniform(-np.pi / 8, np.pi / 8, 10)
    passed = changes[None, :] <= np.arange(rows)[:, None]  # [rows, 10]
    speed = 1.25 + passed @ speed_steps
    heading = passed @ heading_steps
    track = np.stack([speed * np.cos(heading), np.zeros(rows), speed * np.sin(heading)], axis=1)
    return track.astype(np.float32)

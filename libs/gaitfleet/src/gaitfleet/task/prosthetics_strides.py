"""Initial states of the walker: poses in mid-stride, drawn from the episode's seed.

From the zero pose a beginner learns to stand; from strides it meets walking before it can walk. The 2018 and 2019
solutions that began so (HUSC, CATA, BLIZ) learned a gait much faster. Angles are chosen so that they look like strides:
one leg nearly straight on the ground, its foot at rest, the other one swinging past it with a bent knee.
"""

from __future__ import annotations

import math

import numpy as np

from gaitfleet.pose import Pose
from gaitfleet.task_settings import InitialStateSettings, ProstheticsTask

START_STREAM = 4
"""Stream of an episode's seed from which its first pose is drawn; holds and exploration use others."""

THIGH_M, SHANK_M = 0.396, 0.502
"""Hip to knee and knee to sole of the model files."""


def stride_share(settings: InitialStateSettings, training_episodes: int) -> float:
    """Probability that the next training episode of the run begins in mid-stride.

    Parameters
    ----------
    training_episodes
        Of the run so far.
    """
    if settings.kind == "official":
        return 0.0
    left = 1.0 if settings.anneal_episodes is None else max(0.0, 1 - training_episodes / settings.anneal_episodes)
    return (1 - settings.official_share) * left


def draw_pose(task: ProstheticsTask, seed: int, training_episodes: int) -> Pose | None:
    """The first pose of a training episode; None for the official one."""
    generator = np.random.default_rng([seed, START_STREAM])
    if generator.random() >= stride_share(task.initial_state, training_episodes):
        return None
    return _stride(task, generator)


def _stride(task: ProstheticsTask, generator: np.random.Generator) -> Pose:
    """Angles of the legs are against the vertical, positive forward, before the tilt of the pelvis is taken off."""
    uniform = generator.uniform
    settings = task.initial_state
    forward = min(abs(generator.normal(0, settings.speed_deviation)), settings.max_speed)
    stance, swing = ("l", "r") if generator.random() < 0.5 else ("r", "l")
    tilt, leaning = uniform(-0.15, 0.05), uniform(-0.3, 0.25)
    stance_knee, swing_knee = uniform(-0.15, -0.05), uniform(-1.35, -0.95)
    swinging = -1.2 * leaning + uniform(0, 0.45)  # behind while the other leg lands, in front before it takes off
    swing_ankle, swing_rate = uniform(0.0, 0.3), uniform(0.8, 1.4)
    adduction = uniform(-0.1, 0.0, 2)

    # from hip to sole; the sole stays where it is while the hip passes over it
    ahead = THIGH_M * math.sin(leaning) + SHANK_M * math.sin(leaning + stance_knee)
    below = THIGH_M * math.cos(leaning) + SHANK_M * math.cos(leaning + stance_knee)
    stance_rate = -forward / below
    value = {
        "pelvis_tilt": tilt,
        f"hip_flexion_{stance}": leaning - tilt,
        f"hip_flexion_{swing}": swinging - tilt,
        f"knee_angle_{stance}": stance_knee,
        f"knee_angle_{swing}": swing_knee,
        f"ankle_angle_{stance}": -leaning - stance_knee,  # flat on the ground
        f"ankle_angle_{swing}": swing_ankle,
    }
    speed = {
        "pelvis_tx": forward,
        "pelvis_ty": -stance_rate * ahead,
        f"hip_flexion_{stance}": stance_rate,
        f"hip_flexion_{swing}": -swing_rate * stance_rate,
        f"ankle_angle_{stance}": -stance_rate,
    }
    if task.model == "3D":
        value |= dict(zip(("hip_adduction_r", "hip_adduction_l"), adduction.tolist(), strict=True))
    if task.prosthetic:  # its ankle is a spring, at rest in the official pose
        value.pop("ankle_angle_r")
        speed.pop("ankle_angle_r", None)
    return Pose(value=value, speed=speed)

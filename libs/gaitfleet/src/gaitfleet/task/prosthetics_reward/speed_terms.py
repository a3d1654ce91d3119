"""Reward terms of staying up and of moving as fast, and in the direction, that is asked for."""

from __future__ import annotations

import numpy as np

from gaitfleet.task.prosthetics_reward.effort_terms import effort
from gaitfleet.task.prosthetics_reward.term import SIDES, Steps, term
from gaitfleet.trajectory import Float64


@term("1", unit="1", source="official")
def alive(steps: Steps) -> Float64:
    return np.ones(len(steps.after))


@term("(vx_p - 3)^2", unit="m^2/s^2", source="official, round 1")
def speed_error(steps: Steps) -> Float64:
    return np.square(steps.now("body_vel/pelvis/x") - 3.0)


@term("(vx_p - tx)^2 + (vz_p - tz)^2", unit="m^2/s^2", source="official, round 2")
def target_velocity_error(steps: Steps) -> Float64:
    error_x = steps.now("body_vel/pelvis/x") - steps.target_x
    error_z = steps.now("body_vel/pelvis/z") - steps.target_z
    return error_x * error_x + error_z * error_z


@term("min(12, 8 (target_velocity_error + 0.001 effort))", unit="m^2/s^2", source="4th of 2018, round 2")
def capped_official_penalty(steps: Steps) -> Float64:
    return np.minimum(12.0, 8.0 * (target_velocity_error.function(steps) + 0.001 * effort.function(steps)))


@term("tanh(1.5 vx_p / target_speed)", unit="1", source="BLIZ 2019")
def forward_velocity(steps: Steps) -> Float64:
    return np.tanh(1.5 / steps.settings.target_speed * steps.now("body_vel/pelvis/x"))


@term("tanh(2 vz_p)^2", unit="1", source="BLIZ 2019")
def lateral_velocity(steps: Steps) -> Float64:
    return np.square(np.tanh(2.0 * steps.now("body_vel/pelvis/z")))


@term("(vx_p - target_speed)^2", unit="m^2/s^2", source="1st of 2018, stages 2 to 4")
def target_speed_error(steps: Steps) -> Float64:
    return np.square(steps.now("body_vel/pelvis/x") - steps.settings.target_speed)


@term("vz_p^2", unit="m^2/s^2", source="1st of 2018, stages 2 to 4")
def sideways_speed(steps: Steps) -> Float64:
    return np.square(steps.now("body_vel/pelvis/z"))


@term("max(Dx right shin, Dx left shin)", unit="m", source="1st of 2018, stage 1")
def shin_advance(steps: Steps) -> Float64:
    right, left = (steps.change(f"body_pos/{steps.walker.shin[side]}/x") for side in SIDES)
    return np.maximum(right, left)


TERMS = (
    alive,
    speed_error,
    target_velocity_error,
    capped_official_penalty,
    forward_velocity,
    lateral_velocity,
    target_speed_error,
    sideways_speed,
    shin_advance,
)

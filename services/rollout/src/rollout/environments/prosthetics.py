"""The walker of the 2018 "AI for Prosthetics" challenge."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gaitfleet.pose import Pose
from gaitfleet.task.prosthetics_layout import Model
from rollout.environments.interface import Float32
from rollout.environments.opensim_compatibility import OpenSimModel


class ProstheticsEnvironment:
    """A musculoskeletal walker whose right leg ends in a prosthesis; one step is 10 ms.

    ## Action

    One excitation per muscle, a pure number in [0, 1]; OpenSim raises anything below 0.01 to 0.01. A muscle's
    activation follows with a time constant of 0.01 s upwards and 0.04 s downwards.

    | index | muscle, right | index | muscle, left | what it does                    | range  | unit |
    |-------|---------------|-------|--------------|---------------------------------|--------|------|
    | 0     | abd_r         | 8     | abd_l        | hip abduction                   | [0, 1] | 1    |
    | 1     | add_r         | 9     | add_l        | hip adduction                   | [0, 1] | 1    |
    | 2     | hamstrings_r  | 10    | hamstrings_l | hip extension and knee flexion  | [0, 1] | 1    |
    | 3     | bifemsh_r     | 11    | bifemsh_l    | knee flexion                    | [0, 1] | 1    |
    | 4     | glut_max_r    | 12    | glut_max_l   | hip extension                   | [0, 1] | 1    |
    | 5     | iliopsoas_r   | 13    | iliopsoas_l  | hip flexion                     | [0, 1] | 1    |
    | 6     | rect_fem_r    | 14    | rect_fem_l   | hip flexion and knee extension  | [0, 1] | 1    |
    | 7     | vasti_r       | 15    | vasti_l      | knee extension                  | [0, 1] | 1    |
    |       |               | 16    | gastroc_l    | knee flexion, toes down         | [0, 1] | 1    |
    |       |               | 17    | soleus_l     | toes down                       | [0, 1] | 1    |
    |       |               | 18    | tib_ant_l    | toes up                         | [0, 1] | 1    |

    The intact models have the last three on the right too, as 8 to 10; the left leg then follows from 11. The planar
    models take the same muscles; abductors and adductors pull on joints that are locked.

    ## State

    `gaitfleet.task.prosthetics_layout` names every column, its unit and positive direction: x forward, y up, z right.

    | group                                    | columns | unit                    |
    |------------------------------------------|---------|-------------------------|
    | joint_pos, joint_vel, joint_acc          | 3 x 17  | rad or m, per s, per s2 |
    | body_pos, body_vel, body_acc             | 3 x 33  | m, m/s, m/s2            |
    | body_pos_rot, body_vel_rot, body_acc_rot | 3 x 33  | rad, rad/s, rad/s2      |
    | forces                                   | 78      | N, N*m, J               |
    | muscles                                  | 76      | 1, m, m/s, N            |
    | misc (mass centre)                       | 9       | m, m/s, m/s2            |

    412 in all; 468 for the intact models (13 bodies, 86 forces, 22 muscles).

    ## Reward

    osim-rl's own, with the pelvis' velocity v, the target t and the activations a at the end of the step:

    * round 1: ``9 - (v_x - 3)^2``
    * round 2: ``10 - sum(a^2) / 1000 - (v_x - t_x)^2 - (v_z - t_z)^2``

    ## Episode end

    Never by itself: `step` always returns ``terminated = truncated = False``. The official fall (pelvis below 0.6 m),
    other ending rules and the time limit (300 steps in round 1, 1000 in round 2) are the task's, which decides on the
    recorded row.

    Parameters
    ----------
    model
        "2D" (pelvis and hips move in the sagittal plane only) or "3D".
    prosthetic
        False for the intact walker.
    round
        1 or 2 of the challenge: which reward is recorded.
    integrator
        Method of integration, for example ``RungeKuttaMerson`` (osim-rl's) or ``SemiExplicitEuler2``.
    accuracy
        Of the integration; osim-rl uses 5e-5.

    Raises
    ------
    ValueError
        When an argument is not one of these.
    """

    def __init__(
        self,
        model: Model = "3D",
        prosthetic: bool = True,
        round: int = 2,
        integrator: str = "RungeKuttaMerson",
        accuracy: float = 5e-5,
    ) -> None:
        if round not in (1, 2):
            raise ValueError(f"round must be 1 or 2, not {round!r}")
        self.simulator = OpenSimModel(model, prosthetic, integrator, accuracy)
        self._round = round
        self._target_velocity: list[list[float]] | None = None  # forward, up, right in m/s of every row
        self._steps = 0
        self._held: bytes | None = None  # the action that the muscles receive
        self.layout = self.simulator.layout
        self.action_names = self.simulator.action_names
        self.state_size = len(self.layout)
        self.action_size = len(self.action_names)

    def reset(
        self,
        seed: int,
        state: Float32,
        target_velocity: npt.NDArray[np.floating] | None = None,
        pose: Pose | None = None,
    ) -> None:
        """Take up `pose` or the official one. Nothing in it is random, so `seed` changes nothing.

        Raises
        ------
        ValueError
            When round 2 has no `target_velocity` of shape [T+1, 3], or round 1 has one, or `pose` names a coordinate
            that does not exist or is locked.
        """
        if (target_velocity is None) == (self._round == 2):
            raise ValueError(f"round {self._round} {'needs a' if self._round == 2 else 'has no'} target_velocity")
        if target_velocity is not None and (target_velocity.ndim != 2 or target_velocity.shape[1] != 3):
            raise ValueError(f"target_velocity must have the shape [T+1, 3], not {list(target_velocity.shape)}")
        self._target_velocity = None if target_velocity is None else target_velocity.tolist()
        self._steps = 0
        self._held = None
        self.simulator.reset(pose)
        self.simulator.extract(state)

    def step(self, action: Float32, state: Float32) -> tuple[float, bool, bool]:
        self._hold(action)
        target = self._target_velocity
        target_now = None if target is None else target[self._steps + 1]  # at the end of the step, as osim-rl takes it
        self.simulator.integrate()
        self.simulator.extract(state)
        self._steps += 1
        return self.simulator.official_reward(target_now), False, False

    def close(self) -> None:
        vars(self).pop("simulator", None)  # the model's memory goes with its last reference; closing twice is harmless

    def _hold(self, action: Float32) -> None:
        """Give the muscles their excitations, once for as many steps as they stay the same."""
        if action.shape != (self.action_size,):
            raise ValueError(f"an action has the shape [{self.action_size}], not {list(action.shape)}")
        held = action.tobytes()
        if held != self._held:
            self.simulator.set_excitations(self._checked(action))
            self._held = held

    def _checked(self, action: Float32) -> list[float]:
        excitations: list[float] = action.tolist()
        for i, value in enumerate(excitations):
            if not 0 <= value <= 1:  # NaN is not, either
                muscle = self.action_names[i]
                raise ValueError(f"the excitation of {muscle}, action[{i}], is {value!r}, not within [0, 1]")
        return excitations

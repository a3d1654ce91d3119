"""What is recorded of an episode: the arrays, with their shapes and units.

Legend used in shape comments everywhere: T simulator steps, S state columns, A action values, O observation values,
B transitions in a batch, K batches in a response.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Trajectory:
    """The raw record of one episode. Nothing derived is stored: observation and shaped reward follow from the task.

    Parameters
    ----------
    state
        float32 [T+1, S]. Row 0 is the state after reset, row t+1 the state after step t.
    action
        float32 [T, A]. What the simulator received, in its own bounds (excitations in [0, 1] for OpenSim).
    reward
        float32 [T]. The simulator's own reward.
    decision
        uint8 [T]. 1 where the policy decided anew, 0 where the action was held. Always 1 at step 0.
    target_velocity
        float32 [T+1, 3] in m/s (x forward, y up, z right), for tasks that have one.
    """

    state: Float32
    action: Float32
    reward: Float32
    decision: npt.NDArray[np.uint8]
    target_velocity: Float32 | None = None

    @property
    def steps(self) -> int:
        """T, the number of simulator steps."""
        return int(self.action.shape[0])

    @property
    def decision_steps(self) -> npt.NDArray[np.intp]:
        """Steps at which the policy decided, ascending."""
        return np.flatnonzero(self.decision)

"""What the configurations of all algorithms have in common."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

from gaitfleet.experiment import AlgorithmSettings, NetworkSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class AlgorithmConfig:
    """Hyper-parameters of an algorithm, with the sizes of the task.

    A subclass has further fields under the names that they have in its settings, where each is described.
    """

    observation_size: int
    """Length of the observation, O."""
    action_size: int
    """Length of the action, A."""
    actor: NetworkSettings
    critic: NetworkSettings
    actor_learning_rate: float
    critic_learning_rate: float
    initial_excitation: float | None

    @classmethod
    def resolve(cls, settings: AlgorithmSettings, *, observation_size: int, action_size: int) -> Self:
        """The configuration that `settings` mean for a task of these sizes."""
        names = {field.name for field in fields(cls)} & type(settings).model_fields.keys()
        values = {name: getattr(settings, name) for name in names}
        return cls(observation_size=observation_size, action_size=action_size, **values)

"""The `algorithm` block of the experiment file: what learns, with which networks and step sizes."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from gaitfleet.settings import Settings


class NetworkSettings(Settings):
    """Shape of one network."""

    kind: Literal["mlp", "simba"] = Field(
        default="simba",
        description="`mlp`: `blocks` linear layers with ReLU. `simba`: residual LayerNorm blocks (Lee et al. 2025).",
    )
    hidden_size: int = Field(default=256, ge=1, le=8192, description="Width of the layers.")
    blocks: int = Field(default=1, ge=1, le=16, description="Residual blocks, or linear layers of an `mlp`.")


TARGET_UPDATE_RATE = "Polyak rate of the target networks, tau."


class AlgorithmSettings(Settings):
    """What every algorithm needs."""

    batch_size: int = Field(default=256, ge=1, le=65_536, description="Transitions in one update.")
    discount: float = Field(default=0.97, ge=0, lt=1, description="Discount of one decision, gamma.")
    n_step: int = Field(default=1, ge=1, le=32, description="Decisions summed before the bootstrap.")
    actor_learning_rate: float = Field(default=3e-4, gt=0, description="Adam's step size for the actor.")
    critic_learning_rate: float = Field(default=3e-4, gt=0, description="Adam's step size for both critics.")
    actor: NetworkSettings = Field(default=NetworkSettings(hidden_size=128), description="The actor's network.")
    critic: NetworkSettings = Field(default=NetworkSettings(hidden_size=256), description="The critics' networks.")
    observation_clip: float = Field(default=5.0, gt=0, description="Normalised observations are clipped to +- this.")
    reward_scaling: bool = Field(
        default=False,
        description="Divide rewards by the running deviation of the returns so far, or by more, so that none of these "
        "leaves +- `value_bound` (Lee et al. 2025, SimBaV2).",
    )
    value_bound: float = Field(
        default=5.0, gt=0, description="Where scaled returns, and the bins of a categorical critic, end."
    )
    initial_excitation: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Where in its bounds the first policy's mean action lies, 0 lowest, 1 highest: the excitation of "
        "every muscle at the start. Unset: in the middle, which holds all muscles half contracted.",
    )


class SacSettings(AlgorithmSettings):
    """Soft actor-critic (Haarnoja et al. 2018) with learned temperature."""

    name: Literal["sac"] = Field(default="sac", description="`sac`.")
    initial_temperature: float = Field(default=0.01, gt=0, description="Entropy temperature at the start, alpha.")
    temperature_learning_rate: float = Field(default=3e-4, gt=0, description="Adam's step size for log alpha.")
    target_entropy_per_action: float = Field(
        default=-0.5, description="Target entropy is this times the number of action values."
    )
    target_update_rate: float = Field(default=0.005, gt=0, le=1, description=TARGET_UPDATE_RATE)
    critic_bins: int | None = Field(
        default=None,
        ge=3,
        le=1001,
        description="Critics predict how the return is distributed over so many values from -`value_bound` to "
        "`value_bound` (Bellemare et al. 2017); 101 in SimBaV2, and only with `reward_scaling`. Unset: its mean.",
    )

    @model_validator(mode="after")
    def _bins_hold_the_returns(self) -> Self:
        if self.critic_bins is not None and not self.reward_scaling:
            raise ValueError(
                f"critic_bins is {self.critic_bins} without reward_scaling: returns beyond +-{self.value_bound:g} "
                "could not be told apart; set reward_scaling: true"
            )
        return self


class CrossqSettings(AlgorithmSettings):
    """CrossQ (Bhatt et al. 2024): soft actor-critic with batch renormalisation and without target networks."""

    name: Literal["crossq"] = Field(default="crossq", description="`crossq`.")
    actor_learning_rate: float = Field(default=1e-3, gt=0, description="Adam's step size for the actor.")
    critic_learning_rate: float = Field(default=1e-3, gt=0, description="Adam's step size for both critics.")
    actor: NetworkSettings = Field(
        default=NetworkSettings(kind="mlp", hidden_size=256, blocks=2), description="The actor's network; an `mlp`."
    )
    critic: NetworkSettings = Field(
        default=NetworkSettings(kind="mlp", hidden_size=512, blocks=2),
        description="The critics' networks; an `mlp`. The paper's are 2048 wide, which is for a GPU.",
    )
    initial_temperature: float = Field(default=0.01, gt=0, description="Entropy temperature at the start, alpha.")
    temperature_learning_rate: float = Field(default=1e-3, gt=0, description="Adam's step size for log alpha.")
    target_entropy_per_action: float = Field(
        default=-1.0, description="Target entropy is this times the number of action values."
    )
    policy_delay: int = Field(
        default=3, ge=1, description="Critic updates for one update of the actor and the temperature."
    )
    adam_beta1: float = Field(
        default=0.5, ge=0, lt=1, description="Adam's decay of the gradient's mean, for actor and critics."
    )
    renorm_momentum: float = Field(
        default=0.99, ge=0, lt=1, description="What the running statistics of batch renormalisation keep in an update."
    )
    renorm_warmup_updates: int = Field(
        default=100_000,
        ge=0,
        description="Updates with plain batch normalisation, before the running statistics correct it.",
    )

    @model_validator(mode="after")
    def _renormalised_networks_are_mlps(self) -> Self:
        for name, network in (("actor", self.actor), ("critic", self.critic)):
            if network.kind != "mlp":
                raise ValueError(f"{name}.kind is {network.kind!r}; crossq normalises the layers of an 'mlp' instead")
        return self


class Td3Settings(AlgorithmSettings):
    """Twin delayed deep deterministic policy gradient (Fujimoto et al. 2018)."""

    name: Literal["td3"] = Field(default="td3", description="`td3`.")
    policy_delay: int = Field(default=2, ge=1, description="Critic updates for one actor update.")
    target_noise: float = Field(default=0.2, ge=0, description="Deviation of the target policy's smoothing noise.")
    target_noise_clip: float = Field(default=0.5, ge=0, description="That noise is clipped to +- this.")
    target_update_rate: float = Field(default=0.005, gt=0, le=1, description=TARGET_UPDATE_RATE)

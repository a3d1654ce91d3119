"""The blocks `warm_start` and `curriculum` of the experiment file: where a run begins, and through which stages it
goes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gaitfleet.identity import RUN_PATTERN
from gaitfleet.settings import Settings


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

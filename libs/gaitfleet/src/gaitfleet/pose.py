"""A pose that an episode begins in, by the names of the model's coordinates."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

_Name = Annotated[str, Field(pattern=r"^[a-z_]{1,50}$")]


class Pose(BaseModel):
    """Coordinates that differ from the model's own first pose; all others, and speeds left out, are as there."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    value: dict[_Name, FiniteFloat] = Field(
        max_length=50, description="rad or m by coordinate. The height of the pelvis follows from the feet."
    )
    speed: dict[_Name, FiniteFloat] = Field(max_length=50, description="rad/s or m/s by coordinate.")

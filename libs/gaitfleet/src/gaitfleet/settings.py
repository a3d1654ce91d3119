"""What every block of the experiment file has in common."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator


class Settings(BaseModel):
    """Base of every block of the file: frozen, strict about names, and every number finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _name_the_nearest_key(cls, data: Any) -> Any:
        if isinstance(data, dict):
            valid = [field.alias or name for name, field in cls.model_fields.items()]
            for key in data:
                if key not in valid and key not in cls.model_fields:
                    near = get_close_matches(str(key), valid, n=1)
                    hint = f"did you mean {near[0]!r}?" if near else f"valid keys are {', '.join(valid)}"
                    raise ValueError(f"unknown key {key!r}; {hint}")
        return data

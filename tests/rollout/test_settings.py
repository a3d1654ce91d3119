"""Settings from the environment."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from rollout.settings import RolloutSettings


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAITFLEET_ROLLOUT_RUN", "walk")
    monkeypatch.setenv("GAITFLEET_ROLLOUT_TOKEN", "secret")
    settings = RolloutSettings()
    assert settings.run == "walk"
    assert settings.simulators >= 1
    assert "secret" not in repr(settings)


def test_two_tokens_are_refused() -> None:
    with pytest.raises(ValidationError, match="both set"):
        RolloutSettings(run="walk", token="a", token_file=Path("b"))


def test_every_setting_is_described() -> None:
    assert [name for name, field in RolloutSettings.model_fields.items() if not field.description] == []

"""Settings from the environment."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from gaitfleet.errors import ForbiddenError
from rollout.connection import Connection
from rollout.main import EXIT_CANNOT_WORK, main
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


def test_a_spool_that_would_always_be_full_is_refused() -> None:
    with pytest.raises(ValidationError, match="spool_max_bytes"):
        RolloutSettings(run="walk", spool_max_bytes=0)


@pytest.mark.parametrize("url", ["http://replay-api:8080:8080", "http://[::1", "http://replay api:8080"])
def test_a_url_that_cannot_be_asked_ends_it(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GAITFLEET_ROLLOUT_RUN", "walk")
    monkeypatch.setenv("GAITFLEET_ROLLOUT_REPLAY_API_URL", url)
    assert main() == EXIT_CANNOT_WORK
    said = capsys.readouterr().err
    assert said.startswith("GAITFLEET_ROLLOUT_REPLAY_API_URL: ")
    assert said.endswith(f"(got {url!r})\n")


@pytest.mark.parametrize("of", ["TOKEN", "TOKEN_FILE"])
def test_a_token_that_cannot_be_sent_ends_it_and_is_not_shown(
    of: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "token"
    path.write_bytes(b"secret\r\nanother-one\r\n")
    monkeypatch.setenv("GAITFLEET_ROLLOUT_RUN", "walk")
    monkeypatch.setenv(f"GAITFLEET_ROLLOUT_{of}", "secret another-one" if of == "TOKEN" else str(path))
    assert main() == EXIT_CANNOT_WORK
    said = capsys.readouterr().err
    assert said.startswith(f"GAITFLEET_ROLLOUT_{of}: ")
    assert "one line of printable ASCII" in said
    assert "secret" not in said


def test_a_file_that_holds_no_token_any_more_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("secret\n")
    connection = Connection(RolloutSettings(run="walk", token_file=path))
    path.write_text("secret\nanother-one\n")
    with pytest.raises(ForbiddenError, match="one line") as refused:
        _ = connection.client
    assert "secret" not in str(refused.value)


def test_white_space_around_a_token_is_left_out_and_nothing_else_is_none() -> None:
    token = RolloutSettings(run="walk", token=SecretStr(" secret\r\n")).token
    assert token is not None
    assert token.get_secret_value() == "secret"
    assert RolloutSettings(run="walk", token=SecretStr("\n")).token is None


def test_every_setting_is_described() -> None:
    assert [name for name, field in RolloutSettings.model_fields.items() if not field.description] == []

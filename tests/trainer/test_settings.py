"""Settings of the trainer, and what is said of wrong ones."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from pydantic import ValidationError

from gaitfleet.service_settings import explain
from trainer.main import ExitCode, main, run
from trainer.settings import PREFIX, TrainerSettings


def test_settings_are_checked_at_the_start(tmp_path: Any) -> None:
    (tmp_path / "token").write_text("secret\n")
    assert TrainerSettings(run="toy", token_file=tmp_path / "token").read_token() == "secret"
    assert "secret" not in repr(TrainerSettings(run="toy", token="secret"))
    with pytest.raises(ValidationError, match="set one"):
        TrainerSettings(run="toy", token="secret", token_file=tmp_path / "token")
    with pytest.raises(ValidationError) as wrong:
        TrainerSettings(run="Not_A_Run", token=5, threads=0)
    told = explain(wrong.value, PREFIX)
    assert "GAITFLEET_TRAINER_RUN: " in told
    assert "(got 'Not_A_Run')" in told
    assert "GAITFLEET_TRAINER_THREADS: " in told


@pytest.mark.parametrize("url", ["http://replay-api:8080:8080", "http://[::1", "http://:8080"])
def test_a_url_that_cannot_be_asked_ends_it_with_code_2(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GAITFLEET_TRAINER_RUN", "toy")
    monkeypatch.setenv("GAITFLEET_TRAINER_REPLAY_API_URL", url)
    assert main() == ExitCode.MISCONFIGURED
    said = capsys.readouterr().err
    assert said.startswith("GAITFLEET_TRAINER_REPLAY_API_URL: no request can be sent to this URL: ")
    assert said.endswith(f"(got {url!r})\n")


def test_a_gpu_that_is_not_there_ends_it_with_code_2(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert run(TrainerSettings(run="toy", device="cuda:2"), threading.Event()) == ExitCode.MISCONFIGURED
    assert "device is 'cuda:2', but the last GPU here is cuda:1" in caplog.text
    assert TrainerSettings(run="toy", device="cuda:1").torch_device().index == 1


def test_a_token_that_cannot_be_sent_ends_it_and_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "token"
    path.write_bytes(b"secret\r\nanother-one\r\n")
    assert run(TrainerSettings(run="toy", device="cpu", token_file=path), threading.Event()) == ExitCode.MISCONFIGURED
    monkeypatch.setenv("GAITFLEET_TRAINER_RUN", "toy")
    monkeypatch.setenv("GAITFLEET_TRAINER_TOKEN", "secret another-one")
    assert main() == ExitCode.MISCONFIGURED
    said = capsys.readouterr().err
    assert said.startswith("GAITFLEET_TRAINER_TOKEN: the token is not one line of printable ASCII")
    assert "secret" not in said
    monkeypatch.setenv("GAITFLEET_TRAINER_TOKEN", " \n")
    assert TrainerSettings().read_token() is None


def test_a_wrong_setting_does_not_show_the_token(tmp_path: Any) -> None:
    with pytest.raises(ValidationError) as wrong:
        TrainerSettings(run="toy", token="secret", token_file=tmp_path)
    assert "set one" in explain(wrong.value, PREFIX)
    assert "secret" not in explain(wrong.value, PREFIX)


def test_authorities_that_cannot_be_read_end_it_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere.pem")
    settings = TrainerSettings(run="toy", device="cpu")
    assert run(settings, threading.Event(), CollectorRegistry()) == ExitCode.MISCONFIGURED
    assert caplog.messages == [
        "stopping: SSL_CERT_FILE is '/nowhere.pem', which cannot be read as certificates: No such file or directory"
    ]

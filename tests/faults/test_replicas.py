"""Several replicas of the API on one database."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable

import httpx
import pytest
from pydantic import SecretStr

from replay_api.settings import Settings
from tests.conftest import serve
from tests.relay import Relay
from tests.replay_api.fleet import Fleet


def through(fleet: Fleet, url: str) -> Fleet:
    """The same run through another replica."""
    other = copy.copy(fleet)
    other.url, other.http = url, httpx.Client(base_url=url, timeout=30)
    return other


def until(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def test_what_was_stored_while_a_replica_could_not_look_is_found_afterwards(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long that was: here it is longer than both searches look back."""
    monkeypatch.setattr("replay_api.services.registry.FOLLOW_OVERLAP_SECONDS", 0.1)
    monkeypatch.setattr("replay_api.services.registry.LATE_OVERLAP_SECONDS", 0.2)
    monkeypatch.setattr("replay_api.services.registry.LATE_INTERVAL_SECONDS", 0.1)
    port, away = int(settings.mongodb_uri.get_secret_value().rpartition(":")[2]), False
    with Relay(lambda: None if away else port) as relay:
        uri = SecretStr(f"mongodb://127.0.0.1:{relay.port}/?directConnection=true")
        behind = settings.model_copy(update={"mongodb_uri": uri})
        with serve(settings) as first, serve(behind) as second, Fleet(first) as fleet:
            other = through(fleet, second)
            fleet.post(fleet.play(seed=1))
            until(lambda: other.status()["limits"]["inserted"] == 30, "the other replica does not follow")
            away = True
            relay.cut()
            for seed in range(2, 5):
                assert fleet.post(fleet.play(seed=seed)).status_code == 201
            time.sleep(2.0)
            away = False
            until(lambda: other.status()["limits"]["inserted"] == 120, "episodes were missed")
            assert other.status()["transitions_held"] == 120
            other.http.close()

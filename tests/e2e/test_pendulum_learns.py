"""The whole system learns: the one claim that no part can show alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.system.conftest import RunningFleet, start  # noqa: F401 (a fixture)

BAR = -250.0
"""Mean return of five evaluation episodes of Pendulum-v1: random is -1200, a solved one -150."""


@pytest.mark.e2e
def test_pendulum_is_learned_through_processes_http_and_database(start: Callable[..., RunningFleet]) -> None:  # noqa: F811
    fleet = start("pendulum", "--experiment", "pendulum", "--workers", "1", "--evaluators", "1")

    def solved(status: object) -> bool:
        evaluation = fleet.client.status().returns.get("evaluate")
        return evaluation is not None and evaluation.episodes >= 5 and evaluation.mean_simulator_return >= BAR

    status = fleet.wait_for(solved, 900)
    assert status.samples_per_insert is not None
    assert status.samples_per_insert == pytest.approx(status.limits.samples_per_insert, rel=0.1)
    assert fleet.stop() == 0

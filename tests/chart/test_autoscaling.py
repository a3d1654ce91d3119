"""The loop from the recording rules through the autoscaler to the workers, in simulated time."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.chart.autoscaler import TICK, Fleet, simulate
from tests.chart.conftest import Render
from tests.chart.prometheus_rules import run_tests, series
from tests.chart.test_chart import values

pytestmark = pytest.mark.chart

MINUTE = 60 // TICK


@pytest.fixture
def scaled_object(render: Render) -> dict[str, Any]:
    """The spec of the rendered ScaledObject: 1 to 37 workers."""
    (item,) = render(*values("monitoring")).all("ScaledObject")
    return dict(item["spec"])


def exported(fleet: Fleet, key: str) -> str:
    """Everything that the fleet said of one quantity, in promtool's notation."""
    values = [sample[key] for sample in fleet.history]
    return " ".join("_" if value is None else repr(value) for value in values)


def scraped(fleet: Fleet) -> list[dict[str, str]]:
    """A series for every worker that there was."""
    sizes = [sample["workers"] or 0 for sample in fleet.history]
    pods = {f"rollout-{n}": ["1" if n < size else "stale" for size in sizes] for n in range(int(max(sizes)))}
    return [series("rl_rollout_simulators", " ".join(values), role="train", pod=pod) for pod, values in pods.items()]


def turns(sizes: list[int]) -> int:
    """How often the number of workers changes its direction."""
    steps = [b - a for a, b in pairwise(sizes) if a != b]
    return sum(a * b < 0 for a, b in pairwise(steps))


@pytest.mark.parametrize("needed", [2, 8, 30])
def test_it_settles_at_what_the_trainer_can_use(scaled_object: dict[str, Any], needed: int) -> None:
    fleet = Fleet(demand=lambda _: needed * 200.0)
    sizes = simulate(fleet, scaled_object, 180)
    assert set(sizes[-60 * MINUTE :]) == {sizes[-1]}, "it does not rest"
    assert needed * 0.9 <= sizes[-1] <= needed * 1.15 + 1  # the autoscaler tolerates a tenth
    assert turns(sizes) <= 1


def test_it_follows_a_trainer_that_becomes_slower(scaled_object: dict[str, Any]) -> None:
    fleet = Fleet(demand=lambda now: 3200.0 if now < 90 * 60 else 800.0)
    sizes = simulate(fleet, scaled_object, 240)
    before, after = sizes[89 * MINUTE], sizes[-1]
    assert before in {15, 16, 17, 18, 19}
    assert after in {4, 5}
    down = sizes[90 * MINUTE :]
    assert all(b <= a for a, b in pairwise(down)), "it goes down without turning"


def test_noise_does_not_make_it_swing(scaled_object: dict[str, Any]) -> None:
    fleet = Fleet(demand=lambda _: 1600.0, jitter=0.5)
    rest = simulate(fleet, scaled_object, 240)[90 * MINUTE :]
    assert set(rest) <= {8, 9, 10}
    assert turns(rest) <= 2


def test_it_never_asks_for_more_than_the_budget_pays(scaled_object: dict[str, Any]) -> None:
    fleet = Fleet(demand=lambda _: 1e6)
    sizes = simulate(fleet, scaled_object, 120)
    assert max(sizes) == sizes[-1] == scaled_object["maxReplicaCount"] == 37


def test_without_the_trainer_it_goes_to_the_floor_and_comes_back_with_it(scaled_object: dict[str, Any]) -> None:
    away = range(60 * 60, 180 * 60)
    fleet = Fleet(demand=lambda now: 0.0 if now in away else 1600.0)
    sizes = simulate(fleet, scaled_object, 300)
    assert sizes[59 * MINUTE] >= 8
    assert sizes[179 * MINUTE] == scaled_object["minReplicaCount"] == 1
    assert sizes[-1] >= 8


def test_prometheus_computes_the_same_number(scaled_object: dict[str, Any], tmp_path: Path) -> None:
    """What the simulated fleet exported, given to Prometheus, leads to the numbers that the simulation used."""
    fleet = Fleet(demand=lambda now: 1600.0 if now < 40 * 60 else 0.0, jitter=0.2)
    wanted: dict[int, float] = {}
    for now in range(0, 60 * 60, TICK):
        fleet.tick(now)
        wanted[now] = fleet.desired()
        fleet.scale(min(12, max(1, int(wanted[now]))), now)
    given = [
        series("rl_replay_spi_target_ratio", f"100x{len(fleet.history)}"),
        *scraped(fleet),
        *(
            series(name, exported(fleet, key), **labels)
            for name, key, labels in (
                ("rl_replay_inserted_items_total", "inserted", {}),
                ("rl_replay_sampled_items_total", "sampled", {}),
                ("rl_rollout_phase_seconds_total", "simulated", {"role": "train", "phase": "simulate"}),
                ("rl_trainer_phase_seconds_total", "waited", {"phase": "wait_batch"}),
                ("rl_trainer_lease_held", "held", {}),
            )
        ),
    ]
    labels = '{namespace="gaitfleet", run_id="walk"}'
    queries = [
        {
            "expr": "rl:rollout_desired_replicas",
            "eval_time": f"{minute}m",
            "exp_samples": [{"labels": f"rl:rollout_desired_replicas{labels}", "value": wanted[minute * 60]}],
        }
        for minute in (2, 7, 10, 20, 39, 50)
    ]
    assert len({wanted[minute * 60] for minute in (2, 7, 20, 50)}) >= 3
    run_tests(tmp_path, [{"interval": f"{TICK}s", "input_series": given, "promql_expr_test": queries}])

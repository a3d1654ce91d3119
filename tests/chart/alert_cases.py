"""For each alert: series at which it fires, and series at which it does not."""

from __future__ import annotations

from tests.chart.prometheus_rules import namespaced, series

Case = tuple[list[dict[str, str]], list[dict[str, str]]]

HELD = series("rl_trainer_lease_held", "1x90")
TARGET = series("rl_replay_spi_target_ratio", "256x90")


def _times(name: str, fires: str, silent: str, **labels: str) -> tuple[dict[str, str], dict[str, str]]:
    return series(name, fires, **labels), series(name, silent, **labels)


def _requests(failed: str, route: str = "/v1/runs/{run}/batches", succeeded: str = "0+60x90") -> list[dict[str, str]]:
    return [
        namespaced("rl_api_requests_total", succeeded, route=route, code="200"),
        namespaced("rl_api_requests_total", failed, route=route, code="503"),
    ]


def _ready(failed: str, succeeded: str) -> list[dict[str, str]]:
    return _requests(failed, "/health/ready", succeeded)


def _posts(refused: str, limited: str) -> list[dict[str, str]]:
    posts = {"route": "/v1/runs/{run}/episodes", "method": "POST"}
    return [
        namespaced("rl_api_requests_total", "0+60x90", code="201", **posts),
        namespaced("rl_api_requests_total", refused, code="429", **posts),
        series("rl_replay_limited_requests_total", limited, reason="insert"),
    ]


def _spi(sampled: str) -> list[dict[str, str]]:
    return [
        TARGET,
        series("rl_replay_inserted_items_total", "0+10x90"),
        series("rl_replay_sampled_items_total", sampled),
    ]


def _mongo(slow: str, fast: str) -> list[dict[str, str]]:
    name = "rl_mongo_command_duration_seconds_bucket"
    return [
        namespaced(name, fast, command="insert", le="0.1"),
        namespaced(name, slow, command="insert", le="5"),
        namespaced(name, slow, command="insert", le="+Inf"),
    ]


def _lag(within: str) -> list[dict[str, str]]:
    name = "rl_replay_insert_policy_lag_steps_bucket"
    return [series(name, within, le="1000"), *(series(name, "0+60x90", le=bound) for bound in ("100000", "+Inf"))]


def _resets(failed: str) -> list[dict[str, str]]:
    return [
        series("rl_rollout_simulators", "2x90", role="train"),
        series("rl_rollout_sim_resets_total", failed, role="train", reason="process_died"),
        series("rl_rollout_sim_resets_total", "0+5x90", role="train", reason="episodes"),
    ]


def _rejected(*replicas: str) -> list[dict[str, str]]:
    name = "rl_replay_rejected_episodes_total"
    return [series(name, count, reason="schema", pod=f"replay-api-{n}") for n, count in enumerate(replicas)]


def _limited(limited: str) -> list[dict[str, str]]:
    return [
        series("rl_replay_limited_requests_total", limited, reason="insert"),
        series("rl_replay_inserted_episodes_total", "0+6x90", role="train"),
    ]


def _evicted(*unsampled: str) -> list[dict[str, str]]:
    evicted, never = "rl_replay_evicted_items_total", "rl_replay_evicted_unsampled_items_total"
    pods = {f"replay-api-{n}": count for n, count in enumerate(unsampled)}
    return [
        *(series(evicted, "0+100x90", reason="capacity", pod=pod) for pod in pods),
        *(series(never, count, pod=pod) for pod, count in pods.items()),
    ]


def _store(errors: str) -> list[dict[str, str]]:
    return [
        namespaced("rl_s3_request_duration_seconds_count", "0+20x90", op="delete"),
        namespaced("rl_s3_request_duration_seconds_count", "0+120x90", op="check"),
        namespaced("rl_s3_errors_total", errors, op="delete", code="AccessDenied"),
    ]


def _cost(workers: int) -> list[dict[str, str]]:
    pods = [namespaced("rl_build_info", "1x90", component="rollout", version="1", pod=f"{n}") for n in range(workers)]
    price = namespaced("rl_cost_price_dollars_per_hour", "0.5x90", component="rollout")
    return [*pods, price, namespaced("rl_cost_budget_dollars_per_hour", "2x90")]


def _workers(count: str) -> list[dict[str, str]]:
    return [
        HELD,
        series("rl_replay_workers", count, role="train"),
        series("rl_replay_workers", "1x90", role="evaluate"),
    ]


_EPOCHS = _times("rl_checkpoint_lease_epoch", "1x20 2x9 3x9 4x9 5x60", "1x20 2x90")
_STARVED = _times("rl_trainer_phase_seconds_total", "0+50x90", "0+6x90", phase="wait_batch")
_NONFINITE = _times("rl_trainer_nonfinite_total", "0x50 1x30", "0x90")
_API = namespaced("rl_build_info", "1x90", component="replay-api", version="1")
_SIMULATORS = series("rl_rollout_simulators", "1x90", role="train")
_READY = series("rl_replay_ready", "1x90")
_STALE = _times("rl_checkpoint_published_timestamp_seconds", "600x90", "600+60x90")

CASES: dict[str, Case] = {
    "GaitfleetReplayApiDown": ([HELD], [_API]),
    "GaitfleetReplayApiNotReady": (_ready("0x40 0+12x50", "0+12x40 480x50"), _ready("0+12x90", "0+12x90")),
    "GaitfleetReplayApiErrorBudget": (
        [*_requests("0+30x90"), *_ready("0x90", "0+900x90")],
        [*_requests("0+1x90"), *_ready("0+900x90", "0x90")],
    ),
    "GaitfleetReplayApiOverloaded": (_posts("0+30x90", "0+6x90"), _posts("0+30x90", "0+27x90")),
    "GaitfleetMongoSlow": (_mongo("0+60x90", "0+10x90"), _mongo("0+60x90", "0+60x90")),
    "GaitfleetStoreErrors": (_store("0+4x90"), _store("0x90")),
    "GaitfleetEpisodesRejected": (_rejected("0x50 1x40", "20x90"), _rejected("30x50 stale", "20x90", "_x50 0x40")),
    "GaitfleetInsertsBlocked": (_limited("0+20x90"), _limited("0+1x90")),
    "GaitfleetSpiOutOfBand": (_spi("0+640x90"), _spi("0+2500x90")),
    "GaitfleetTransitionsWasted": (_evicted("0+50x90", "0+100x90"), _evicted("0+1x90", "0+100x90")),
    "GaitfleetNoRollouts": (_workers("0x90"), _workers("2x90")),
    "GaitfleetRunUnknown": ([_API, _SIMULATORS], [_API, _SIMULATORS, _READY]),
    "GaitfleetRolloutCrashLoop": (_resets("0+1x90"), _resets("0x90")),
    "GaitfleetPolicyLagHigh": (_lag("0+30x90"), _lag("0+60x90")),
    "GaitfleetTrainerMissing": ([_READY], [_READY, HELD]),
    "GaitfleetTrainerRestarting": ([_EPOCHS[0]], [_EPOCHS[1]]),
    "GaitfleetDuplicateTrainer": ([HELD, series("rl_trainer_lease_held", "1x90", pod="other")], [HELD]),
    "GaitfleetNonFinite": ([_NONFINITE[0]], [_NONFINITE[1]]),
    "GaitfleetTrainerStarved": ([_STARVED[0]], [_STARVED[1]]),
    "GaitfleetCheckpointStale": ([HELD, _STALE[0]], [HELD, _STALE[1]]),
    "GaitfleetBudgetExceeded": (_cost(5), _cost(4)),
}
"""An hour of a value a minute; looked at after 55 minutes."""

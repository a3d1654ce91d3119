"""The dashboards that answer: is it learning, is it balanced, what does it cost?"""

from __future__ import annotations

from deploy.dashboards.panels import (
    GREEN,
    HERE,
    RED,
    RUN,
    YELLOW,
    Dashboard,
    Row,
    annotation,
    lines,
    quantiles,
    rate,
    stat,
)

TRAINING = f'{RUN}, role!="evaluate"'
BUILDS = f"rl_build_info{{{HERE}}}"
PODS = f"count by (namespace, component) ({BUILDS})"
PRICES = f"max by (namespace, component) (rl_cost_price_dollars_per_hour{{{HERE}}})"
COST = f"{PODS} * on (namespace, component) {PRICES}"
"""Dollars an hour by namespace and component."""

STEPS_15M = f"sum(rate(rl_replay_inserted_steps_total{{{TRAINING}}}[15m]))"
COST_PER_MILLION = f"1e6 * sum({COST}) / (3600 * ({STEPS_15M} > 0))"
RATIO = (
    f"{rate('rl_replay_sampled_items_total', RUN, 'run_id')} / "
    f"({rate('rl_replay_inserted_items_total', RUN, 'run_id')} > 0)"
)
TARGET = f"max by (run_id) (rl_replay_spi_target_ratio{{{RUN}}})"
CHECKPOINT_AGE = f"time() - max by (run_id) (rl_checkpoint_published_timestamp_seconds{{{RUN}}})"
WORKER_TIME = f'{TRAINING}, phase!="post"'
BY_PROCESS = f"* on (instance, job) group_left (component) {BUILDS}"

MARKS = (
    annotation("Trainer started", f"changes(rl_checkpoint_lease_epoch{{{RUN}}}[1m]) > 0", "orange"),
    annotation("New stage of the curriculum", f"changes(rl_curriculum_stage{{{RUN}}}[1m]) > 0", "green"),
    annotation(
        "New version", f"count by (version) ({BUILDS}) unless count by (version) ({BUILDS} offset 2m)", "purple"
    ),
)

_ANSWERS = Row(
    "Is it learning, is it balanced, what does it cost?",
    (
        stat(
            "Evaluated return",
            "Mean official score of the latest policy whose evaluation finished, without exploration.",
            f"max(rl_eval_return_mean{{{RUN}}})",
            unit="none",
            decimals=1,
        ),
        stat(
            "Steps per second",
            "Simulator steps of training episodes stored, by all workers together.",
            rate("rl_replay_inserted_steps_total", TRAINING),
            unit="none",
            decimals=1,
        ),
        stat(
            "Updates per second",
            "Updates of the trainer. Zero while it waits for experience.",
            rate("rl_trainer_updates_total", RUN),
            unit="none",
            decimals=1,
        ),
        stat(
            "Samples per insert, of target",
            "Measured samples per insert by what was asked for. Below 1 the trainer lags, above it catches up.",
            f"avg({RATIO} / ({TARGET}))",
            unit="percentunit",
            thresholds=((YELLOW, None), (GREEN, 0.5), (YELLOW, 2.0)),
        ),
        stat(
            "Policy lag, p95",
            "Updates between the policy that acted and the newest one, when its episode arrives.",
            quantiles("rl_replay_insert_policy_lag_steps", RUN, 0.95)[0][0],
            unit="none",
            thresholds=((GREEN, None), (YELLOW, 10_000.0), (RED, 100_000.0)),
        ),
        stat(
            "Checkpoint age",
            "Since the newest policy was published.",
            f"max({CHECKPOINT_AGE})",
            unit="s",
            thresholds=((GREEN, None), (YELLOW, 600.0), (RED, 1800.0)),
        ),
        stat(
            "Cost per hour",
            "Price of every process that is scraped, from the prices in the settings.",
            f"sum({COST})",
            unit="currencyUSD",
            decimals=2,
        ),
        stat(
            "Cost per million steps",
            "Cost per hour by the training steps of the last 15 minutes.",
            COST_PER_MILLION,
            unit="currencyUSD",
            decimals=2,
        ),
    ),
)

_LEARNING = Row(
    "Learning",
    (
        lines(
            "Return",
            "Official score: of evaluations, of the best checkpoint, and of the latest episodes with exploration.",
            (f"max by (run_id) (rl_eval_return_mean{{{RUN}}})", "evaluated {{run_id}}"),
            (f"max by (run_id) (rl_eval_return_best{{{RUN}}})", "best {{run_id}}"),
            (f'avg by (run_id, role) (rl_replay_return_mean{{{RUN}, role!="evaluate"}})', "{{role}} {{run_id}}"),
            unit="none",
            width=12,
            height=8,
        ),
        lines(
            "Steps per second",
            "Simulator steps stored, by the role of the episode.",
            (rate("rl_replay_inserted_steps_total", RUN, "role"), "{{role}}"),
            unit="none",
            width=6,
            height=8,
            minimum=0.0,
        ),
        lines(
            "Samples per insert",
            "Transitions sampled by transitions stored, and what was asked for.",
            (RATIO, "measured {{run_id}}"),
            (TARGET, "target {{run_id}}"),
            unit="none",
            width=6,
            height=8,
            minimum=0.0,
        ),
    ),
)

_BALANCE = Row(
    "Balance",
    (
        lines(
            "Where simulators spend their time",
            "Simulator processes busy with each phase. Waiting: the replay API or the trainer holds them back.",
            (rate("rl_rollout_phase_seconds_total", WORKER_TIME, "phase"), "{{phase}}"),
            unit="none",
            stacked=True,
            minimum=0.0,
        ),
        lines(
            "Where the trainer spends its time",
            "Share of the learning thread. Waiting for batches means that experience or the network is too slow.",
            (rate("rl_trainer_phase_seconds_total", RUN, "phase"), "{{phase}}"),
            unit="percentunit",
            stacked=True,
            minimum=0.0,
        ),
        lines(
            "Answers of the replay API",
            "Requests per second by status code; 429 asks a client to wait.",
            (rate("rl_api_requests_total", HERE, "code"), "{{code}}"),
            unit="reqps",
            minimum=0.0,
        ),
    ),
)

_PROCESSES = Row(
    "Processes",
    (
        lines(
            "Processes",
            "Processes that are scraped, by component.",
            (f"count by (component) ({BUILDS})", "{{component}}"),
            unit="none",
            minimum=0.0,
            decimals=0,
        ),
        lines(
            "CPU",
            "Cores used by the service itself; simulators are processes of their own and not in it.",
            (
                f"sum by (component) (rate(process_cpu_seconds_total{{{HERE}}}[$__rate_interval]) {BY_PROCESS})",
                "{{component}}",
            ),
            unit="none",
            width=6,
            minimum=0.0,
        ),
        lines(
            "Memory",
            "Resident memory of the service itself; simulators are processes of their own and not in it.",
            (f"sum by (component) (process_resident_memory_bytes{{{HERE}}} {BY_PROCESS})", "{{component}}"),
            unit="bytes",
            width=6,
            minimum=0.0,
        ),
        stat(
            "Firing alerts",
            "Alerts of gaitfleet that fire now. The runbook of each is in docs/operations.md.",
            f'count(ALERTS{{{HERE}, alertname=~"Gaitfleet.*", alertstate="firing"}}) or vector(0)',
            unit="none",
            width=4,
            height=7,
            thresholds=((GREEN, None), (RED, 1.0)),
        ),
    ),
)

OVERVIEW = Dashboard(
    "overview",
    "Overview",
    "One look: learning, balance, cost.",
    (_ANSWERS, _LEARNING, _BALANCE, _PROCESSES),
    annotations=MARKS,
)

_SHARE_WAITING = (
    f'sum(rate(rl_rollout_phase_seconds_total{{{TRAINING}, phase="wait"}}[$__rate_interval])) / '
    f"(sum(rl_rollout_simulators{{{TRAINING}}}) > 0)"
)
_SHARE_STARVED = f'sum(rate(rl_trainer_phase_seconds_total{{{RUN}, phase="wait_batch"}}[$__rate_interval]))'


def _cost_of(component: str) -> str:
    return COST.replace(HERE, f'{HERE}, component="{component}"')


_MILLION_STEPS = f"({STEPS_15M} > 0) * 1e-6"

COST_DASHBOARD = Dashboard(
    "cost",
    "Cost",
    "What the run costs, what for, and what of it is wasted. Prices come from the settings of the replay API.",
    (
        Row(
            "Now",
            (
                stat(
                    "Cost per hour",
                    "Price of every process that is scraped.",
                    f"sum({COST})",
                    unit="currencyUSD",
                    width=6,
                    decimals=2,
                ),
                stat(
                    "Budget used",
                    "Cost per hour by the budget in the settings.",
                    f"sum({COST}) / max(rl_cost_budget_dollars_per_hour{{{HERE}}})",
                    unit="percentunit",
                    width=6,
                    thresholds=((GREEN, None), (YELLOW, 0.8), (RED, 1.0)),
                ),
                stat(
                    "Cost per million steps",
                    "Cost per hour by the training steps of the last 15 minutes.",
                    COST_PER_MILLION,
                    unit="currencyUSD",
                    width=6,
                    decimals=2,
                ),
                stat(
                    "Cost per million updates",
                    "Cost per hour by the updates of the last 15 minutes.",
                    f"1e6 * sum({COST}) / (3600 * (sum(rate(rl_trainer_updates_total{{{RUN}}}[15m])) > 0))",
                    unit="currencyUSD",
                    width=6,
                    decimals=2,
                ),
            ),
        ),
        Row(
            "What for",
            (
                lines(
                    "Cost per hour by component",
                    "Processes times their price, and the budget.",
                    (f"sum by (component) ({COST})", "{{component}}"),
                    (f"max(rl_cost_budget_dollars_per_hour{{{HERE}}})", "budget"),
                    unit="currencyUSD",
                    width=12,
                    minimum=0.0,
                ),
                lines(
                    "Prices",
                    "Dollars an hour of one pod, as the settings say.",
                    (f"max by (component) (rl_cost_price_dollars_per_hour{{{HERE}}})", "{{component}}"),
                    unit="currencyUSD",
                    width=12,
                    minimum=0.0,
                ),
            ),
        ),
        Row(
            "What of it is wasted",
            (
                lines(
                    "Cost of waiting",
                    "Dollars an hour for simulators that wait, and for a trainer that waits for batches.",
                    (f"{_SHARE_WAITING} * sum({_cost_of('rollout')})", "rollout"),
                    (f"{_SHARE_STARVED} * sum({_cost_of('trainer')})", "trainer"),
                    unit="currencyUSD",
                    minimum=0.0,
                ),
                lines(
                    "Steps lost",
                    "Simulated, but dropped with an episode that was cut short.",
                    (rate("rl_rollout_steps_lost_total", RUN, "reason"), "{{reason}}"),
                    unit="none",
                    minimum=0.0,
                ),
                lines(
                    "Store requests per million steps",
                    "Requests to the checkpoint store, which some stores charge for.",
                    (
                        f"sum(rate(rl_s3_request_duration_seconds_count{{{HERE}}}[15m])) / ({_MILLION_STEPS})",
                        "requests",
                    ),
                    unit="none",
                    minimum=0.0,
                ),
            ),
        ),
    ),
)

"""The dashboards of the replay API and of its storage."""

from __future__ import annotations

from deploy.dashboards.panels import (
    GREEN,
    HERE,
    RED,
    RUN,
    YELLOW,
    Dashboard,
    Row,
    heatmap,
    lines,
    quantiles,
    rate,
    stat,
)

REPLAY_API = Dashboard(
    "replay-api",
    "Replay API",
    "Requests, the replay's memory, and the limiter between workers and trainer.",
    (
        Row(
            "Requests",
            (
                lines(
                    "Requests",
                    "Requests per second by route.",
                    (rate("rl_api_requests_total", HERE, "method, route"), "{{method}} {{route}}"),
                    unit="reqps",
                    minimum=0.0,
                ),
                lines(
                    "Failures",
                    "Share of requests answered with a server error, and with 429.",
                    (
                        f'sum(rate(rl_api_requests_total{{{HERE}, code=~"5.."}}[$__rate_interval])) / '
                        f"{rate('rl_api_requests_total', HERE)} or vector(0)",
                        "server error",
                    ),
                    (
                        f'sum(rate(rl_api_requests_total{{{HERE}, code="429"}}[$__rate_interval])) / '
                        f"{rate('rl_api_requests_total', HERE)} or vector(0)",
                        "told to wait",
                    ),
                    unit="percentunit",
                    minimum=0.0,
                ),
                lines(
                    "Duration, p95",
                    "From the first byte in to the last byte out. Long polls for a policy and samples wait on purpose.",
                    *quantiles("rl_api_request_duration_seconds", HERE, 0.95, by="route"),
                    unit="s",
                    minimum=0.0,
                ),
                lines(
                    "Requests being worked on",
                    "In flight, long polls included.",
                    (f"sum(rl_api_inflight_requests{{{HERE}}})", "in flight"),
                    unit="none",
                    minimum=0.0,
                ),
                lines(
                    "Event loop lag",
                    "How late a timer ran: everybody waits for so long. Nothing takes the loop for 20 ms. Lag while "
                    "the process is not busy is waiting for a core: other pods, or a CPU limit.",
                    *quantiles("rl_api_event_loop_lag_seconds", HERE, 0.5, 0.99, 0.999),
                    *((q, f"{name} busy") for q, name in quantiles("rl_api_event_loop_busy_seconds", HERE, 0.999)),
                    unit="s",
                    minimum=0.0,
                    thresholds=((GREEN, None), (YELLOW, 0.02), (RED, 0.25)),
                ),
                lines(
                    "Bytes received",
                    "Episode bytes per second, as sent.",
                    (rate("rl_replay_ingested_bytes_total", RUN, "run_id"), "{{run_id}}"),
                    unit="Bps",
                    minimum=0.0,
                ),
            ),
        ),
        Row(
            "Limiter",
            (
                lines(
                    "Inserted and sampled",
                    "Transitions per second.",
                    (rate("rl_replay_inserted_items_total", RUN, "run_id"), "inserted {{run_id}}"),
                    (rate("rl_replay_sampled_items_total", RUN, "run_id"), "sampled {{run_id}}"),
                    unit="cps",
                    minimum=0.0,
                ),
                lines(
                    "Samples owed",
                    "Beyond the offset: far above zero the trainer is behind, below zero it waits.",
                    (f"max by (run_id) (rl_replay_spi_error_items{{{RUN}}})", "{{run_id}}"),
                    unit="none",
                ),
                lines(
                    "Held back",
                    "Sample requests that wait, on average and now, and requests per second told to come again.",
                    (rate("rl_replay_limiter_blocked_seconds_total", RUN, "side"), "waiting, {{side}}"),
                    (f"sum(rl_replay_limiter_waiting_requests{{{RUN}}})", "waiting now"),
                    (rate("rl_replay_limited_requests_total", RUN, "reason"), "429, {{reason}}"),
                    unit="none",
                    minimum=0.0,
                ),
            ),
        ),
        Row(
            "Memory",
            (
                lines(
                    "Transitions",
                    "In memory, and how many fit.",
                    (f"max by (run_id) (rl_replay_items{{{RUN}}})", "held {{run_id}}"),
                    (f"max by (run_id) (rl_replay_capacity_items{{{RUN}}})", "capacity {{run_id}}"),
                    unit="none",
                    minimum=0.0,
                ),
                lines(
                    "Bytes of transitions",
                    "Memory of the transitions.",
                    (f"max by (run_id) (rl_replay_bytes{{{RUN}}})", "{{run_id}}"),
                    unit="bytes",
                    minimum=0.0,
                ),
                lines(
                    "Oldest transition",
                    "Age of the oldest transition in memory.",
                    (f"max by (run_id) (rl_replay_oldest_item_age_seconds{{{RUN}}})", "{{run_id}}"),
                    unit="s",
                    minimum=0.0,
                ),
                lines(
                    "Evicted",
                    "Transitions per second that left any replica's memory, were never sampled, or left the database.",
                    (rate("rl_replay_evicted_items_total", RUN, "reason"), "evicted, {{reason}}"),
                    (rate("rl_replay_evicted_unsampled_items_total", RUN), "never sampled"),
                    (rate("rl_replay_retired_items_total", RUN), "deleted"),
                    unit="cps",
                    minimum=0.0,
                ),
                lines(
                    "Times sampled",
                    "How often a transition was sampled before it left the memory.",
                    *quantiles("rl_replay_item_times_sampled", RUN, 0.05, 0.5, 0.95),
                    unit="none",
                    minimum=0.0,
                ),
                lines(
                    "What batches are made of",
                    "Share of every batch by where it comes from, and the weight of the present stage's reward.",
                    (f"max by (run_id, source) (rl_replay_batch_share_ratio{{{RUN}}})", "{{source}} {{run_id}}"),
                    (f"max by (run_id) (rl_replay_reward_weight_ratio{{{RUN}}})", "reward {{run_id}}"),
                    unit="percentunit",
                    minimum=0.0,
                ),
                lines(
                    "Loaded",
                    "1 when stored episodes are in memory, and how long loading took.",
                    (f"min by (run_id) (rl_replay_ready{{{RUN}}})", "ready {{run_id}}"),
                    (f"max by (run_id) (rl_replay_index_rebuild_seconds{{{RUN}}})", "seconds {{run_id}}"),
                    unit="none",
                    minimum=0.0,
                ),
            ),
        ),
        Row(
            "Episodes",
            (
                lines(
                    "Episodes stored",
                    "Episodes per second by role.",
                    (rate("rl_replay_inserted_episodes_total", RUN, "role"), "{{role}}"),
                    unit="cps",
                    minimum=0.0,
                ),
                heatmap(
                    "Policy lag at insertion",
                    "Updates between the policy that acted and the newest one.",
                    "rl_replay_insert_policy_lag_steps",
                    RUN,
                    unit="none",
                ),
                lines(
                    "Refused and repeated",
                    "Episodes per second that broke a rule, failed a check, were posted again, or cannot be read.",
                    (rate("rl_replay_rejected_episodes_total", RUN, "reason"), "refused, {{reason}}"),
                    (rate("rl_replay_duplicate_episodes_total", RUN), "posted again"),
                    (rate("rl_replay_findings_total", RUN, "finding"), "found, {{finding}}"),
                    (rate("rl_replay_corrupt_episodes_total", RUN), "cannot be read"),
                    unit="cps",
                    minimum=0.0,
                ),
            ),
        ),
    ),
)

STORAGE = Dashboard(
    "storage",
    "Storage",
    "MongoDB, the checkpoint store, and the checkpoints in it.",
    (
        Row(
            "MongoDB",
            (
                lines(
                    "Commands",
                    "Commands per second.",
                    (rate("rl_mongo_command_duration_seconds_count", HERE, "command"), "{{command}}"),
                    unit="ops",
                    width=6,
                    minimum=0.0,
                ),
                lines(
                    "Duration, p95",
                    "Time of a command, as the replay API sees it.",
                    *quantiles("rl_mongo_command_duration_seconds", HERE, 0.95, by="command"),
                    unit="s",
                    width=6,
                    minimum=0.0,
                ),
                lines(
                    "Commands that failed",
                    "Per second.",
                    (rate("rl_mongo_errors_total", HERE, "command"), "{{command}}"),
                    unit="ops",
                    width=6,
                    minimum=0.0,
                ),
                lines(
                    "Connections in use",
                    "Of 64 that each replica may open.",
                    (f"sum(rl_mongo_pool_checked_out{{{HERE}}})", "in use"),
                    unit="none",
                    width=6,
                    minimum=0.0,
                ),
            ),
        ),
        Row(
            "Checkpoint store",
            (
                lines(
                    "Requests",
                    "Requests per second.",
                    (rate("rl_s3_request_duration_seconds_count", HERE, "op"), "{{op}}"),
                    unit="ops",
                    width=6,
                    minimum=0.0,
                ),
                lines(
                    "Duration, p95",
                    "Time of a request.",
                    *quantiles("rl_s3_request_duration_seconds", HERE, 0.95, by="op"),
                    unit="s",
                    width=6,
                    minimum=0.0,
                ),
                lines(
                    "Requests that failed",
                    "Per second, by what the store said.",
                    (rate("rl_s3_errors_total", HERE, "op, code"), "{{op}} {{code}}"),
                    unit="ops",
                    width=6,
                    minimum=0.0,
                ),
                lines(
                    "Bytes",
                    "Bytes per second, seen from the replay API.",
                    (rate("rl_s3_bytes_total", HERE, "direction"), "{{direction}}"),
                    unit="Bps",
                    width=6,
                    minimum=0.0,
                ),
            ),
        ),
        Row(
            "Checkpoints",
            (
                stat(
                    "Newest checkpoint",
                    "Updates done when it was published.",
                    f"max(rl_checkpoint_step{{{RUN}}})",
                    unit="none",
                    width=4,
                    height=7,
                ),
                stat(
                    "Size",
                    "Of the newest checkpoint.",
                    f"max(rl_checkpoint_bytes{{{RUN}}})",
                    unit="bytes",
                    width=4,
                    height=7,
                ),
                lines(
                    "Publications",
                    "Per second by result; a fenced one came from a trainer that had lost its lease.",
                    (rate("rl_checkpoint_publish_total", RUN, "result"), "{{result}}"),
                    unit="cps",
                    minimum=0.0,
                ),
                lines(
                    "Duration of publications",
                    "From the request until the head has moved.",
                    *quantiles("rl_checkpoint_publish_duration_seconds", RUN, 0.5, 0.99),
                    unit="s",
                    minimum=0.0,
                ),
                lines(
                    "Requests for the policy",
                    "Per second: 200 brought a new one, 304 the same, 404 none yet.",
                    (rate("rl_checkpoint_polls_total", RUN, "code"), "{{code}}"),
                    unit="reqps",
                    minimum=0.0,
                ),
                lines(
                    "Objects deleted",
                    "Per second, by why: thinned by rule, or without a record.",
                    (rate("rl_gc_deleted_objects_total", HERE, "reason"), "{{reason}}"),
                    unit="cps",
                    minimum=0.0,
                ),
                lines(
                    "Objects without a record",
                    "Left by a crash between upload and record; deleted after a while.",
                    (f"max by (run_id) (rl_gc_orphan_objects{{{RUN}}})", "{{run_id}}"),
                    unit="none",
                    minimum=0.0,
                ),
            ),
        ),
    ),
)

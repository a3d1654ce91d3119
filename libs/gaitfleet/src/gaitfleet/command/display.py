"""How a run's status looks: a table on a terminal, JSON lines elsewhere."""

from __future__ import annotations

from rich.table import Table

from gaitfleet.wire import ReturnStatistics, RunStatus, SourceStatus, StageStatus


def status_table(status: RunStatus) -> Table:
    """The status of a run as two columns that fit 80 characters."""
    table = Table(title=f"run {status.run}", title_justify="left", show_header=False, pad_edge=False, box=None)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _rows(status):
        table.add_row(name, value)
    return table


def _rows(status: RunStatus) -> list[tuple[str, str]]:
    episodes = ", ".join(f"{count:,} {role}" for role, count in sorted(status.episodes.items())) or "none yet"
    limits = status.limits
    ratio = "not yet" if status.samples_per_insert is None else f"{status.samples_per_insert:,.1f}"
    waiting = f", sampler waits {limits.longest_wait_seconds:.0f} s" if limits.waiting_samplers else ""
    rows = [
        *(() if status.stage is None else (("stage", _stage(status.stage)),)),
        ("episodes", episodes),
        ("environment steps", f"{status.environment_steps:,} ({status.environment_steps_per_second:.1f}/s)"),
        ("transitions held", f"{status.transitions_held:,} of {status.transitions_capacity:,}" + _loading(status)),
        *(("beside them", _source(source)) for source in status.sources),
        *((f"return, {role}", _returns(returns)) for role, returns in sorted(status.returns.items())),
        ("updates", _updates(status)),
        ("samples per insert", f"{ratio} (asked for {limits.samples_per_insert:,.1f}{waiting})"),
        ("checkpoint", _checkpoint(status)),
        ("workers", _workers(status)),
        ("failures", ", ".join(f"{kind}: {count}" for kind, count in sorted(status.failures.items())) or "none"),
    ]
    if status.findings:
        rows.append(("findings", ", ".join(f"{name}: {count}" for name, count in sorted(status.findings.items()))))
    if status.rejected:
        rows.append(("rejected", ", ".join(f"{reason}: {count}" for reason, count in sorted(status.rejected.items()))))
    return rows


def _stage(stage: StageStatus) -> str:
    blend = "" if stage.reward_weight >= 1 else f", {stage.reward_weight:.0%} of its own reward"
    return f"{stage.name} ({stage.index + 1} of {stage.stages}), {stage.environment_steps:,} environment steps{blend}"


def _source(source: SourceStatus) -> str:
    origin = "the stage before" if source.name == "former" else "demonstrations"
    return f"{source.share:.0%} of every batch from {source.transitions_held:,} of {origin}"


def _loading(status: RunStatus) -> str:
    return ", loading older ones" if status.loading else ""


def _returns(returns: ReturnStatistics) -> str:
    walked = "" if returns.walked_episodes is None else f", {returns.walked_episodes} walked"
    return (
        f"{returns.mean_simulator_return:,.1f} (best {returns.best_simulator_return:,.1f}), "
        f"{returns.mean_steps:.0f} steps, over {returns.episodes} episodes{walked}, policy {returns.policy_version:,}"
    )


def _updates(status: RunStatus) -> str:
    if status.trainer is None:
        return "no trainer yet"
    return f"{status.trainer.updates:,} ({status.trainer.updates_per_second:.1f}/s on {status.trainer.device})"


def _checkpoint(status: RunStatus) -> str:
    if status.checkpoint is None or status.checkpoint_age_seconds is None:
        return "none yet"
    count = status.checkpoints_published
    return f"step {status.checkpoint.step:,}, {status.checkpoint_age_seconds:.0f} s old, {count} published"


def _workers(status: RunStatus) -> str:
    texts = [f"{w.worker} ({w.role} x {w.simulators}, policy {w.policy_version:,})" for w in status.workers]
    return ", ".join(texts) or "none heard of"

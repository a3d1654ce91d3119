"""An analysis as rows of text, for the terminal and for the page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from gaitfleet.analysis.collect import Analysis
from gaitfleet.quality import RULES
from gaitfleet.wire import EpisodeSummary


@dataclass(frozen=True, slots=True)
class FindingRow:
    """One finding, with an example."""

    name: str
    kind: str
    episodes: int
    says: str
    detail: str
    example: str


def overview(analysis: Analysis) -> list[tuple[str, str]]:
    """What a person wants to know first, as name and text."""
    history = analysis.history
    if not history:
        return [("episodes", "none yet")]
    first, last = (f"{when:%Y-%m-%d %H:%M}" for when in (history[0].stored_at, history[-1].stored_at))
    endings = Counter(episode.ending_reason for episode in history).most_common()
    roles = Counter(episode.role for episode in history).most_common()
    rows = [
        ("task", analysis.run.experiment.task.environment),
        ("history", f"{len(history):,} episodes ({_counts(roles)}), {first} to {last} UTC"),
        ("endings", _counts(endings)),
    ]
    for stage in analysis.run.experiment.stage_names:  # scores of different stages do not compare
        rows += _evaluations([e for e in history if e.role == "evaluate" and e.stage == stage], stage)
    rows.append(("read in full", f"{analysis.read:,} newest episodes, {analysis.simulated_rows:,} rows"))
    if analysis.walked is not None:
        rows.append(("of those walking", f"{analysis.walked:,}"))
    return rows


def finding_rows(analysis: Analysis) -> list[FindingRow]:
    """Findings of the episodes that were read, faults first."""
    rows = [
        FindingRow(name, RULES[name].kind, found.episodes, RULES[name].says, found.finding.detail, str(found.example))
        for name, found in analysis.findings.items()
    ]
    return sorted(rows, key=lambda row: (row.kind != "fault", -row.episodes))


def _evaluations(episodes: list[EpisodeSummary], stage: str) -> list[tuple[str, str]]:
    """The newest policy that was evaluated in a stage, and the best episode; nothing where none was."""
    if not episodes:
        return []
    where = f", {stage}" if stage else ""
    newest = max(episode.policy_version for episode in episodes)
    best = max(episodes, key=lambda episode: episode.simulator_return)
    score = f"{best.simulator_return:,.1f} in {best.steps} steps by policy {best.policy_version:,}"
    return [
        (f"evaluation of policy {newest:,}{where}", _judged([e for e in episodes if e.policy_version == newest])),
        (f"best evaluation episode{where}", f"{score}: {best.episode_id}"),
    ]


def _judged(episodes: list[EpisodeSummary]) -> str:
    mean = sum(episode.simulator_return for episode in episodes) / len(episodes)
    steps = sum(episode.steps for episode in episodes) / len(episodes)
    text = f"score {mean:,.1f}, {steps:.0f} steps, over {len(episodes)} episode{'s' * (len(episodes) > 1)}"
    speeds = [episode.mean_speed_m_per_s for episode in episodes if episode.mean_speed_m_per_s is not None]
    return text if not speeds else f"{text}; {sum(speeds) / len(speeds):.2f} m/s"


def _counts(counts: Sequence[tuple[str, int]]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts)

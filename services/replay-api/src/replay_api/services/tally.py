"""What is stored, counted as it arrives, so that the status asks the database nothing."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from gaitfleet.wire import EpisodeSummary, ReturnStatistics
from replay_api.constants import RATE_WINDOW_SECONDS, RECENT_EPISODES
from replay_api.storage.episodes import Planned, RoleTotal


class Tally:
    """Counts and latest returns of one run.

    Parameters
    ----------
    totals
        What was played before the counting began, by role.
    stage
        The run's stage; empty without a curriculum.
    stage_steps
        Simulator steps of its training episodes that were played by then.
    """

    def __init__(self, totals: dict[str, RoleTotal], stage: str = "", stage_steps: int = 0) -> None:
        self.stage_steps = stage_steps
        self._stage = stage
        self.episodes = {role: total.episodes for role, total in totals.items()}
        self.steps = sum(total.steps for total in totals.values())
        self._recent: dict[str, deque[EpisodeSummary]] = {}
        self._stored: deque[tuple[float, int]] = deque()

    def add(self, summary: EpisodeSummary) -> None:
        """Count a stored episode and remember its returns."""
        self.count(summary)
        self.remember(summary)

    def count(self, summary: EpisodeSummary | Planned) -> None:
        """Count a stored episode."""
        self.episodes[summary.role] = self.episodes.get(summary.role, 0) + 1
        self.steps += summary.steps
        if summary.role != "evaluate" and summary.stage == self._stage:
            self.stage_steps += summary.steps
        stored_at = summary.stored_at.timestamp()
        self._stored.append((stored_at, summary.steps))
        self._forget(stored_at)  # maybe nobody ever asks for the rate

    def remember(self, summary: EpisodeSummary) -> None:
        """Take an episode that is counted already into the latest returns of its role."""
        evaluation = summary.role == "evaluate"
        if evaluation and summary.stage != self._stage:
            return  # of another task
        recent = self._recent.setdefault(summary.role, deque(maxlen=1000 if evaluation else RECENT_EPISODES))
        if any(other.episode_id == summary.episode_id for other in recent):
            return
        if evaluation:  # of one policy only: the newest that was evaluated
            newest = max((other.policy_version for other in recent), default=0)
            if summary.policy_version < newest:
                return
            if summary.policy_version > newest:
                recent.clear()
        recent.append(summary)

    @property
    def training_episodes(self) -> int:
        """Stored episodes that are learned from."""
        return sum(count for role, count in self.episodes.items() if role != "evaluate")

    def steps_per_second(self, now: float) -> float:
        """Simulator steps stored in the last minute, per second."""
        self._forget(now)
        return sum(steps for _, steps in self._stored) / RATE_WINDOW_SECONDS

    def _forget(self, now: float) -> None:
        while self._stored and self._stored[0][0] < now - RATE_WINDOW_SECONDS:
            self._stored.popleft()

    def returns(self) -> dict[str, ReturnStatistics]:
        """Of the latest episodes, by role; for evaluation those of the newest policy that was evaluated."""
        return {role: _statistics(recent) for role, recent in self._recent.items() if recent}


def _statistics(summaries: Iterable[EpisodeSummary]) -> ReturnStatistics:
    episodes = list(summaries)
    scores = [episode.simulator_return for episode in episodes]
    walked = [episode.walked for episode in episodes if episode.walked is not None]
    return ReturnStatistics(
        episodes=len(episodes),
        mean_simulator_return=sum(scores) / len(scores),
        best_simulator_return=max(scores),
        mean_learned_return=sum(episode.learned_return for episode in episodes) / len(episodes),
        mean_steps=sum(episode.steps for episode in episodes) / len(episodes),
        policy_version=max(episode.policy_version for episode in episodes),
        walked_episodes=sum(walked) if walked else None,
    )

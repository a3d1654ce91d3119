"""Leading a run from stage to stage."""

from __future__ import annotations

from typing import Any

from gaitfleet.course_settings import GateSettings, StageSettings
from gaitfleet.wire import EpisodeSummary
from replay_api.services.event_log import EventLog
from replay_api.services.gate import judge
from replay_api.services.open_run import OpenRun
from replay_api.services.registry import RunRegistry
from replay_api.storage.episodes import EpisodeStore
from replay_api.storage.runs import RunStore

LATE_EVALUATIONS = 16
"""Evaluations that may have finished after that of a newer policy, or be told twice by two replicas."""


class Curriculum:
    """Judges the gate of a run's stage whenever an episode is stored, and moves the run once."""

    def __init__(self, registry: RunRegistry, runs: RunStore, episodes: EpisodeStore, events: EventLog) -> None:
        self._registry = registry
        self._runs = runs
        self._episodes = episodes
        self._events = events

    async def consider(self, opened: OpenRun, stored: EpisodeSummary) -> None:
        """Enter the next stage if the gate of the present one is passed.

        Any number of replicas may come to that at the same time: the run's document moves by compare-and-set from the
        stage that was judged, so one of them moves it, and writes the event.
        """
        stage = opened.description.experiment.stage_at(opened.description.stage)
        if stage is None or stage.gate is None or stored.stage != stage.name:
            return
        evidence = await self._evidence(opened, stage, stored)
        if evidence is None:
            return
        index = opened.description.stage + 1
        following = opened.description.experiment.stage_at(index)
        if following is None:
            return
        # A memory that begins anew owes nothing for its first `min_size` transitions, as that of a new run.
        credit = -opened.limiter.rule.offset if following.replay == "restart" else 0.0
        if await self._runs.enter_stage(opened.run, index, credit=credit):
            steps = opened.tally.stage_steps
            data = {"stage": following.name, "index": index, "after": stage.name, "after_environment_steps": steps}
            replay = following.model_dump(include={"replay", "former", "blend_environment_steps"}, exclude_none=True)
            await self._events.tell(opened.run, "stage_entered", **data, **replay, evidence=evidence)
        self._registry.reopen(opened)

    async def _evidence(self, opened: OpenRun, stage: StageSettings, stored: EpisodeSummary) -> dict[str, Any] | None:
        """Why the stage is over; None while it is not."""
        gate, steps = stage.gate, opened.tally.stage_steps
        if gate is None or steps < stage.least_environment_steps:
            return None
        if gate.max_environment_steps is not None and steps >= gate.max_environment_steps:
            return {"max_environment_steps": {"asked": gate.max_environment_steps, "measured": steps}}
        if stored.role != "evaluate" or not gate.judges:
            return None
        policies = await self._evaluated(opened.run, stage.name, gate)
        if len(policies) < gate.policies or stored.policy_version not in policies:
            return None
        evaluations = {policy: await self._episodes.evaluated(opened.run, policy, stage.name) for policy in policies}
        verdict = judge(gate, evaluations)
        return verdict.evidence if verdict.passed else None

    async def _evaluated(self, run: str, stage: str, gate: GateSettings) -> list[int]:
        """The newest policies that are evaluated to the end in a stage, as many as the gate judges, newest first."""
        finished = await self._events.newest(run, "evaluation_finished", gate.policies + LATE_EVALUATIONS)
        versions = {int(event.data["policy_version"]) for event in finished if event.data.get("stage") == stage}
        # 0: imported episodes of another run's policies, of which former versions have told, too
        return sorted(versions - {0}, reverse=True)[: gate.policies]

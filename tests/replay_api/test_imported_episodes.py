"""What comes from another run is learned from as this run would have recorded it, or not at all."""

from __future__ import annotations

from typing import Any

import pytest

from gaitfleet.episode import Episode, encode_episode, encode_for_run
from gaitfleet.task import make_task
from replay_api.services.retelling import retold
from tests.conftest import serve
from tests.replay_api.fleet import Fleet, play
from tests.replay_api.test_forks import computed, rows, upright, wait_until_loaded, walker


def from_elsewhere(fleet: Fleet, episode: Episode) -> bytes:
    """The body as it is imported from another run."""
    there = episode.metadata.model_copy(update={"run": "elsewhere"})
    return encode_for_run(encode_episode(Episode(there, episode.trajectory)), fleet.run)


@pytest.mark.parametrize(("fall_height", "lowest_m", "ending"), [(0.8, 0.69, "truncated"), (0.6, 0.69, "terminated")])
def test_an_imported_episode_ends_by_the_rules_of_the_run_also_after_a_restart(
    settings: Any, fall_height: float, lowest_m: float, ending: str
) -> None:
    """It had gone on where it falls here, or had fallen where it goes on here."""
    with serve(settings) as url:
        fleet = Fleet(url, walker(ending={"fall_height": fall_height}))
        reason = "fall" if ending == "terminated" else "time_limit"
        episode = upright(fleet, seed=4, lowest_m=lowest_m, ending=ending, ending_reason=reason)
        assert fleet.post(from_elsewhere(fleet, episode)).status_code == 201
        expected = computed(retold(episode, fleet.task), fleet.task)
        assert rows(fleet.batches(batch_size=256)) == expected
        assert expected != computed(episode, fleet.task)
    with serve(settings) as url:
        fleet.reconnect(url)
        wait_until_loaded(fleet)
        assert rows(fleet.batches(batch_size=256)) == expected
        fleet.http.close()


@pytest.mark.parametrize(
    ("there", "here", "words"),
    [
        ({}, {"bins": 2}, "with this run's limits or bins no decision gives that, the nearest gives"),
        ({"repeat": 1}, {}, r"decision[0] was held for 1 steps, here it is 4"),
        ({"repeat": 8}, {}, r"decision[0] was held for 8 steps, here it is 4"),
    ],
)
def test_an_imported_episode_that_no_decision_could_have_made_is_refused(
    api: str, there: dict[str, Any], here: dict[str, Any], words: str
) -> None:
    with Fleet(api, walker(action=here)) as fleet:
        recorded = play(make_task(walker(action=there).task), "elsewhere")
        answer = fleet.post(encode_for_run(encode_episode(recorded), fleet.run))
        assert answer.status_code == 422
        assert words in answer.json()["detail"]
        evaluation = recorded.metadata.model_copy(update={"role": "evaluate"})  # never learned from
        body = encode_episode(Episode(evaluation, recorded.trajectory))
        assert fleet.post(encode_for_run(body, fleet.run)).status_code == 201

"""Episodes exported from one installation and imported into another: unchanged, never twice, never by half."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from gaitfleet.analysis.collect import collect
from gaitfleet.analysis.tables import overview
from gaitfleet.client import ReplayClient
from gaitfleet.command import app
from gaitfleet.command.processes import only_one
from gaitfleet.episode import Episode, content_digest, decode_episode, encode_episode
from gaitfleet.task.prosthetics_layout import prosthetics_layout
from tests.conftest import serve, settings_for
from tests.replay_api.fleet import Fleet, experiment_of
from tests.replay_api.test_curriculum import STAGES, Walk, curriculum
from tests.replay_api.test_forks import WALKER
from tests.system.test_round_trip import STEPS, TASK, play


@pytest.fixture(scope="module")
def elsewhere(mongodb_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Another installation: its own database and checkpoints."""
    with serve(settings_for(mongodb_uri, tmp_path_factory.mktemp("elsewhere"))) as url:
        yield url


def gaitfleet(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


def exported(fleet: Fleet, directory: Path, *options: object) -> Path:
    answer = gaitfleet("export", fleet.run, "--output", directory, "--url", fleet.url, *options)
    assert answer.exit_code == 0, answer.output
    return directory


def imported(directory: Path, url: str, run: str, *options: object) -> Result:
    return gaitfleet("import", directory, "--run", run, "--url", url, "--create", *options)


def rows(directory: Path) -> Any:
    return pq.read_table(directory / "timesteps").sort_by([("episode_id", "ascending"), ("step", "ascending")])


def test_real_episodes_are_the_same_bit_for_bit_in_another_installation(
    api: str, elsewhere: str, tmp_path: Path
) -> None:
    with Fleet(api, experiment_of(task=TASK)) as fleet:
        trajectory, _, _ = play(fleet)
        random = Episode(fleet.play(steps=STEPS, seed=3).metadata, trajectory)
        epoch = fleet.lease().json()["epoch"]
        assert fleet.publish(5, epoch).status_code == 201
        learned = Episode(fleet.play(steps=STEPS, seed=3, role="train", policy_version=5).metadata, trajectory)
        posted = {episode.metadata.episode_id: encode_episode(episode) for episode in (random, learned)}
        for body in posted.values():
            assert fleet.post(body).status_code == 201
        here = exported(fleet, tmp_path / "here", "--parquet", "--bodies")
        for episode_id, body in posted.items():
            assert (here / "bodies" / f"{episode_id}.safetensors").read_bytes() == body

        run = f"{fleet.run}-b"
        first = imported(here, elsewhere, run)
        assert (first.exit_code, first.output) == (
            0,
            f"run {run}: 2 episodes stored, 0 were there already, 0 refused\n",
        )
        again = imported(here, elsewhere, run)
        assert again.output == f"run {run}: 0 episodes stored, 2 were there already, 0 refused\n"

    with ReplayClient(elsewhere, run=run) as client:
        summaries = {summary.episode_id: summary for summary in client.episodes().episodes}
        assert set(summaries) == set(posted)
        for episode_id, body in posted.items():
            copy, original = decode_episode(client.episode_content(episode_id)), decode_episode(body)
            assert copy.trajectory.state.tobytes() == original.trajectory.state.tobytes()
            origin = summaries[episode_id].origin
            assert origin is not None
            assert (origin.run, origin.digest) == (fleet.run, content_digest(body))
            assert origin.policy_version == original.metadata.policy_version
            assert summaries[episode_id].policy_version == 0  # this run's checkpoints did not act
    there = tmp_path / "there"
    assert gaitfleet("export", run, "--output", there, "--url", elsewhere, "--parquet").exit_code == 0
    assert rows(there).equals(rows(here))


def test_tables_name_the_unit_of_every_state_column_and_the_derived_ones(api: str, tmp_path: Path) -> None:
    with Fleet(api, experiment_of(task=TASK)) as fleet:
        for seed in range(3):
            fleet.post(fleet.play(steps=10, seed=seed))
        some = exported(fleet, tmp_path / "some", "--parquet", "--columns", "reward, observation/*/knee_*")
        table = rows(exported(fleet, tmp_path / "all", "--parquet"))
    for column in prosthetics_layout("2D").columns:
        assert table.schema.field(column.name).metadata[b"unit"].decode() == column.unit
    assert {"action/soleus_l", "decision", "learned_reward", "target_velocity/x", "reward_term/alive"} <= {
        *table.column_names
    }
    assert not any(name.startswith("observation/") for name in table.column_names)
    chosen = rows(some).column_names
    assert chosen[:3] == ["episode_id", "step", "reward"]
    assert all(name.startswith("observation/") for name in chosen[3:])
    assert table.num_rows == 30
    episodes = pq.read_table(tmp_path / "all" / "episodes")
    assert sorted(episodes["episode_id"].to_pylist()) == sorted(set(table["episode_id"].to_pylist()))


def test_an_export_goes_on_where_it_was_interrupted(fleet: Fleet, tmp_path: Path) -> None:
    for seed in range(3):
        fleet.post(fleet.play(seed=seed))
    forms = ("--parquet", "--bodies")
    directory = exported(fleet, tmp_path / "export", *forms, "--episodes", 2)
    manifest = directory / "bodies.jsonl"
    manifest.write_bytes(manifest.read_bytes()[:-10])  # the machine stopped while the second line was written
    (directory / "timesteps" / ".part-00001.parquet").write_bytes(b"half a file")
    answer = gaitfleet("export", fleet.run, "--output", directory, "--url", fleet.url, *forms)
    assert "2 episodes" in answer.output
    assert "1 were there already" in answer.output
    assert len(manifest.read_text().splitlines()) == 3
    assert [path.name for path in sorted((directory / "timesteps").iterdir())] == [
        "part-00000.parquet",
        "part-00001.parquet",
    ]
    assert rows(directory).num_rows == 90


def test_an_interrupt_while_a_row_group_is_written_writes_no_row_twice(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python raises what Ctrl-C asks for when the writer returns."""
    write = pq.ParquetWriter.write_table

    def interrupted(writer: pq.ParquetWriter, *arguments: Any, **named: Any) -> None:
        monkeypatch.undo()
        write(writer, *arguments, **named)
        raise KeyboardInterrupt

    for seed in range(2):
        fleet.post(fleet.play(seed=seed))
    monkeypatch.setattr("gaitfleet.transfer.tables.ROW_GROUP_STEPS", 60)
    monkeypatch.setattr(pq.ParquetWriter, "write_table", interrupted)
    forms = "export", fleet.run, "--output", tmp_path, "--url", fleet.url, "--parquet"
    assert gaitfleet(*forms).exit_code != 0
    assert "2 episodes" in gaitfleet(*forms).output
    assert rows(tmp_path).num_rows == 60


def test_two_exports_do_not_meet_in_one_directory(fleet: Fleet, tmp_path: Path) -> None:
    with only_one(tmp_path, "--output"):
        answer = gaitfleet("export", fleet.run, "--output", tmp_path, "--url", fleet.url, "--bodies")
    assert answer.exit_code == 1
    assert "choose another with --output" in answer.output


def test_files_of_timesteps_are_closed_at_their_size(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gaitfleet.transfer.tables.ROW_GROUP_STEPS", 60)
    monkeypatch.setattr("gaitfleet.command.transfer.MEGABYTE", 1)
    for seed in range(5):
        fleet.post(fleet.play(seed=seed))
    directory = exported(fleet, tmp_path / "export", "--parquet")
    for part, episodes in enumerate((2, 2, 1)):
        assert pq.read_metadata(directory / "timesteps" / f"part-{part:05d}.parquet").num_rows == 30 * episodes
        assert pq.read_metadata(directory / "episodes" / f"part-{part:05d}.parquet").num_rows == episodes


def test_the_tables_of_every_stage_have_its_own_rewards(api: str, tmp_path: Path) -> None:
    with Walk(api) as walk:
        planar = walk.episode("planar", seed=1, distance_m=1.0)
        assert walk.post(planar).status_code == 201
        walk.publish_step(10)
        assert [walk.evaluate(1.0, version=10, seed=seed) for seed in range(2)] == [201, 201]
        assert walk.stage() == "spatial"
        spatial = walk.episode("spatial", seed=2)
        assert walk.post(spatial).status_code == 201
        directory = exported(walk, tmp_path / "export", "--parquet", "--role", "random")
    for episode, task in zip((spatial, planar), reversed(walk.tasks), strict=True):
        tables = [pq.read_table(part) for part in (directory / "timesteps").glob("*.parquet")]
        (table,) = [table for table in tables if table["episode_id"][0].as_py() == str(episode.metadata.episode_id)]
        assert table["learned_reward"].to_pylist() == task.reward(episode.trajectory).tolist()
        assert {f"reward_term/{name}" for name in task.reward_terms(episode.trajectory)} <= set(table.column_names)


def test_an_analysis_holds_every_episode_against_the_task_of_its_stage(api: str) -> None:
    """A column that the planar model locks is constant in its rows, and must not be a finding there."""
    with Walk(api) as walk:
        still = walk.episode("planar", seed=1, distance_m=1.0)
        still.trajectory.state[:, walk.task.description.state_layout.index("joint_pos/ground_pelvis/pelvis_tz")] = 0.0
        assert walk.post(still).status_code == 201
        walk.publish_step(10)
        assert [walk.evaluate(1.0, version=10, seed=seed) for seed in range(2)] == [201, 201]
        assert walk.stage() == "spatial"
        with ReplayClient(walk.url, run=walk.run) as client:
            found = collect(client, episodes=10, history=10).findings
            stored = Counter(finding.name for episode in client.every_episode() for finding in episode.findings)
    assert {name: one.episodes for name, one in found.items()} == stored
    assert "constant_columns" not in found


def test_an_analysis_never_means_over_the_scores_of_two_stages(api: str) -> None:
    """The last policy of a stage is evaluated once more in the next one."""
    with Walk(api) as walk:
        walk.publish_step(10)
        assert [walk.evaluate(1.0, version=10, seed=seed) for seed in range(2)] == [201, 201]
        assert walk.evaluate(1.0, version=10, stage="spatial") == 201
        with ReplayClient(walk.url, run=walk.run) as client:
            told = dict(overview(collect(client, episodes=10, history=10)))
    assert "over 2 episodes" in told["evaluation of policy 10, planar"]
    assert "over 1 episode" in told["evaluation of policy 10, spatial"]
    assert told["best evaluation episode, planar"] != told["best evaluation episode, spatial"]


def test_filters_choose_role_age_and_number(fleet: Fleet, tmp_path: Path) -> None:
    for seed, role in enumerate(("random", "evaluate", "random")):
        fleet.post(fleet.play(seed=seed, role=role))
    tomorrow = f"{datetime.now(UTC) + timedelta(days=1):%Y-%m-%d}"
    for options, count in (
        (("--role", "random"), 2),
        (("--episodes", 1), 1),
        (("--since", "2026-01-01"), 3),
        (("--since", tomorrow), 0),
    ):
        directory = exported(fleet, tmp_path / f"export-{count}{options[0]}", "--bodies", *options)
        assert len((directory / "bodies.jsonl").read_text().splitlines()) == count


def test_a_damaged_file_is_refused_by_name_and_the_others_are_imported_when_asked(
    fleet: Fleet, elsewhere: str, tmp_path: Path
) -> None:
    for seed in range(3):
        fleet.post(fleet.play(seed=seed))
    directory = exported(fleet, tmp_path / "export", "--bodies")
    damaged = sorted((directory / "bodies").iterdir())[1]
    content = bytearray(damaged.read_bytes())
    content[-5] ^= 1
    damaged.write_bytes(content)
    run = f"{fleet.run}-c"

    stopped = imported(directory, elsewhere, run)
    assert stopped.exit_code == 1
    assert f"{damaged.name} is damaged" in stopped.output
    assert f"run {run}: 1 episodes stored, 0 were there already, 1 refused" in stopped.output
    other = imported(directory, elsewhere, run, "--keep-going")
    assert other.exit_code == 1
    assert f"run {run}: 1 episodes stored, 1 were there already, 1 refused" in other.output
    with ReplayClient(elsewhere, run=run) as client:
        assert damaged.stem not in {str(summary.episode_id) for summary in client.episodes().episodes}


def test_the_rules_of_the_other_run_hold_for_imported_episodes(fleet: Fleet, elsewhere: str, tmp_path: Path) -> None:
    """The same refusals as for any post; an episode of the run itself comes back as it was, from no future."""
    fleet.post(fleet.play(steps=30))
    directory = exported(fleet, tmp_path / "export", "--bodies")
    with Fleet(elsewhere, experiment_of(task={"time_limit_steps": 20})) as short:
        answer = gaitfleet("import", directory, "--run", short.run, "--url", elsewhere)
        assert answer.exit_code == 1
        assert "422: action has 30 steps, must have 1 to 20" in answer.output
    with Fleet(elsewhere, experiment_of(task=TASK)) as walker:
        answer = gaitfleet("import", directory, "--run", walker.run, "--url", elsewhere)
        assert answer.exit_code == 1
        assert "their states are not the same" in answer.output
    with Fleet(elsewhere, experiment_of(task={"action": {"bins": 3}})) as coarse:
        answer = gaitfleet("import", directory, "--run", coarse.run, "--url", elsewhere, "--keep-going")
        assert answer.exit_code == 1
        assert "cannot learn from the episodes" in answer.output
        assert "with the limits or bins here no decision gives that" in answer.output
    again = gaitfleet("import", directory, "--url", fleet.url)
    assert again.output == f"run {fleet.run}: 0 episodes stored, 1 were there already, 0 refused\n"


def test_episodes_of_a_stage_go_into_runs_without_a_curriculum_and_into_those_that_have_the_stage(
    api: str, elsewhere: str, tmp_path: Path
) -> None:
    with Walk(api) as walk, Fleet(api, experiment_of(task=WALKER)) as plain:
        episode = walk.episode("planar", seed=1)
        assert walk.post(episode).status_code == 201
        staged = exported(walk, tmp_path / "staged", "--bodies")
        assert plain.post(plain.play(steps=30)).status_code == 201
        unstaged = exported(plain, tmp_path / "unstaged", "--bodies")
    for experiment, stage in ((walk.experiment, "planar"), (plain.experiment, "")):
        with Fleet(elsewhere, experiment) as target:
            for count in ("1 episodes stored, 0", "0 episodes stored, 1"):
                answer = gaitfleet("import", staged, "--run", target.run, "--url", elsewhere)
                assert answer.output == f"run {target.run}: {count} were there already, 0 refused\n"
            with ReplayClient(elsewhere, run=target.run) as client:
                (summary,) = client.every_episode()
            assert (summary.episode_id, summary.stage) == (episode.metadata.episode_id, stage)
    other = curriculum(STAGES[0] | {"name": "lunar"}, STAGES[1])
    for directory, experiment, words in (
        (unstaged, walk.experiment, "without a curriculum, the curriculum of run '{run}' has 'planar', 'spatial'"),
        (staged, other, "in stage 'planar', the curriculum of run '{run}' has 'lunar', 'spatial'"),
    ):
        with Fleet(elsewhere, experiment) as target:
            answer = gaitfleet("import", directory, "--run", target.run, "--url", elsewhere, "--keep-going")
        assert answer.exit_code == 1
        assert answer.output.count("\n") == 1  # not episode by episode
        assert f"were played {words.format(run=target.run)}" in answer.output


def test_who_is_asked_for_what_is_missing(fleet: Fleet, tmp_path: Path) -> None:
    nothing = gaitfleet("export", fleet.run, "--output", tmp_path / "a", "--url", fleet.url)
    assert "--parquet, --bodies, or both" in nothing.output
    tables = exported(fleet, tmp_path / "b", "--parquet")
    assert "export with --bodies" in imported(tables, fleet.url, fleet.run).output
    assert "is this the directory of an export?" in imported(tmp_path, fleet.url, fleet.run).output
    with Fleet(fleet.url) as other:
        answer = gaitfleet("export", other.run, "--output", tables, "--url", fleet.url, "--bodies")
        assert f"holds run '{fleet.run}'" in answer.output.replace("\n", "")

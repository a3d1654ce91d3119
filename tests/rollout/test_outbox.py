"""Delivery: once, whole, whatever the API does meanwhile."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from failing_environments import counting
from fake_replay_api import FakeApi
from scenario import pendulum

from gaitfleet import codec
from gaitfleet.episode import Episode, EpisodeMetadata, encode_episode
from gaitfleet.identity import new_episode_id
from gaitfleet.trajectory import Trajectory
from rollout.connection import Connection
from rollout.main import RunReplacedError, StopSignal, serve
from rollout.metrics import Metrics
from rollout.outbox import Outbox
from rollout.settings import RolloutSettings
from rollout.spool import REJECTED_KEPT, Spool, reserve_episode_numbers
from rollout.supervisor import Supervisor


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with FakeApi(pendulum()).serving() as api:
        yield api


class Sender:
    """An outbox on a directory, and its metrics."""

    def __init__(self, api: FakeApi, directory: Path, *, max_bytes: int = 1 << 20, **settings: Any) -> None:
        self.metrics = Metrics("test")
        values = RolloutSettings(run="test", replay_api_url=api.url, api_timeout_seconds=2.0, **settings)
        self.spool = Spool(directory, max_bytes)
        self.outbox = Outbox(
            lambda: Connection(values), self.spool, self.metrics, memory_episodes=4, posters=values.posters
        )
        self._layout = api.task.description.state_layout.hash

    def send(self, count: int = 1, *, reward: float = 0.0) -> list[str]:
        sent = []
        for _ in range(count):
            metadata = {
                "episode_id": new_episode_id(),
                "run": "test",
                "worker": "worker.0",
                "role": "random",
                "policy_version": 0,
                "seed": 0,
                "layout_hash": self._layout,
                "ending": "truncated",
                "ending_reason": "time_limit",
                "exploration": "uniform",
                "started_at": "2026-01-01T00:00:00Z",
                "wall_seconds": 1.0,
            }
            rows = np.zeros((3, 3), np.float32), np.zeros((2, 1), np.float32), np.full(2, reward, np.float32)
            episode = Episode(EpisodeMetadata.model_validate(metadata), Trajectory(*rows, np.ones(2, np.uint8)))
            self.outbox.submit(str(metadata["episode_id"]), encode_episode(episode))
            sent.append(str(metadata["episode_id"]))
        return sent

    def value(self, name: str, **labels: str) -> float:
        return (
            self.metrics.registry.get_sample_value(f"rl_rollout_{name}", {"run_id": "test", "role": "train", **labels})
            or 0.0
        )


def test_what_is_submitted_arrives_once(api: FakeApi, tmp_path: Path) -> None:
    sender = Sender(api, tmp_path)
    sender.outbox.start()
    sent = sender.send(20)
    sender.outbox.close(5.0)
    assert sorted(api.posts) == sorted(sent)
    assert len(sender.spool) == 0
    assert sender.outbox.waiting == 0


def test_while_the_api_is_away_episodes_are_on_disk_and_arrive_once_afterwards(api: FakeApi, tmp_path: Path) -> None:
    sender = Sender(api, tmp_path)
    api.away.set()
    sender.outbox.start()
    sent = sender.send(3)
    api.wait_for(lambda _: len(sender.spool) == 3)
    assert sender.outbox.accepting  # what is on disk does not fill the memory
    sent += sender.send(3)
    assert len(sender.spool) == 6
    api.away.clear()
    api.wait_for(lambda api: len(api.bodies) == 6)
    sender.outbox.close(5.0)
    assert sorted(api.posts) == sorted(sent)
    assert list(tmp_path.glob("*.zst")) == []
    assert sender.value("post_retries_total", reason="unavailable") >= 1
    assert sender.value("spool_episodes") == 0


def test_what_an_earlier_start_left_is_posted_first_with_the_same_bytes(api: FakeApi, tmp_path: Path) -> None:
    api.away.set()
    before = Sender(api, tmp_path)
    before.outbox.start()
    left = before.send(3)
    before.outbox.close(2.0)
    bodies = {one: codec.decompress(before.spool.read(one), limit_bytes=1 << 20) for one in left}
    api.away.clear()
    after = Sender(api, tmp_path, posters=1)  # two would let later ones overtake
    new = after.send(2)
    after.outbox.start()
    api.wait_for(lambda api: len(api.bodies) == 5)
    after.outbox.close(5.0)
    assert set(api.posts[:3]) == set(left)
    assert set(api.posts[3:]) == set(new)
    assert {episode_id: api.bodies[episode_id] for episode_id in left} == bodies


def test_a_limit_is_waited_for_and_fills_the_memory_not_the_disk(api: FakeApi, tmp_path: Path) -> None:
    api.refuse = lambda episode: (429, {"Retry-After": "0.5"}) if len(api.posts) <= 1 else None
    sender = Sender(api, tmp_path)
    sender.outbox.start()
    sender.send(1)
    api.wait_for(lambda api: len(api.posts) == 1)
    refused_at = time.monotonic()
    sender.send(4)
    assert not sender.outbox.accepting
    api.wait_for(lambda api: len(api.bodies) == 5)
    assert time.monotonic() - refused_at > 0.4
    assert sender.value("post_retries_total", reason="limited") == 1
    assert len(sender.spool) == 0
    sender.outbox.close(1.0)


@pytest.mark.parametrize(("status", "reason"), [(422, "rejected"), (409, "conflict"), (413, "rejected")])
def test_a_refused_episode_is_set_aside_and_never_sent_again(
    api: FakeApi, tmp_path: Path, status: int, reason: str
) -> None:
    api.refuse = lambda episode: (status, {}) if episode.trajectory.reward[0] < 0 else None
    sender = Sender(api, tmp_path)
    sender.outbox.start()
    (refused,) = sender.send(reward=-1.0)
    sender.send(2)
    sender.outbox.close(5.0)
    assert api.posts.count(refused) == 1
    assert len(api.bodies) == 2
    assert sender.value("episodes_dropped_total", reason=reason) == 1
    why = json.loads((tmp_path / "rejected" / f"{refused}.json").read_text())
    assert why["problem"]["detail"] == "told to refuse"
    assert (tmp_path / "rejected" / f"{refused}.episode.zst").exists()


@pytest.mark.parametrize("status", [500, 408])
def test_episodes_that_fail_each_time_do_not_keep_others_back(api: FakeApi, tmp_path: Path, status: int) -> None:
    """As many as there are posters, failing for a reason that speaks of no fault of theirs."""
    api.refuse = lambda episode: (status, {}) if episode.trajectory.reward[0] < 0 else None
    sender = Sender(api, tmp_path, posters=1)
    (failing,) = sender.send(reward=-1.0)
    others = sender.send(3)
    sender.outbox.start()
    api.wait_for(lambda api: set(api.bodies) == set(others), 20.0)
    sender.outbox.close(5.0)
    assert sender.spool.ids() == [failing]


def test_only_so_many_refused_episodes_are_kept(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1 << 20)
    for number in range(REJECTED_KEPT + 3):
        spool.set_aside(f"{number:04}", b"body", {})
    names = sorted(path.name for path in (tmp_path / "rejected").iterdir())
    assert len(names) == 2 * REJECTED_KEPT
    assert names[0].startswith("0003")


def test_a_damaged_file_is_set_aside(api: FakeApi, tmp_path: Path) -> None:
    (tmp_path / "0198.episode.zst").write_bytes(b"not zstd")
    sender = Sender(api, tmp_path)
    sender.outbox.start()
    sender.send(1)
    sender.outbox.close(5.0)
    assert len(api.bodies) == 1
    assert (tmp_path / "rejected" / "0198.json").exists()
    assert sender.value("episodes_dropped_total", reason="damaged") == 1


def test_a_spool_that_is_removed_meanwhile_is_made_again(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", 1 << 20)
    for keep in (lambda: spool.put("0198", b"body"), lambda: spool.set_aside("0198", b"body", {})):
        shutil.rmtree(tmp_path / "spool")
        keep()
        assert len(list(tmp_path.rglob("0198.episode.zst"))) == 1


def test_a_full_spool_stops_the_simulators_and_loses_nothing(api: FakeApi, tmp_path: Path) -> None:
    api.away.set()
    sender = Sender(api, tmp_path, max_bytes=1)
    sender.outbox.start()
    sender.send(2)
    api.wait_for(lambda _: len(sender.spool) == 2)
    assert not sender.outbox.accepting
    api.away.clear()
    api.wait_for(lambda api: len(api.bodies) == 2)
    api.wait_for(lambda _: sender.outbox.accepting)
    sender.outbox.close(1.0)


def test_a_disk_that_cannot_be_written_keeps_episodes_in_memory(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(episode_id: str, body: bytes) -> None:
        raise OSError(28, "No space left on device")

    api.away.set()
    sender = Sender(api, tmp_path)
    monkeypatch.setattr(sender.spool, "put", full)
    sender.outbox.start()
    sender.send(4)
    api.wait_for(lambda _: not sender.outbox.accepting)
    api.away.clear()
    api.wait_for(lambda api: len(api.bodies) == 4)
    sender.outbox.close(1.0)


def test_a_delivered_episode_whose_file_cannot_be_removed_is_delivered_once(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one poster: if it ended, nothing would be posted any more."""

    def read_only(path: Path, missing_ok: bool = False) -> None:
        raise OSError(30, "Read-only file system")

    api.away.set()
    sender = Sender(api, tmp_path, posters=1)
    sender.outbox.start()
    sent = sender.send(2)
    api.wait_for(lambda _: len(sender.spool) == 2)
    monkeypatch.setattr(Path, "unlink", read_only)
    api.away.clear()
    api.wait_for(lambda api: len(api.bodies) == 2)
    sent += sender.send(2)
    api.wait_for(lambda _: sender.outbox.waiting == 0)
    assert sorted(api.posts) == sorted(sent)
    assert sender.outbox.failure is None
    assert (len(sender.spool), sender.spool.full) == (0, False)
    sender.outbox.close(1.0)
    assert len(list(tmp_path.glob("*.zst"))) == 2


def test_a_worker_whose_poster_ends_does_not_go_on(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(outbox: Outbox) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(Outbox, "_take", broken)
    settings = RolloutSettings(run="test", replay_api_url=api.url, simulators=1, spool_dir=tmp_path)
    with pytest.raises(RuntimeError, match="posts episodes has ended"):
        serve(settings, StopSignal(), counting)


def test_what_is_withheld_is_not_posted_and_stays_in_the_spool(api: FakeApi, tmp_path: Path) -> None:
    sender = Sender(api, tmp_path)
    sender.outbox.start()
    sender.send(2)
    api.wait_for(lambda _: sender.outbox.waiting == 0)
    sender.outbox.withhold()
    withheld = sender.send(3)
    sender.outbox.close(5.0)
    assert len(api.posts) == 2
    assert Spool(tmp_path, 1 << 20).ids() == sorted(withheld)


def test_nothing_of_the_former_run_is_posted_to_a_new_one_of_its_name(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(supervisor: Supervisor, stop: StopSignal, check: Callable[[], None]) -> None:
        api.created_at = datetime.now(UTC)
        while True:
            check()
            time.sleep(0.02)

    def drain(supervisor: Supervisor, timeout_seconds: float) -> None:
        supervisor._outbox.submit("0198", b"an episode")

    monkeypatch.setattr("rollout.reporter.REPORT_SECONDS", 0.02)
    monkeypatch.setattr(Supervisor, "run", run)
    monkeypatch.setattr(Supervisor, "drain", drain)
    settings = RolloutSettings(run="test", replay_api_url=api.url, simulators=1, spool_dir=tmp_path)
    with pytest.raises(RunReplacedError):
        serve(settings, StopSignal(), counting)
    assert [path.name for path in tmp_path.glob("test/*/*.zst")] == ["0198.episode.zst"]


def test_what_is_in_memory_is_kept_when_the_simulators_cannot_be_ended(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(supervisor: Supervisor, stop: StopSignal, check: object) -> None:
        api.delay_seconds = 60.0
        supervisor._outbox.submit("0198", b"an episode")

    def broken(supervisor: Supervisor) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(Supervisor, "run", run)
    monkeypatch.setattr(Supervisor, "close", broken)
    settings = RolloutSettings(run="test", replay_api_url=api.url, spool_dir=tmp_path, stop_timeout_seconds=1.0)
    with pytest.raises(ValueError, match="a bug"):
        serve(settings, StopSignal(), counting)
    assert [path.name for path in tmp_path.rglob("*.zst")] == ["0198.episode.zst"]


def test_closing_does_not_wait_for_an_api_that_does_not_answer(api: FakeApi, tmp_path: Path) -> None:
    api.delay_seconds = 5.0
    sender = Sender(api, tmp_path)
    sender.outbox.start()
    sent = sender.send(3)
    began = time.monotonic()
    sender.outbox.close(1.0)
    assert time.monotonic() - began < 2.0
    assert Spool(tmp_path, 1 << 20).ids() == sorted(sent)


def test_a_changed_token_is_read_again(api: FakeApi, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("old\n")
    api.tokens = {"new"}
    sender = Sender(api, tmp_path / "spool", token_file=file)
    sender.outbox.start()
    sender.send(1)
    api.wait_for(lambda _: sender.value("post_retries_total", reason="forbidden") >= 1)
    file.write_text("new\n")
    api.wait_for(lambda api: len(api.bodies) == 1)
    sender.outbox.close(1.0)


def test_an_unfinished_file_is_never_read(tmp_path: Path) -> None:
    (tmp_path / "0198.episode.zst.1-1.tmp").write_bytes(b"half")
    assert Spool(tmp_path, 1 << 20).ids() == []


def test_files_that_another_worker_removes_while_they_are_listed_are_left_out(tmp_path: Path) -> None:
    Spool(tmp_path, 1 << 20).put("0198", b"body")
    for gone in ("0199.episode.zst", "0200.episode.zst.1-1.tmp"):
        (tmp_path / gone).symlink_to("nothing")  # is listed, and is not there
    assert Spool(tmp_path, 1 << 20).ids() == ["0198"]


def test_every_start_plays_other_episodes(tmp_path: Path) -> None:
    numbers = [reserve_episode_numbers(tmp_path / "spool", "worker") for _ in range(3)]
    assert numbers[0] == 0
    assert len(set(numbers)) == 3
    assert reserve_episode_numbers(tmp_path / "spool", "other") == 0

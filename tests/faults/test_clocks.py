"""Clocks that jump: libfaketime sets the wall clock of one process forward and back while it works."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.observed import until
from tests.faults.test_replicas import through
from tests.replay_api.fleet import Fleet, experiment_of
from tests.servers import ApiServer

pytestmark = pytest.mark.faults


@dataclass(frozen=True)
class WallClock:
    """The wall clock of the processes that have these variables."""

    file: Path
    variables: dict[str, str]

    def jump(self, offset: str) -> None:
        """Set it to the true time and an offset such as `+1d`."""
        new = self.file.with_suffix(".new")
        new.write_text(offset)
        new.replace(self.file)


@pytest.fixture
def wall_clock(tmp_path: Path) -> WallClock:
    libraries = sorted(Path("/usr/lib").rglob("libfaketimeMT.so.1"))
    assert libraries, "libfaketime is not installed: apt-get install libfaketime"
    variables = {"LD_PRELOAD": str(libraries[0]), "FAKETIME_TIMESTAMP_FILE": str(tmp_path / "clock")}
    clock = WallClock(tmp_path / "clock", variables | {"FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"})
    clock.jump("+0")
    return clock


@pytest.fixture
def replicas(mongodb_uri: str, wall_clock: WallClock, tmp_path: Path) -> Iterator[list[ApiServer]]:
    """One whose clock can jump, and one whose clock is right."""
    settings = {"mongodb_uri": mongodb_uri, "mongodb_database": f"test-clock-{time.time_ns()}"}
    with ExitStack() as stack:
        apis = []
        for environment in (wall_clock.variables, {}):
            apis.append(ApiServer(tmp_path, settings, environment))
            stack.callback(apis[-1].kill)
        yield apis


def test_replicas_share_episodes_limits_and_lease_whatever_the_clock_of_one_says(
    replicas: list[ApiServer], wall_clock: WallClock
) -> None:
    with Fleet(replicas[0].url, experiment_of(replay={"capacity": 100_000})) as fleet:
        other = through(fleet, replicas[1].url)
        epoch, inserted = fleet.lease(ttl_seconds=120).json()["epoch"], 0

        def counted() -> list[tuple[int, int, int]]:
            statuses = [one.status() for one in (fleet, other)]
            return [(one["limits"]["inserted"], one["transitions_held"], one["limits"]["sampled"]) for one in statuses]

        for number, offset in enumerate(("+0", "+1d", "-1d", "+2h", "+0"), 1):
            wall_clock.jump(offset)
            for seed in range(5):
                for one in (fleet, other):
                    assert one.post(one.play(seed=100 * number + seed)).status_code == 201
                    inserted += 30
            assert fleet.sample().status_code == other.sample().status_code == 200
            expected = [(inserted, inserted, 32 * number)] * 2
            until(lambda: counted() == expected, f"at {offset}: {counted()}, expected {expected}")  # noqa: B023
            assert fleet.lease("trainer-b").status_code == 409, f"the lease ended at {offset}"
            renewed = (fleet if number % 2 else other).lease(ttl_seconds=120)
            assert renewed.json()["epoch"] == epoch
            assert [one.status()["lease"]["epoch"] for one in (fleet, other)] == [epoch] * 2, "it is shown as ended"
            assert fleet.publish(10 * number, epoch).status_code == 201
        time.sleep(7.0)  # longer than the interval of the searches that look back further
        assert counted() == expected
        other.http.close()

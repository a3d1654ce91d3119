"""How many rollout workers can one replay API on one database serve, and what gives first?

A thousand workers (the real client; a recorded walk of 300 steps, no simulator) wait for policies and post episodes,
ever faster: every phase offers more episodes a second, until they are not acknowledged at the pace at which they are
offered, or a policy poll that does not wait takes too long. The pace before that is the knee. Twice as much is offered
then, so that posts are refused; after that four fifths of the knee are held for the rest of the time, with retention
on: how long until the fleet has come back? Then the store is asked for every episode that was acknowledged. Policies of
the shipped size are published all the while.

    python benchmarks/bench_fleet.py --minutes 10 --json fleet.json
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from floors import Floor, missed
from recorded import STEPS, Copies, experiment_of, play, policy_checkpoint
from serving import LagProbe, Served, machine, resident_bytes, said, served, used_cpu_seconds
from simulated_fleet import SLOW_POLL_SECONDS, Journal, Orders
from simulated_fleet import play as play_fleet
from simulated_fleet import probe as probe_fleet

from gaitfleet.client import ReplayClient

RUN = "fleet"
KEPT_UP = 0.95
"""Share of the offered episodes that must be acknowledged for a pace to be kept."""

QUICK_POLLS = 0.99
"""Share of the policy polls that do not wait that must be answered within `SLOW_POLL_SECONDS` for a pace to be kept."""

MAX_GROWTH = 0.1
"""Growth of the API's memory from the first third of the time at the held pace to the last."""

OVERLOAD = 2.0
"""Times the knee that is offered for a while."""

RECOVERED_WINDOW_SECONDS = 10.0
RECOVERED = 0.9
"""The fleet has come back when for so long this share of what is offered is acknowledged, and nothing of it was refused
before. (Episodes come at random: with fewer, no share near 1 could be told from 1.)"""

RECOVERY_SECONDS = 60.0
"""It has until then."""

STEPS_PER_SECOND = 100
"""Of a worker, to say for how many the knee is enough."""

PUBLISH_SECONDS = 30.0
DISK_BYTES = 10e9


@dataclass(frozen=True)
class Phase:
    """One pace, and the shares of a core that each part used."""

    offered_per_second: float
    acknowledged_per_second: float
    post_p50_seconds: float
    post_p99_seconds: float
    refusals: int
    poll_p99_seconds: float
    cores: dict[str, float]
    busy_share_of_machine: float
    loopback_megabytes_per_second: float

    @property
    def kept(self) -> bool:
        return self.keeps_up and self.polls_are_quick

    @property
    def keeps_up(self) -> bool:
        return self.acknowledged_per_second >= KEPT_UP * self.offered_per_second

    @property
    def polls_are_quick(self) -> bool:
        return self.poll_p99_seconds <= SLOW_POLL_SECONDS


@dataclass(frozen=True)
class Span:
    """When a phase was, and what was used in it."""

    began: float
    ended: float
    offered: float
    cores: dict[str, float]
    busy: float
    megabytes: float


class Watch:
    """Processor time of every part and of everything else on the machine, and what went over the loopback."""

    def __init__(self, system: Served, fleet: list[int], due: Synchronized[int]) -> None:
        self._system, self._fleet, self._due = system, fleet, due

    def used(self) -> dict[str, float]:
        return self._system.cpu_seconds() | {"fleet": sum(map(used_cpu_seconds, self._fleet))}

    def span(self, seconds: float, tick: Any) -> Span:
        due, before, bytes_before = self._due.value, self.used(), psutil.net_io_counters(pernic=True)["lo"].bytes_sent
        psutil.cpu_percent()
        began = time.monotonic()
        while time.monotonic() < began + seconds:
            tick()
            time.sleep(0.5)
        ended, after = time.monotonic(), self.used()
        sent = psutil.net_io_counters(pernic=True)["lo"].bytes_sent - bytes_before
        cores = {name: (after[name] - before[name]) / (ended - began) for name in after}
        busy = psutil.cpu_percent() / 100
        cores["elsewhere"] = max(0.0, busy * (psutil.cpu_count() or 1) - sum(cores.values()))
        offered = (self._due.value - due) / (ended - began)
        return Span(began, ended, offered, cores, busy, sent / 1e6 / (ended - began))


class Publisher:
    """The trainer's side: a new policy every so often."""

    def __init__(self, client: ReplayClient, run: str) -> None:
        self._client, self._run = client, run
        self._epoch = client.acquire_lease("bench", ttl_seconds=600).epoch
        self.sent: dict[int, float] = {}
        self.publish()

    def tick(self) -> None:
        if time.monotonic() - max(self.sent.values()) > PUBLISH_SECONDS:
            self._client.acquire_lease("bench", ttl_seconds=600)
            self.publish()

    def publish(self) -> None:
        step = len(self.sent) + 1
        body = policy_checkpoint(self._run, step)
        self.sent[step] = time.monotonic()
        self._client.publish_checkpoint(step, self._epoch, body)


@contextmanager
def fleet_of(system: Served, copies: Copies, options: argparse.Namespace) -> Iterator[tuple[Orders, list[Any], Any]]:
    """The worker processes."""
    context = multiprocessing.get_context("spawn")
    pace, counts = context.Value("d", options.paces[0]), [context.Value("q", 0) for _ in range(3)]
    orders = Orders(system.url, RUN, copies, options.workers, pace, *counts, context.Event())
    journals: Any = context.Queue()
    shares = [range(i, options.workers, options.processes) for i in range(options.processes)]
    processes = [context.Process(target=play_fleet, args=(orders, share, journals), daemon=True) for share in shares]
    processes.append(context.Process(target=probe_fleet, args=(orders, journals), daemon=True))
    for process in processes:
        process.start()
    try:
        yield orders, processes, journals
    finally:
        for process in processes:
            process.kill()


def bench(system: Served, options: argparse.Namespace) -> dict[str, Any]:
    """Ramp, hold, verify."""
    keep = {"max_transitions": options.keep_transitions}
    replay = {"capacity": 100_000, "min_size": 1000, "samples_per_insert": 1}
    experiment = experiment_of(replay=replay, retention=keep)
    copies = Copies(experiment, play(), RUN)
    with ReplayClient(system.url, run=RUN, timeout_seconds=120) as client:
        client.create_run(experiment)
        publisher = Publisher(client, RUN)
        end = time.monotonic() + 60 * options.minutes
        with fleet_of(system, copies, options) as (orders, processes, queue):
            watch = Watch(system, [process.pid for process in processes], orders.due)
            watch.span(options.settle_seconds, publisher.tick)
            ramp, kept = [], options.paces[0] / 2
            for pace in options.paces:
                orders.pace.value = pace
                watch.span(options.phase_seconds / 3, publisher.tick)
                done, polls, slow_polls = _inserted(system), orders.polls.value, orders.slow_polls.value
                ramp.append(watch.span(options.phase_seconds, publisher.tick))
                if (_inserted(system) - done) / options.phase_seconds < KEPT_UP * ramp[-1].offered:
                    break
                if orders.slow_polls.value - slow_polls > (1 - QUICK_POLLS) * (orders.polls.value - polls):
                    break
                kept = pace
            orders.pace.value = OVERLOAD * kept
            overload = watch.span(options.phase_seconds, publisher.tick)
            orders.pace.value = 0.8 * kept
            memory: list[int] = []

            def tick() -> None:
                publisher.tick()
                memory.append(resident_bytes(system.api))

            back = watch.span(max(options.phase_seconds, RECOVERY_SECONDS), publisher.tick)
            probe = LagProbe(system)
            held = watch.span(max(options.phase_seconds, end - time.monotonic()), tick)
            event_loop = probe.read()
            orders.stop.set()
            journals = [queue.get(timeout=120) for _ in processes]
        summary = _summary(system, client, journals, ramp, held, memory, publisher)
        recovery = _recovery_seconds(journals, back, 0.8 * kept)
        after = {"overload": asdict(_phase(overload, journals)), "recovery_seconds": recovery}
        return summary | after | {"event_loop": event_loop}


def _inserted(system: Served) -> float:
    return system.metrics()[f'rl_replay_inserted_episodes_total{{role="train",run_id="{RUN}"}}']


def _summary(
    system: Served,
    client: ReplayClient,
    journals: list[Journal],
    ramp: list[Span],
    held: Span,
    memory: list[int],
    publisher: Publisher,
) -> dict[str, Any]:
    phases = [_phase(span, journals) for span in ramp]
    holding = _phase(held, journals)
    knee = max((phase.acknowledged_per_second for phase in phases if phase.kept), default=0.0)
    third = max(1, len(memory) // 3)
    first, last = np.median(memory[:third]), np.median(memory[-third:])
    arrivals = [arrival for journal in journals for arrival in journal.arrivals]
    # neither the first, which they connect to, nor the last, which the end may cut off
    steps = list(publisher.sent)[1:-1]
    spread = [[at - publisher.sent[step] for got, at in arrivals if got == step] for step in steps]
    return {
        "ramp": [asdict(phase) for phase in phases],
        "held": asdict(holding),
        "knee_episodes_per_second": knee,
        "knee_workers": knee * STEPS / STEPS_PER_SECOND,
        "gives_first": _gives_first(phases[-1]),
        "memory_megabytes": [float(first / 1e6), float(last / 1e6)],
        "memory_growth": float(last / first - 1),
        "propagation_seconds": {
            "p50": float(np.median([seconds for times in spread for seconds in times] or [float("nan")])),
            "all": [max(times) for times in spread if times],
            "workers": [len(times) for times in spread],
        },
        "failures": [failure for journal in journals for failure in journal.failures][:20],
    } | _verified(system, client, journals)


def _phase(span: Span, journals: list[Journal]) -> Phase:
    posts = [post for journal in journals for post in journal.posts if span.began < post.at <= span.ended]
    polls = [seconds for journal in journals for at, seconds in journal.polls if span.began < at <= span.ended]
    seconds = [post.seconds for post in posts] or [float("nan")]
    return Phase(
        offered_per_second=span.offered,
        acknowledged_per_second=len(posts) / (span.ended - span.began),
        post_p50_seconds=float(np.quantile(seconds, 0.5)),
        post_p99_seconds=float(np.quantile(seconds, 0.99)),
        refusals=sum(post.refusals for post in posts),
        poll_p99_seconds=float(np.quantile(polls or [float("nan")], 0.99)),
        cores=span.cores,
        busy_share_of_machine=span.busy,
        loopback_megabytes_per_second=span.megabytes,
    )


def _recovery_seconds(journals: list[Journal], back: Span, pace: float) -> float:
    """From the end of the overload until the fleet has come back; all the time that was looked at where it has not."""
    posts = [post for journal in journals for post in journal.posts if back.began < post.at <= back.ended]
    for began in np.arange(back.began, back.ended - RECOVERED_WINDOW_SECONDS, 1.0):
        window = [post for post in posts if began < post.at <= began + RECOVERED_WINDOW_SECONDS]
        if len(window) >= RECOVERED * pace * RECOVERED_WINDOW_SECONDS and not any(post.refusals for post in window):
            return float(began - back.began)
    return back.ended - back.began


def _gives_first(phase: Phase) -> str:
    """What was not kept in the last phase of the ramp, and what was used up in it."""
    if phase.kept:
        return "nothing: every pace was kept"
    broken = "policy polls are slow" if phase.keeps_up else "not every episode is acknowledged in time"
    cores = ", ".join(f"{name} {cores:.2f}" for name, cores in phase.cores.items())
    return f"{broken}; {phase.busy_share_of_machine:.0%} of the machine's processors are used (cores: {cores})"


def _verified(system: Served, client: ReplayClient, journals: list[Journal]) -> dict[str, int]:
    """Hold every acknowledged episode against the store. Retention deletes the oldest, so what is missing must not be
    more than it has deleted, and was not posted after something that is still there was acknowledged."""
    posts = {post.episode_id: post for journal in journals for post in journal.posts}
    stored = {str(episode.episode_id) for episode in client.every_episode()}
    missing = [post for episode_id, post in posts.items() if episode_id not in stored]
    retired = int(system.metrics()[f'rl_replay_retired_items_total{{run_id="{RUN}"}}']) // STEPS
    oldest_stored = min((posts[i].at for i in stored if i in posts), default=0.0)
    younger = sum(post.at - post.seconds > oldest_stored for post in missing)
    return {
        "acknowledged": len(posts),
        "stored": len(stored),
        "retired": retired,
        "lost": max(younger, len(missing) - retired),
    }


def report(result: dict[str, Any], floors: list[Floor]) -> None:
    print(
        f"{'offered/s':>9} {'acked/s':>8} {'p50 ms':>8} {'p99 ms':>8} {'429s':>5} {'poll p99':>9} {'machine':>8}  cores"
    )
    for phase in [*result["ramp"], result["overload"], result["held"]]:
        cores = ", ".join(f"{name} {used:.2f}" for name, used in phase["cores"].items())
        print(
            f"{phase['offered_per_second']:>9.1f} {phase['acknowledged_per_second']:>8.1f} "
            f"{1e3 * phase['post_p50_seconds']:>8.0f} {1e3 * phase['post_p99_seconds']:>8.0f} {phase['refusals']:>5} "
            f"{1e3 * phase['poll_p99_seconds']:>6.0f} ms {phase['busy_share_of_machine']:>7.0%}  {cores}, "
            f"{phase['loopback_megabytes_per_second']:.0f} MB/s"
        )
    spread = result["propagation_seconds"]
    print(
        f"knee: {result['knee_episodes_per_second']:.1f} episodes/s = {result['knee_workers']:.0f} workers at "
        f"{STEPS_PER_SECOND} steps/s; gives first: {result['gives_first']}\n"
        f"after the overload the fleet has come back within {result['recovery_seconds']:.0f} s\n"
        f"event loop while it was held: {said(result['event_loop'])}\n"
        f"memory of the API: {result['memory_megabytes'][0]:.0f} to {result['memory_megabytes'][1]:.0f} MB\n"
        f"a new policy is with half of the workers after {spread['p50']:.2f} s, with all after "
        f"{max(spread['all'], default=float('nan')):.2f} s at most\n"
        f"{result['acknowledged']} acknowledged, {result['stored']} in the store, {result['retired']} retired, "
        f"{result['lost']} lost; missed: {', '.join(floor.figure for floor in floors if not floor.held) or 'nothing'}"
    )


def floors_of(result: dict[str, Any], workers: int) -> list[Floor]:
    """What is promised."""
    fleet = f"{workers} workers"
    return [
        Floor(f"{fleet}, acknowledged episodes that are lost", result["lost"], most=0),
        Floor(f"{fleet}, growth of the API's memory", result["memory_growth"], most=MAX_GROWTH),
        Floor(f"{fleet}, p99 of a policy poll, s", result["held"]["poll_p99_seconds"], most=SLOW_POLL_SECONDS),
        Floor(f"{fleet}, coming back from twice the knee, s", result["recovery_seconds"], most=RECOVERY_SECONDS - 1),
        Floor(f"{fleet}, disk, MB", result["disk_megabytes"], most=DISK_BYTES / 1e6),
        Floor(f"{fleet}, requests that failed", len(result["failures"]), most=0),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=1000, help="simulated workers")
    parser.add_argument("--processes", type=int, default=4, help="processes that they share")
    parser.add_argument("--minutes", type=float, default=10.0, help="length of ramp and hold together")
    parser.add_argument("--paces", type=float, nargs="+", default=[30, 50, 60, 70, 80, 90, 100, 120, 150, 200])
    parser.add_argument("--phase-seconds", type=float, default=30.0, help="length of one pace of the ramp")
    parser.add_argument("--settle-seconds", type=float, default=30.0, help="until all workers are connected")
    parser.add_argument("--keep-transitions", type=int, default=150_000, help="retention of the run")
    parser.add_argument("--json", type=Path, help="write the results here, too")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="bench-fleet-"))
    try:
        with served(directory) as system:
            result = bench(system, options)
            disk_bytes = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    result |= {"disk_megabytes": disk_bytes / 1e6, "workers": options.workers}
    floors = floors_of(result, options.workers)
    report(result, floors)
    if options.json:
        record = {"machine": machine(), "floors": [floor.record for floor in floors], "result": result}
        options.json.write_text(json.dumps(record, indent=2) + "\n")
    return missed(floors)


if __name__ == "__main__":
    sys.exit(main())

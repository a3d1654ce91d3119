"""Assembles the service: waits for its run, plays until it is told to stop, and leaves nothing behind."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from types import FrameType

from prometheus_client import start_http_server
from pydantic import ValidationError

from gaitfleet.errors import ApiError, GaitfleetError, PolicyError
from gaitfleet.logs import configure_logging
from gaitfleet.progress import ProgressFile
from gaitfleet.service_settings import explain
from gaitfleet.task import Task
from gaitfleet.wire import RunDescription, WorkerOrders, WorkerReport
from rollout.assignment import EnvironmentFactory, SimulatorSpecification
from rollout.connection import Connection, Patience
from rollout.environments.factory import make_environment
from rollout.episode_record import Recorder
from rollout.metrics import Metrics
from rollout.outbox import Outbox
from rollout.policy_source import PolicySource
from rollout.reporter import Reporter
from rollout.schedule import EvaluationSchedule, Schedule, TrainingSchedule
from rollout.settings import PREFIX, RolloutSettings
from rollout.simulator_process import task_of
from rollout.spool import Spool, reserve_episode_numbers
from rollout.supervisor import SimulatorLimits, Supervisor, UnfitSimulatorError

logger = logging.getLogger(__name__)

EXIT_CANNOT_WORK = 2
"""Exit code when starting again would not help: wrong settings, or parts that do not fit together."""

EXIT_RUN_REPLACED = 3
"""Exit code when the run was created anew under its name. Everything here belongs to the one before, from the task to
the spool, so whatever restarts this service makes it right."""


class RunReplacedError(Exception):
    """The API has another run under the name of the one that is played for."""


def main() -> int:
    """Run the service until SIGTERM or SIGINT; the result is its exit code."""
    try:
        settings = RolloutSettings()
    except ValidationError as error:
        sys.stderr.write(explain(error, PREFIX) + "\n")
        return EXIT_CANNOT_WORK
    configure_logging("rollout", settings.log_level)
    stop = StopSignal()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop.handle)
    try:
        serve(settings, stop)
    except RunReplacedError as error:
        logger.warning("start again: %s", error)
        return EXIT_RUN_REPLACED
    except (GaitfleetError, UnfitSimulatorError) as error:
        logger.error("cannot work: %s", error)
        return EXIT_CANNOT_WORK
    return 0


class StopSignal(threading.Event):
    """Set by SIGTERM or SIGINT; remembers when."""

    def __init__(self) -> None:
        super().__init__()
        self.received_at = 0.0

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Signal handler."""
        self.received_at = self.received_at or time.monotonic()
        self.set()

    def seconds_since(self) -> float:
        """Since the signal; 0 without one."""
        return time.monotonic() - self.received_at if self.received_at else 0.0


def serve(settings: RolloutSettings, stop: StopSignal, make_environment: EnvironmentFactory = make_environment) -> None:
    """Play for the run until `stop` is set, then stop within the time the settings allow.

    Parameters
    ----------
    make_environment
        Another factory of simulators, for tests.

    Raises
    ------
    GaitfleetError
        When the run's layout or observation are not those of this version of gaitfleet, or the spool cannot be used.
    UnfitSimulatorError
        When the simulator does not fit the run's task.
    PolicyError
        When the run's policies do not fit its task.
    RunReplacedError
        When the run was created anew meanwhile.
    """
    progress = ProgressFile(settings.progress_file)
    metrics = Metrics(settings.run, settings.role, settings.simulators)
    if settings.metrics_port:
        start_http_server(settings.metrics_port, settings.metrics_address, metrics.registry)
    run = wait_for_run(Connection(settings), stop)
    if run is None:
        return
    Service(settings, run, metrics, make_environment, progress).work(stop)


def wait_for_run(connection: Connection, stop: threading.Event) -> RunDescription | None:
    """The run, as soon as the API is there and knows it; None when `stop` came first."""
    found: list[RunDescription] = []
    failed: list[Exception] = []

    def ask() -> None:
        patience = Patience(connection, stop)
        said = ""
        while not found and not stop.is_set():
            try:
                found.append(connection.client.run())
            except ApiError as error:
                if str(error) != said:
                    said = str(error)
                    logger.warning("waiting for the run: %s", error)
                patience.wait(error)
            except Exception as error:
                failed.append(error)
                return

    # on another thread, because a request to an API that does not answer outlasts the time there is to stop
    asking = threading.Thread(target=ask, name="wait-for-run", daemon=True)
    asking.start()
    while asking.is_alive() and not stop.is_set():
        asking.join(0.1)
    if failed:
        raise failed[0]
    return found[0] if found and not stop.is_set() else None


class Service:
    """The parts of a worker, put together.

    Parameters
    ----------
    run
        What to play for.
    progress
        Touched at every tick.
    """

    def __init__(
        self,
        settings: RolloutSettings,
        run: RunDescription,
        metrics: Metrics,
        make_environment: EnvironmentFactory,
        progress: ProgressFile,
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._run = run
        self._make_environment = make_environment
        self._progress = progress
        self._stage = self._ordered_stage = run.stage
        self._training_episodes: int | None = None
        self._replaced_by: RunDescription | None = None
        specification, task, recorder = self._production()
        check_same_task(run, task)
        # a run that was deleted and made again under its name must not get the episodes of the one before
        self._spool_dir = settings.spool_dir / run.run / run.created_at.strftime("%Y%m%dT%H%M%S%f")
        self._policies: PolicySource | None = None
        if settings.role != "random":
            self._policies = PolicySource(Connection(settings), task.description)
            metrics.watch_policy_age(self._policies.age_seconds)
        try:
            spool = Spool(self._spool_dir, settings.spool_max_bytes)
        except OSError as error:
            raise GaitfleetError(f"spool_dir {settings.spool_dir} cannot be used: {error}") from error
        self._outbox = Outbox(
            lambda: Connection(settings),
            spool,
            metrics,
            memory_episodes=max(8, 2 * settings.simulators),
            posters=settings.posters,
            future_policy=self._policies.forget if self._policies is not None else lambda version: None,
        )
        self._supervisor = Supervisor(
            specification,
            task,
            recorder,
            simulators=settings.simulators,
            schedule=self._schedule(run),
            outbox=self._outbox,
            metrics=metrics,
            limits=_limits(settings),
        )
        self._reporter = Reporter(Connection(settings), settings.worker, self._report, self._follow, self._look)

    def work(self, stop: StopSignal) -> None:
        """Play until `stop` is set, or something is wrong for good."""
        if self._policies is not None:
            self._policies.start()
        self._outbox.start()
        self._reporter.start()
        logger.info("playing with %d simulators as %s", self._settings.simulators, self._settings.role)
        try:
            self._supervisor.run(stop, self._check)
        finally:
            if stop.is_set():
                self._metrics.stop_signal()
            self._shut_down(stop)

    def _shut_down(self, stop: StopSignal) -> None:
        """Within the time there is: simulators come to their next step, episodes are posted, the rest is reserve."""
        allowed = self._settings.stop_timeout_seconds
        if self._policies is not None:
            self._policies.stop()
        try:
            try:
                self._supervisor.drain(0.4 * allowed)
            finally:
                self._supervisor.close()
        finally:
            self._outbox.close(max(0.0, 0.85 * allowed - stop.seconds_since()))
        self._metrics.drained(stop.seconds_since())
        self._reporter.leave(min(1.0, 0.1 * allowed))
        logger.info("stopped after %.1f s", stop.seconds_since())

    def _check(self) -> None:
        self._progress.beat()
        if self._outbox.failure is not None:
            raise RuntimeError("a thread that posts episodes has ended") from self._outbox.failure
        if self._replaced_by is not None:
            both = f"was created at {self._run.created_at}, now there is one of {self._replaced_by.created_at}"
            raise RunReplacedError(f"run {self._run.run!r} {both}")
        if self._policies is not None and self._policies.mismatch is not None:
            raise PolicyError(f"the trainer publishes policies of another task: {self._policies.mismatch}")
        if self._ordered_stage != self._stage:
            self._stage = self._ordered_stage
            logger.info("stage %r begins", self._run.experiment.stage_names[self._stage])
            self._supervisor.change(*self._production())

    def _follow(self, orders: WorkerOrders) -> None:
        # only forwards: the replicas of the API learn of a new stage within a second of each other
        self._ordered_stage = max(self._ordered_stage, orders.stage)
        self._training_episodes = orders.training_episodes

    def _look(self, run: RunDescription) -> None:
        if run.created_at != self._run.created_at:
            self._replaced_by = run
            self._outbox.withhold()  # it would take them for its own

    def _production(self) -> tuple[SimulatorSpecification, Task, Recorder]:
        """What is played in the stage."""
        run, settings = self._run, self._settings
        task_settings = run.experiment.task_at(self._stage)
        specification = SimulatorSpecification(task_settings, settings.role, self._make_environment)
        task = task_of(specification)
        stage = run.experiment.stage_names[self._stage]
        return specification, task, Recorder(run.run, settings.worker, specification, task, stage)

    def _schedule(self, run: RunDescription) -> Schedule:
        newest = None if self._policies is None else self._policies.newest
        if self._settings.role == "evaluate" and newest is not None:
            return EvaluationSchedule(run.experiment, newest)
        first = reserve_episode_numbers(self._spool_dir, self._settings.worker)
        return TrainingSchedule(
            run.experiment,
            self._settings.worker,
            newest,
            unpublished=lambda: self._policies is None or self._policies.unpublished(),
            stage=run.stage,
            training_episodes=lambda: self._training_episodes,
            first_episode=first,
        )

    def _report(self) -> WorkerReport:
        supervisor = self._supervisor
        return WorkerReport(
            role=self._settings.role,
            simulators=len(supervisor.slots),
            policy_version=supervisor.policy_version,
            environment_steps=supervisor.environment_steps,
            episodes=supervisor.episodes,
            spooled=self._outbox.waiting,
            failures=dict(supervisor.failures),
        )


def check_same_task(run: RunDescription, task: Task) -> None:
    """Hold this version's idea of the task against the API's.

    Raises
    ------
    GaitfleetError
        Naming what differs, with both values.
    """
    for what, ours, theirs in (
        ("layout_hash", task.description.state_layout.hash, run.layout_hash),
        ("observation_hash", task.description.observation_hash, run.observation_hash),
    ):
        if ours != theirs:
            raise GaitfleetError(f"{what} of run {run.run!r} is {theirs}, this worker's {ours}: their versions differ")


def _limits(settings: RolloutSettings) -> SimulatorLimits:
    return SimulatorLimits(
        episodes_per_process=settings.episodes_per_process,
        memory_limit_bytes=settings.memory_limit_mb << 20,
        step_timeout_seconds=settings.step_timeout_seconds,
        startup_timeout_seconds=settings.startup_timeout_seconds,
        partial_episodes=settings.partial_episodes,
    )

"""The JSON bodies that the replay API and its clients exchange.

Bodies that carry arrays are in `episode`, `batch`, `policy` and `checkpoint`; everything else is here, so that both
sides read the same description.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from gaitfleet.episode import Ending, EndingReason, EpisodeOrigin, Role
from gaitfleet.experiment import Experiment
from gaitfleet.identity import RUN_PATTERN
from gaitfleet.pose import Pose
from gaitfleet.quality.finding import Finding

RunId = Annotated[str, Field(pattern=RUN_PATTERN, description="Id of the run, a DNS label.")]
Name = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9._-]+$")]
Count = Annotated[int, Field(ge=0, lt=1 << 53)]
"""Exact in every reader of JSON, and sums of many are, too."""
Printable = Annotated[str, Field(max_length=100, pattern=r"^[ -~]*$")]
"""Shown on terminals, which control characters could take over."""


class Wire(BaseModel):
    """Base of every JSON body: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


class RunParent(Wire):
    """A run whose training episodes another one learns from too."""

    run: RunId
    until: AwareDatetime = Field(description="Episodes stored up to then belong to it: when the fork was made.")
    transitions: int = Field(description="Decisions of its training episodes at that time.")


class Request(Wire):
    """Base of the bodies that are sent to the API: numbers are finite, for JSON knows no others."""

    model_config = ConfigDict(allow_inf_nan=False)


class RunDescription(Wire):
    """One run: what is simulated, what learns, and their hashes."""

    run: RunId
    experiment: Experiment = Field(description="The whole experiment file.")
    experiment_hash: str = Field(description="Hash over the experiment.")
    layout_hash: str = Field(description="Hash of the state layout of its episodes.")
    observation_hash: str = Field(description="Hash over the names of its observation.")
    created_at: AwareDatetime = Field(description="When it was created.")
    stage: int = Field(default=0, description="Position of the stage that it is in, in its curriculum; 0 without one.")
    parents: list[RunParent] = Field(
        default_factory=list, description="Whose episodes it was forked from, the youngest first; empty for no fork."
    )
    demonstrations: list[RunParent] = Field(
        default_factory=list, description="Whose episodes it is shown besides its own; empty without demonstrations."
    )


SourceName = Literal["run", "former", "demonstrations"]
"""Where transitions come from: the run itself, the stage before, a run of demonstrations."""


class SourceStatus(Wire):
    """Transitions that are sampled beside the run's own."""

    name: SourceName = Field(description="`former`: of the stage before; `demonstrations`: of another run.")
    share: float = Field(description="Share of every batch that comes from them, while there are any.")
    transitions_held: int = Field(description="Transitions in memory.")


class StageStatus(Wire):
    """Where a run stands in its curriculum."""

    index: int = Field(description="Position of the stage, from 0.")
    name: str = Field(description="Its name.")
    stages: int = Field(description="How many there are.")
    entered_at: AwareDatetime = Field(description="When it began.")
    environment_steps: int = Field(description="Simulator steps of training stored in it.")
    reward_weight: float = Field(
        default=1.0, description="Weight of its own reward; the rest is that of the reward of the stage before."
    )


class ForkRequest(Wire):
    """A new run that learns from the stored episodes of this one too."""

    run: RunId
    experiment: Experiment = Field(description="The new run's experiment file.")
    samples_per_inherited: float = Field(
        default=0.0,
        ge=0,
        le=10_000,
        description="Transitions that may be sampled for every inherited one, before and beside those that new "
        "experience allows. 0: the trainer begins at once and keeps the pace of new experience.",
    )


class EpisodeReceipt(Wire):
    """What the store holds after a post."""

    episode_id: UUID = Field(description="The episode.")
    stored: bool = Field(description="True when this post stored it, false when it was there already.")
    transitions: int = Field(description="Decisions it holds.")


class EpisodeSummary(Wire):
    """One episode without its arrays."""

    episode_id: UUID = Field(description="UUIDv7, sorts by time of creation.")
    run: RunId
    worker: str = Field(description="Who played it.")
    role: Role = Field(description="What it was played for.")
    policy_version: int = Field(description="Step of the checkpoint that acted; 0 for none.")
    seed: int = Field(description="Its seed.")
    ending: Ending = Field(description="How it ended.")
    ending_reason: EndingReason = Field(description="Why it ended.")
    exploration: str = Field(description="Noise used.")
    integrator: str = Field(description="OpenSim's integration method; empty elsewhere.")
    accuracy: float = Field(description="Integrator accuracy; 0 where there is none.")
    initial_pose: Pose | None = Field(default=None, description="Where it began; null: in the simulator's own pose.")
    steps: int = Field(description="Simulator steps, T.")
    transitions: int = Field(description="Decisions.")
    simulator_return: float = Field(description="Sum of the simulator's own rewards: the official score.")
    learned_return: float = Field(description="Sum of the rewards that are learned.")
    reward_terms: dict[str, float] = Field(description="Sum of every weighted reward term, before the scale.")
    action_minimum: float = Field(description="Smallest value the simulator received.")
    action_maximum: float = Field(description="Largest value the simulator received.")
    distance_m: float | None = Field(description="Forward way of the pelvis in metres; null for other tasks.")
    mean_speed_m_per_s: float | None = Field(
        description="That way divided by the simulated time; null for other tasks."
    )
    lowest_pelvis_m: float | None = Field(description="Lowest height of the pelvis in metres; null for other tasks.")
    foot_contacts: int | None = Field(
        description="Alternating foot contacts: times that the loaded foot changed; null for other tasks."
    )
    walked: bool | None = Field(
        default=None,
        description="Whether it is walking: to the time limit, at 0.5 m/s or more, on alternating feet; null for other "
        "tasks, and for episodes stored before this was asked.",
    )
    findings: list[Finding] = Field(
        default_factory=list, description="Checks of the data and of the behaviour that it did not pass, once each."
    )
    drift_m: float | None = Field(
        default=None, description="Sideways way of the pelvis in metres, positive to the right; null for other tasks."
    )
    stage: str = Field(default="", description="Stage of the curriculum in which it was played; empty without one.")
    started_at: AwareDatetime = Field(description="When it began.")
    stored_at: AwareDatetime = Field(description="When the store took it.")
    wall_seconds: float = Field(description="Wall-clock time it took.")
    content_bytes: int = Field(description="Bytes of the uncompressed body.")
    content_digest: str = Field(description="SHA-256 of the uncompressed body.")
    origin: EpisodeOrigin | None = Field(
        default=None, description="Where an imported episode was played; null for the run's own."
    )


class EpisodePage(Wire):
    """Episodes, newest first."""

    episodes: list[EpisodeSummary] = Field(description="The page.")
    next_before: UUID | None = Field(description="Give this as `before` for the next page; null at the end.")


class Event(Wire):
    """One entry of a run's history."""

    sequence: str = Field(description="Sorts by time; give it as `after` to go on from here.")
    run: RunId
    at: AwareDatetime = Field(description="When it happened, by the server's clock.")
    kind: str = Field(description="What happened, for example `checkpoint_published`.")
    data: dict[str, Any] = Field(description="Particulars.")


class EventPage(Wire):
    """Events, oldest first."""

    events: list[Event] = Field(description="The page.")


class BatchRequest(Request):
    """What the trainer wants sampled."""

    batches: int = Field(
        default=8, ge=1, le=256, description="Batches in the answer at most, K. The limiter may allow fewer."
    )
    batch_size: int = Field(ge=1, le=65_536, description="Transitions in each, B.")
    discount: float = Field(ge=0, le=1, description="Discount of one decision, gamma.")
    n_step: int = Field(default=1, ge=1, le=32, description="Decisions summed before the bootstrap.")
    sampling: Literal["uniform", "prioritized"] = Field(default="uniform", description="How transitions are drawn.")
    importance_exponent: float = Field(default=0.4, ge=0, le=1, description="beta of Schaul et al. 2016.")
    half_precision: bool = Field(default=False, description="Observations as float16: half the bytes, 3 digits.")
    wait_seconds: float = Field(
        default=10.0, ge=0, le=60, description="How long the limiter may hold the request before it answers 429."
    )


class PriorityUpdate(Wire):
    """New priorities of transitions that were sampled. Those evicted since are ignored."""

    index: list[int] = Field(max_length=65_536, description="`index` of the batch.")
    priority: list[float] = Field(
        max_length=65_536, description="Absolute temporal-difference error of each; >= 0, finite."
    )


class PriorityReceipt(Wire):
    """What became of a priority update."""

    updated: int = Field(description="Transitions whose priority was set.")
    evicted: int = Field(description="Transitions that are no longer held.")


class TrainerProgress(Request):
    """What the trainer says of itself when it renews its lease."""

    updates: Count = Field(description="Updates done in the whole run.")
    updates_per_second: float = Field(ge=0, description="Over the last seconds.")
    losses: dict[Printable, float] = Field(
        default_factory=dict, max_length=100, description="Latest value of each diagnostic."
    )
    device: Printable = Field(default="cpu", description="What it computes on.")


class LeaseRequest(Request):
    """Take the run's lease, or renew it."""

    holder: Name = Field(description="Who asks; unique for each start of a trainer.")
    ttl_seconds: float = Field(
        default=30.0, ge=1, le=600, description="The lease ends this long after the last renewal."
    )
    progress: TrainerProgress | None = Field(default=None, description="What the trainer has done so far.")


class Lease(Wire):
    """The right to publish checkpoints."""

    holder: str = Field(description="Who holds it.")
    epoch: int = Field(ge=1, description="Grows with every change of holder; fences publications.")
    expires_at: AwareDatetime = Field(description="By the database's clock.")
    stage: int = Field(default=0, description="Stage of the run's curriculum; 0 without one.")


class CheckpointInfo(Wire):
    """One published checkpoint."""

    run: RunId
    step: int = Field(ge=1, description="Updates done when it was published; the policy's version.")
    epoch: int = Field(ge=1, description="Lease under which it was published.")
    digest: str = Field(description="SHA-256 of the checkpoint body.")
    size_bytes: int = Field(description="Bytes of the checkpoint body.")
    policy_digest: str = Field(description="SHA-256 of the policy body.")
    policy_size_bytes: int = Field(description="Bytes of the policy body.")
    published_at: AwareDatetime = Field(description="When the head moved to it.")
    evaluation_return: float | None = Field(default=None, description="Mean official score of its evaluation episodes.")
    evaluation_episodes: int = Field(default=0, description="Evaluation episodes behind that mean.")
    evaluation_stage: str = Field(
        default="", description="Stage in which they were played; empty without a curriculum."
    )


class CheckpointList(Wire):
    """Checkpoints that are kept, newest first."""

    checkpoints: list[CheckpointInfo] = Field(description="The checkpoints.")
    newest: int | None = Field(description="Step of the newest; null before the first.")
    best: int | None = Field(description="Step of the best by evaluation; null before the first evaluation.")


class WorkerReport(Request):
    """What a rollout supervisor says of itself, every few seconds."""

    role: Role = Field(description="What it plays for.")
    simulators: int = Field(ge=0, le=4096, description="Simulator processes it runs.")
    policy_version: Count = Field(description="Policy it acts with; 0 for none.")
    environment_steps: Count = Field(description="Simulator steps since it started.")
    episodes: Count = Field(description="Episodes finished since it started.")
    spooled: Count = Field(description="Episodes that wait to be posted.")
    failures: dict[Annotated[str, Field(pattern=r"^[a-z_]{1,50}$")], Count] = Field(
        default_factory=dict, max_length=50, description="Simulator failures by kind."
    )


class WorkerOrders(Wire):
    """What the API answers to a worker's report."""

    stage: int = Field(description="Play this stage of the curriculum from the next episode on; 0 without one.")
    training_episodes: int = Field(
        ge=0, description="Stored episodes of the run but for evaluation: what initial states anneal by."
    )


class WorkerStatus(WorkerReport):
    """A worker as the replay API last heard of it."""

    worker: str = Field(description="Its name.")
    seconds_since_report: float = Field(description="How long ago that was.")


class Limits(Wire):
    """The samples-per-insert limiter."""

    samples_per_insert: float = Field(description="Transitions sampled for every transition inserted.")
    min_size: int = Field(description="Transitions inserted before the first sample.")
    error_buffer: float = Field(description="Samples by which either side may be ahead.")
    limit_inserts: bool = Field(description="Whether rollouts wait for the trainer.")
    inserted: int = Field(description="Transitions inserted in the whole run.")
    inherited: int = Field(description="Transitions of the runs it was forked from; they count towards `min_size`.")
    credit: float = Field(description="Samples allowed beyond those of the inserted transitions.")
    sampled: int = Field(description="Transitions sampled in the whole run.")
    samples_allowed: int = Field(description="Transitions that may be sampled right now.")
    waiting_samplers: int = Field(description="Sample requests that wait right now.")
    longest_wait_seconds: float = Field(description="How long the oldest of them has waited.")


class LimitsChange(Request):
    """New limits; what is left out stays as it is."""

    samples_per_insert: float | None = Field(
        default=None, gt=0, lt=1 << 53, description="Transitions sampled for one inserted."
    )
    min_size: int | None = Field(
        default=None, ge=1, lt=1 << 53, description="Transitions inserted before the first sample."
    )
    error_buffer: float | None = Field(
        default=None, gt=0, lt=1 << 53, description="Samples by which either side may be ahead."
    )
    limit_inserts: bool | None = Field(default=None, description="Whether rollouts wait for the trainer.")


class ReturnStatistics(Wire):
    """Returns of the latest episodes of a role."""

    episodes: int = Field(
        description="Episodes behind the figures (at most the latest 20; for evaluation one policy's)."
    )
    mean_simulator_return: float = Field(description="Mean of the simulator's own return.")
    best_simulator_return: float = Field(description="Best of them.")
    mean_learned_return: float = Field(description="Mean of the return that is learned.")
    mean_steps: float = Field(description="Mean length in simulator steps.")
    policy_version: int = Field(description="Newest policy among them.")
    walked_episodes: int | None = Field(
        default=None, description="How many of them are walking; null for tasks without a walker."
    )


class RunStatus(Wire):
    """Everything `gaitfleet status` shows."""

    run: RunId
    at: AwareDatetime = Field(description="When this was taken.")
    stage: StageStatus | None = Field(default=None, description="Where it is in its curriculum; null without one.")
    episodes: dict[str, int] = Field(description="Episodes stored, by role.")
    environment_steps: int = Field(description="Simulator steps stored so far, all roles; those deleted since count.")
    environment_steps_per_second: float = Field(description="Over the last minute, as the episodes were stored.")
    transitions_held: int = Field(description="Transitions ready to be sampled.")
    transitions_capacity: int = Field(description="Transitions that fit.")
    sources: list[SourceStatus] = Field(
        default_factory=list, description="What is sampled beside the run's own transitions."
    )
    loading: bool = Field(description="True while older episodes are still being loaded from the database.")
    returns: dict[str, ReturnStatistics] = Field(description="By role.")
    limits: Limits = Field(description="The limiter.")
    samples_per_insert: float | None = Field(
        description="Measured: transitions sampled for each inserted beyond `min_size`, where the limiter's `credit` "
        "counts as insertions at the present ratio; null before the first."
    )
    trainer: TrainerProgress | None = Field(description="As of its last renewal; null when no trainer holds the lease.")
    lease: Lease | None = Field(description="Who trains; null when nobody does.")
    checkpoint: CheckpointInfo | None = Field(description="The newest; null before the first.")
    checkpoint_age_seconds: float | None = Field(description="Since it was published.")
    checkpoints_published: int = Field(description="Since the run began.")
    workers: list[WorkerStatus] = Field(description="Workers heard of within the last half minute.")
    failures: dict[str, int] = Field(description="Simulator failures by kind, since the API started.")
    rejected: dict[str, int] = Field(description="Refused episodes by reason, since the API started.")
    findings: dict[str, int] = Field(
        default_factory=dict, description="Episodes that did not pass a check, by finding, since the API started."
    )


class ReadinessReport(Wire):
    """Whether a replica of the API should get requests."""

    ready: bool = Field(
        description="True while the database answers, once the checkpoint store has answered, until the shutdown."
    )
    parts: dict[str, str] = Field(description="`ok` or what is wrong, by part.")

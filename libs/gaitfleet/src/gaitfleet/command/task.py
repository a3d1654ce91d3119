"""`gaitfleet task list`, `show`, `check`: which presets there are, what they mean, and what a file makes of them."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from gaitfleet.course_settings import StageSettings
from gaitfleet.errors import ExperimentError
from gaitfleet.experiment import Experiment, ProstheticsObservationSettings, ProstheticsTask, load_experiment
from gaitfleet.task import Task, TaskDescription, make_task
from gaitfleet.task.prosthetics import OBSERVATIONS
from gaitfleet.task.prosthetics_reward import PRESETS, TERMS, Preset
from gaitfleet.task.stages import stage_tasks

task = typer.Typer(help="Presets of observation and reward, and the task of an experiment file.", no_args_is_help=True)

LETTERS = (
    "x forward, y up, z right; v velocity; _p pelvis, _h head, _com mass centre; t target velocity; theta knee angle "
    "(negative = flexed); psi yaw; e excitations, a activations; D change since the step before; (.)+ = max(0, .); "
    "P(value, target, tolerance) = 1 - ((value - target) / tolerance)^2. Per simulator step of 10 ms."
)


@task.command(name="list")
def list_presets() -> None:
    """The presets of the prosthetics task."""
    table = _table("preset", "kind", "size", "what it is")
    for name, observation in OBSERVATIONS.items():
        sizes = [_observed(name, prosthetic=kind).observation_size for kind in (True, False)]
        table.add_row(name, "observation", f"{sizes[0]} values ({sizes[1]} intact)", observation.summary)
    for name, preset in PRESETS.items():
        table.add_row(name, "reward", f"{len(preset.weights)} terms", preset.summary)
    Console().print(table)


@task.command()
def show(
    preset: Annotated[str, typer.Argument(help="Name of a preset, or of a reward term.")],
    intact: Annotated[bool, typer.Option("--intact", help="Observation of the model with both legs.")] = False,
) -> None:
    """What a preset consists of: terms with weight, unit, formula and source, or every observed value."""
    console = Console()
    if preset in PRESETS:
        _show_reward(console, preset)
    elif preset in OBSERVATIONS:
        _show_observation(console, preset, prosthetic=not intact)
    elif preset in TERMS:
        console.print(_terms_table(None, {preset: 1.0}))
    else:
        near = get_close_matches(preset, [*PRESETS, *OBSERVATIONS, *TERMS], n=1)
        hint = f"did you mean {near[0]!r}?" if near else "`gaitfleet task list` prints the presets"
        typer.echo(f"gaitfleet: no preset or term {preset!r}; {hint}", err=True)
        raise typer.Exit(1)


@task.command()
def check(file: Annotated[Path, typer.Argument(help="Experiment file.")]) -> None:
    """Read an experiment file and print the shapes and the reward of its task."""
    try:
        experiment = load_experiment(file)
        stages = stage_tasks(experiment)
    except ExperimentError as error:
        typer.echo(f"gaitfleet: {error}", err=True)
        raise typer.Exit(1) from None
    console = Console()
    for index, made in enumerate(stages):
        if experiment.curriculum is not None:
            console.print(f"\nstage {experiment.stage_names[index]}", style="bold", highlight=False)
            console.print(experiment.curriculum.stages[index].begins, highlight=False)
        played = experiment.model_copy(update={"task": experiment.task_at(index)})
        _describe(console, played, made, experiment.stage_at(index))


def _describe(console: Console, experiment: Experiment, made: Task, stage: StageSettings | None) -> None:
    settings = experiment.task
    console.print(_shapes(experiment, made, stage))
    if isinstance(settings, ProstheticsTask):
        reward = settings.reward
        preset = PRESETS[reward.preset]
        console.print(f"\nreward {reward.preset}, times {reward.scale:g}: {preset.summary}", highlight=False)
        console.print(_terms_table(preset, {**preset.weights_in(settings.round), **reward.weights}))


def _show_reward(console: Console, name: str) -> None:
    preset = PRESETS[name]
    console.print(f"{name}: {preset.summary}", highlight=False)
    rounds = {"": preset.weights}
    if preset.round2_weights is not None:
        rounds = {"round 1": preset.weights, "round 2": preset.round2_weights}
    for title, weights in rounds.items():
        console.print(title, highlight=False)
        console.print(_terms_table(preset, weights))
    console.print(f"\n{LETTERS}", highlight=False)


def _terms_table(preset: Preset | None, weights: Mapping[str, float]) -> Table:
    table = _table("term", "weight", "unit", "formula", "source")
    for name, weight in weights.items():
        term = TERMS[name] if preset is None else preset.term(name)
        table.add_row(name, f"{weight:g}", term.unit, term.formula, term.source)
    if preset is not None and preset.limit is not None:
        limit = preset.limit
        limited = "the sum" if limit.terms is None else " + ".join(name for name in limit.terms if name in weights)
        table.add_row(limit.name, "", "1", f"what brings {limited} into [{limit.low:g}, {limit.high:g}]", "")
    return table


def _show_observation(console: Console, name: str, *, prosthetic: bool) -> None:
    description = _observed(name, prosthetic=prosthetic)
    observation = OBSERVATIONS[name]
    console.print(f"{name}: {observation.summary}; {description.observation_size} values", highlight=False)
    for note in observation.notes:
        console.print(note, highlight=False, markup=False)
    table = _table("index", "value", "unit")
    for i, (value, unit) in enumerate(zip(description.observation_names, description.observation_units, strict=True)):
        table.add_row(str(i), value, unit)
    console.print(table)


def _observed(name: str, *, prosthetic: bool) -> TaskDescription:
    observation = ProstheticsObservationSettings.model_validate({"preset": name})
    return make_task(ProstheticsTask(observation=observation, prosthetic=prosthetic)).description


def _shapes(experiment: Experiment, made: Task, stage: StageSettings | None) -> Table:
    description = made.description
    most = description.action_repeat + description.action_random_repeat
    held = (
        f"{description.action_repeat}" if most == description.action_repeat else f"{description.action_repeat}-{most}"
    )
    levels = "any value" if description.action_bins is None else f"{description.action_bins} levels"
    low, high = float(description.action_low.min()), float(description.action_high.max())
    table = Table(
        title=f"task {experiment.task.environment}", title_justify="left", show_header=False, pad_edge=False, box=None
    )
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("state", f"{len(description.state_layout)} columns, layout {description.state_layout.hash}")
    table.add_row("observation", f"{description.observation_size} values, {description.observation_hash}")
    ago = dict.fromkeys(name.partition("/")[0] for name in description.observation_names if name.startswith("t-"))
    table.add_row("history", f"the present step, then {', '.join(ago)}" if ago else "none, the present step alone")
    table.add_row("action", f"{description.action_size} values within [{low:g}, {high:g}], {levels}")
    table.add_row("a decision is held for", f"{held} steps")
    table.add_row("time limit", f"{description.time_limit_steps} steps")
    table.add_row("target velocity", "one per step" if description.has_target_velocity else "none")
    begins = (
        "in a random pose or the simulator's own" if description.has_initial_pose else "in the simulator's own pose"
    )
    table.add_row("a training episode begins", begins)
    table.add_row("an abort", "keeps its future" if made.abort_bootstraps else "costs its future")
    table.add_row("replay memory", _memory(experiment, description, stage))
    return table


def _memory(experiment: Experiment, description: TaskDescription, stage: StageSettings | None) -> str:
    """What the replay API holds of a decision, and when it holds as many as fit (`TransitionCache`)."""
    blended = stage is not None and stage.blend_environment_steps is not None
    rewards = 16 if blended else 8  # the reward and the return so far; of the stage before too
    marks = 6  # where the episode ends, which policy acted, how often it was sampled
    decision_bytes = 4 * (description.observation_size + description.action_size) + rewards + marks
    rows = experiment.replay.capacity * 17 // 16 + 1  # one in sixteen more: the final observations
    full = rows * decision_bytes
    if experiment.replay.sampling == "prioritized":
        full += 16 << (rows - 1).bit_length()  # the tree of sums: two float64 a leaf, a power of two of them
    text = f"{decision_bytes} bytes a decision, {full / 1e9:.2f} GB when full"
    if experiment.demonstrations is not None:
        text += ", as much again for the demonstrations"
    if stage is not None and stage.former is not None:
        text += ", as much again for the stage before"
    return text


def _table(*names: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in names:
        short = name not in ("formula", "what it is", "source")
        table.add_column(name, no_wrap=short, overflow="fold", justify="right" if name == "weight" else "left")
    return table

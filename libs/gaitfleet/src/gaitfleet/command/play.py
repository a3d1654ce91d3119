"""`gaitfleet play`: an episode, recorded or played by a policy, as a page to turn it in, a GIF, a film or a picture."""

from __future__ import annotations

import tempfile
import webbrowser
from math import ceil
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from gaitfleet import codec
from gaitfleet.command.inspection import DEFAULT_URL, Run, Url, connected
from gaitfleet.command.policy_episode import Chosen, choose, play_policy, simulator
from gaitfleet.command.up import read_experiment
from gaitfleet.episode import Episode, decode_episode
from gaitfleet.errors import GaitfleetError, PlaybackError
from gaitfleet.experiment import SimulatorSettings
from gaitfleet.playback.page import write_page
from gaitfleet.task import Task, make_task
from gaitfleet.task.prosthetics_measures import STEP_SECONDS
from gaitfleet.task.stages import tasks_by_stage

MAX_EPISODE_BYTES = 1 << 30
"""Decompressed size of a file: as much as a worker keeps."""


def play(
    episode: Annotated[
        UUID | None, typer.Argument(help="Id of the episode, as `gaitfleet episodes --json` tells.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="An episode's file instead of an id, also a compressed one of a spool.")
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(
            help="Let a policy play one, without noise: a shipped one (walk-2d, walk-3d), newest or best of the "
            "run, or a file with its --experiment."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=(1 << 31) - 1, help="Of the episode that it plays.")] = 0,
    integrator: Annotated[str | None, typer.Option(help="Of that episode; unset: osim-rl's own.")] = None,
    accuracy: Annotated[float | None, typer.Option(help="Of that episode; unset: osim-rl's own, 5e-5.")] = None,
    gif: Annotated[Path | None, typer.Option(help="Write a GIF.")] = None,
    mp4: Annotated[Path | None, typer.Option(help="Write an H.264 film.")] = None,
    png: Annotated[Path | None, typer.Option(help="Write a picture of the last step.")] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write one HTML page that plays the episode and lets it be turned (WebGL).")
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open that page in the browser.")] = False,
    every: Annotated[
        int,
        typer.Option(
            min=1,
            max=100,
            help="Show each how-many-th step of 10 ms; a GIF leaves out more where one would last less than 20 ms.",
        ),
    ] = 4,
    speed: Annotated[float, typer.Option(min=0.01, max=10, help="1: as fast as it was; 0.25: slow motion.")] = 1.0,
    width: Annotated[int, typer.Option(min=160, max=3840, help="Of the picture, in pixels.")] = 800,
    experiment: Annotated[
        str | None, typer.Option(help="Show this experiment's reward terms: a file, or the name of a shipped one.")
    ] = None,
    url: Url = DEFAULT_URL,
    run: Run = None,
) -> None:
    """Draw an episode, recorded or played by a policy: the skeleton, velocity, score, reward terms and muscle
    activations."""
    try:
        if not (gif or mp4 or png or html or open_page):
            raise PlaybackError("say what to write: --html FILE (or --open), --gif FILE, --mp4 FILE or --png FILE")
        if policy is None:
            recorded, task = _recorded(episode, file, url, run)
            task = task if experiment is None else make_task(read_experiment(experiment).task)
        elif episode is None and file is None:
            recorded, task = _played(choose(policy, experiment, url, run), simulator(integrator, accuracy), seed)
        else:
            raise PlaybackError("--policy plays an episode of its own: give neither an id nor --file")
        if html or open_page:
            _write_page(recorded, task, html, open_page=open_page)
        if gif or mp4 or png:
            _write(recorded, task, (gif, mp4, png), every, speed, width)
    except GaitfleetError as error:
        typer.echo(f"gaitfleet: {error}", err=True)
        raise typer.Exit(1) from None


def _write_page(episode: Episode, task: Task | None, html: Path | None, *, open_page: bool) -> None:
    path = html or Path(tempfile.mkdtemp(prefix="gaitfleet-")) / f"{episode.metadata.episode_id}.html"
    write_page(path, episode, task)
    typer.echo(f"{path}: {episode.trajectory.steps} steps, {path.stat().st_size / 1000:.0f} kB")
    if open_page and not webbrowser.open(path.resolve().as_uri()):
        raise PlaybackError(f"no browser could be started; open {path} in one")


def _write(
    episode: Episode,
    task: Task | None,
    files: tuple[Path | None, Path | None, Path | None],
    every: int,
    speed: float,
    width: int,
) -> None:
    try:
        from gaitfleet.playback.frames import EpisodeFrames
        from gaitfleet.playback.video import GIF_LEAST_SECONDS, write_gif, write_mp4
    except ModuleNotFoundError as error:
        raise PlaybackError(f"drawing needs {error.name}, of an extra: pip install 'gaitfleet[play]'") from None
    frames = EpisodeFrames(episode, task, width=width)
    gif, mp4, png = files
    if gif is not None:
        fewer = max(every, ceil(GIF_LEAST_SECONDS / STEP_SECONDS * speed))
        _tell(gif, write_gif(gif, frames(fewer), frame_seconds=fewer * STEP_SECONDS / speed))
    if mp4 is not None:
        _tell(mp4, write_mp4(mp4, frames(every), frame_seconds=every * STEP_SECONDS / speed))
    if png is not None:
        try:
            frames.draw(episode.trajectory.steps - 1).save(png, format="PNG")
        except OSError as error:
            raise PlaybackError(f"{png}: {error}") from None
        _tell(png, 1)


def _tell(path: Path, frames: int) -> None:
    typer.echo(f"{path}: {frames} frame{'s' * (frames > 1)}, {path.stat().st_size / 1000:.0f} kB")


def _recorded(episode: UUID | None, file: Path | None, url: str, run: str | None) -> tuple[Episode, Task | None]:
    """The episode and, where the API was asked, the task of its run."""
    if episode is not None and file is None:
        with connected(url, run) as client:
            recorded = decode_episode(client.episode_content(episode))
            return recorded, tasks_by_stage(client.run().experiment)[recorded.metadata.stage]
    if file is not None and episode is None:
        try:
            content = file.read_bytes()
        except OSError as error:
            raise PlaybackError(f"{file}: {error.strerror}") from None
        if codec.is_compressed(content):
            content = codec.decompress(content, limit_bytes=MAX_EPISODE_BYTES)
        return decode_episode(content), None
    raise PlaybackError("say which episode: its id, --file FILE, or --policy NAME, and only one of them")


def _played(chosen: Chosen, settings: SimulatorSettings, seed: int) -> tuple[Episode, Task]:
    """An episode that a policy has just played, and its task; tells how it went."""
    recorded, task = play_policy(chosen, settings, seed)
    trajectory = recorded.trajectory
    score, way = float(trajectory.reward.sum(dtype=float)), task.measures(trajectory)["distance_m"]
    ending = recorded.metadata.ending_reason.replace("_", " ")
    with_ = f"{settings.integrator} at {settings.accuracy:g}"
    typer.echo(f"{trajectory.steps} steps, official score {score:.1f}, {way:.2f} m, ended by {ending}, {with_}")
    return recorded, task

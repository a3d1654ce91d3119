"""Playback: bones where OpenSim has them, films with every picture, and errors that say what to do."""

from __future__ import annotations

import base64
import datetime
import json
import re
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from gaitfleet import codec, experiments
from gaitfleet.command import app
from gaitfleet.episode import Episode, EpisodeMetadata, encode_episode
from gaitfleet.errors import PlaybackError
from gaitfleet.playback import geometry
from gaitfleet.playback.frames import EpisodeFrames
from gaitfleet.playback.page import write_page
from gaitfleet.playback.skeleton import Skeleton, walker_of
from gaitfleet.playback.story import Story, official_task
from gaitfleet.task.prosthetics_layout import prosthetics_layout
from gaitfleet.trajectory import Trajectory
from rollout.environments.opensim_compatibility import OpenSimModel, opensim

STEPS = 12
"""Of the short episode: 0.12 s, enough for every joint to have moved."""


class Moved:
    """A model that really moved, and the rows of it."""

    def __init__(self, prosthetic: bool) -> None:
        self.simulator = OpenSimModel("3D", prosthetic, "RungeKuttaMerson", 1e-3)
        muscles = len(self.simulator.action_names)
        self.rows = np.empty((STEPS + 1, len(self.simulator.layout)), np.float32)
        self.actions = np.random.default_rng(3).random((STEPS, muscles), dtype=np.float32)
        self.simulator.reset()
        self.simulator.extract(self.rows[0])
        for step, action in enumerate(self.actions):
            self.simulator.set_excitations(action.tolist())
            self.simulator.integrate()
            self.simulator.extract(self.rows[step + 1])


@pytest.fixture(scope="module", params=[True, False], ids=["prosthetic", "intact"])
def moved(request: pytest.FixtureRequest) -> Moved:
    return Moved(request.param)


@pytest.fixture(scope="module")
def episode() -> Episode:
    walker = Moved(prosthetic=True)
    trajectory = Trajectory(
        state=walker.rows,
        action=walker.actions,
        reward=np.full(STEPS, 1.5, np.float32),
        decision=np.ones(STEPS, np.uint8),
    )
    metadata = EpisodeMetadata(
        episode_id=UUID("01900000-0000-7000-8000-000000000001"),
        run="walk",
        worker="here-0",
        role="random",
        policy_version=0,
        seed=3,
        layout_hash=prosthetics_layout("3D").hash,
        ending="truncated",
        ending_reason="time_limit",
        exploration="uniform",
        started_at=datetime.datetime.now(datetime.UTC),
        wall_seconds=1.0,
    )
    return Episode(metadata, trajectory)


@pytest.fixture
def file(episode: Episode, tmp_path: Path) -> Path:
    path = tmp_path / "episode.safetensors"
    path.write_bytes(encode_episode(episode))
    return path


def play(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["play", *map(str, arguments)])


def opensim_points(simulator: OpenSimModel, points: dict[str, list[float]]) -> dict[str, list[float]]:
    """A point of each mesh's own frame, by file name, in the ground frame: OpenSim's own transforms."""
    answer = {}
    for component in simulator.model.getComponentsList():
        mesh = opensim.Mesh.safeDownCast(component)
        if mesh is None:
            continue
        scale = mesh.get_scale_factors()
        scaled = opensim.Vec3(*(points[mesh.get_mesh_file()][i] * scale.get(i) for i in range(3)))
        placed = mesh.getFrame().findStationLocationInGround(simulator.state, scaled)
        answer[mesh.get_mesh_file()] = [placed.get(i) for i in range(3)]
    return answer


def test_every_mesh_is_where_opensim_places_it(moved: Moved) -> None:
    """Offsets of meshes and bodies, angle sequence, scale: within 10 um of OpenSim's transforms, in a real pose."""
    skeleton = Skeleton(walker_of(moved.simulator.layout.hash))
    point = {mesh.file: [0.03, -0.21, 0.05] for mesh in skeleton.meshes}
    expected = opensim_points(moved.simulator, point)
    assert set(expected) == set(point)
    for mesh in skeleton.meshes:
        placed = skeleton.mesh(mesh, moved.rows[-1])(np.array([point[mesh.file]]))[0]
        np.testing.assert_allclose(placed, expected[mesh.file], atol=1e-5, err_msg=mesh.file)


def test_the_walker_starts_upright_on_the_ground(moved: Moved) -> None:
    """The highest bone is the skull at 1.5 to 1.9 m; the lowest is a foot within 5 cm of the ground."""
    heights = Skeleton(walker_of(moved.simulator.layout.hash)).points(moved.rows[0])[:, 1]
    assert 1.5 < heights.max() < 1.9
    assert abs(heights.min()) < 0.05


def test_a_gif_has_every_picture_and_each_shows_something_else(file: Path, tmp_path: Path) -> None:
    gif = tmp_path / "episode.gif"
    answer = play("--file", file, "--gif", gif, "--every", 5, "--width", 320)
    assert answer.exit_code == 0, answer.output
    assert "4 frames" in answer.output
    with Image.open(gif) as image:
        assert image.size == (320, 200)
        pictures = []
        for i in range(image.n_frames):  # type: ignore[attr-defined]
            image.seek(i)
            pictures.append(np.asarray(image.convert("RGB"), np.int16))
    assert len(pictures) == 4  # after steps 0, 5, 10 and the last
    assert all(np.abs(a - b).max() > 100 for a, b in pairwise(pictures))
    skeleton = pictures[0][:, :160]
    red, green, blue = np.moveaxis(skeleton, -1, 0)
    prosthesis = (blue > red + 20).sum()
    bone = ((red > blue + 15) & (red < green + 30)).sum()  # and not the red line where it started
    assert prosthesis > 50, "the prosthesis is not in the picture"
    assert bone > 400, "the bones are not in the picture"


@pytest.mark.parametrize(("every", "speed", "pictures"), [(4, 4, 3), (1, 1, 7)])
def test_a_gif_is_as_fast_as_asked(file: Path, tmp_path: Path, every: int, speed: float, pictures: int) -> None:
    """No picture can last less than 20 ms, so that more of them are left out; up to the last, which rests."""
    gif = tmp_path / "episode.gif"
    assert play("--file", file, "--gif", gif, "--every", every, "--speed", speed, "--width", 160).exit_code == 0
    shown = []
    with Image.open(gif) as image:
        for i in range(image.n_frames):  # type: ignore[attr-defined]
            image.seek(i)
            shown.append(image.info["duration"])
    assert len(shown) == pictures
    step = max(every, 2 * speed)  # in steps of 10 ms
    assert shown[:-1] == [10 * step / speed] * (pictures - 1)


def test_the_panel_tells_the_numbers_of_the_state_after_the_step(episode: Episode) -> None:
    """Row t + 1 for step t; 19 muscles; the score is the simulator's own reward, added up."""
    layout, state = prosthetics_layout("3D"), episode.trajectory.state
    story = Story.of(episode, official_task(episode, prosthetic=True))
    assert story.velocity[4] == state[5, layout.index("body_vel/pelvis/x")]
    assert story.score[-1] == pytest.approx(1.5 * STEPS)
    assert set(story.terms) == {"alive", "speed_error"}
    assert len(story.activations) == 19
    assert story.activations["soleus_l"][-1] == state[-1, layout.index("muscles/soleus_l/activation")]


def page_content(path: Path) -> dict[str, Any]:
    """What a page holds of its episode, with arrays decoded as its script does."""
    text = path.read_text(encoding="utf-8")
    (found,) = re.findall(r'<script type="application/json" id="episode">(.*?)</script>', text, re.DOTALL)

    def array(value: dict[str, Any]) -> Any:
        return np.frombuffer(base64.b64decode(value["data"]), value["dtype"]) if "dtype" in value else value

    content: dict[str, Any] = json.loads(found, object_hook=array)
    return content


def test_a_page_holds_every_step_and_the_bones_where_they_are(file: Path, episode: Episode, tmp_path: Path) -> None:
    """What the page's script reads gives the points of the skeleton after the last step to 20 um."""
    page = tmp_path / "episode.html"
    answer = play("--file", file, "--html", page)
    assert answer.exit_code == 0, answer.output
    assert page.stat().st_size < 2_000_000
    content, state = page_content(page), episode.trajectory.state
    assert content["steps"] == STEPS
    np.testing.assert_array_equal(
        content["velocity"].reshape(STEPS, 3)[:, 0], state[1:, prosthetics_layout("3D").index("body_vel/pelvis/x")]
    )
    assert [term["name"] for term in content["terms"]] == ["alive", "speed_error"]
    assert len(content["activations"]) == 19
    expected = Skeleton(prosthetic=True).points(state[-1])
    poses, points = content["poses"].reshape(STEPS, content["bodies"], 6), content["points"].reshape(-1, 3)
    drawn = []
    for piece in content["pieces"]:
        coarse, points = points[: piece["points"]], points[piece["points"] :]
        place, angles = np.split(poses[-1, piece["body"]].astype(np.float64), 2)
        frame = geometry.Placement(geometry.body_fixed_xyz(angles), place)
        drawn.append(frame(np.array(piece["low"]) + coarse * np.array(piece["step"])))
    np.testing.assert_allclose(np.concatenate(drawn), expected, atol=2e-5)
    triangles = sum(piece["triangles"] for piece in content["pieces"])
    assert len(content["corners"]) == 3 * triangles == Skeleton(prosthetic=True).triangles.size


def test_a_page_needs_no_network_and_takes_no_text_for_markup(episode: Episode, tmp_path: Path) -> None:
    hostile = episode.metadata.model_copy(update={"run": "</script><img src=x>", "worker": "<b>{{scripts}}"})
    page = tmp_path / "episode.html"
    write_page(page, Episode(hostile, episode.trajectory))
    text = page.read_text(encoding="utf-8")
    assert "<img" not in text
    assert "<b>" not in text
    assert "&lt;/script&gt;&lt;img src=x&gt;" in text
    assert not re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(?!data:)[^"'\s)>]*//""", text)
    assert "default-src 'none'" in text


@pytest.mark.parametrize("name", ["episode.mp4", "episode"])
def test_an_mp4_has_the_size_and_the_length_of_the_episode(name: str, file: Path, tmp_path: Path) -> None:
    mp4 = tmp_path / name
    answer = play("--file", file, "--mp4", mp4, "--every", 2, "--speed", 0.5, "--width", 320)
    assert answer.exit_code == 0, answer.output
    film = imageio_ffmpeg.read_frames(str(mp4))
    described = next(film)
    assert described["size"] == (320, 200)
    assert described["fps"] == pytest.approx(25)
    assert len(list(film)) == 7


def test_the_terms_of_an_experiment_can_be_shown(file: Path, episode: Episode, tmp_path: Path) -> None:
    """By default the official terms of the episode's round; with --experiment the shaping that was learned from."""
    shaped = Path(next(iter(experiments.__path__))) / "prosthetics.yaml"
    plain, with_terms = tmp_path / "plain.png", tmp_path / "terms.png"
    assert play("--file", file, "--png", plain, "--width", 320).exit_code == 0
    assert play("--file", file, "--png", with_terms, "--width", 320, "--experiment", shaped).exit_code == 0
    assert plain.read_bytes() != with_terms.read_bytes()


def test_a_compressed_file_as_spools_keep_them_is_drawn_too(file: Path, tmp_path: Path) -> None:
    spooled, png, other = tmp_path / "x.episode.zst", tmp_path / "a.png", tmp_path / "b.png"
    spooled.write_bytes(codec.compress(file.read_bytes()))
    assert play("--file", file, "--png", png, "--width", 160).exit_code == 0
    answer = play("--file", spooled, "--png", other, "--width", 160)
    assert answer.exit_code == 0, answer.output
    assert other.read_bytes() == png.read_bytes()
    spooled.write_bytes(spooled.read_bytes()[:-9])
    assert play("--file", spooled, "--png", other).output.startswith("gaitfleet: body is not a valid zstd frame: ")


def test_what_is_missing_is_named(file: Path, tmp_path: Path) -> None:
    neither = play("--gif", tmp_path / "a.gif")
    assert neither.exit_code == 1
    assert "its id, --file FILE, or --policy NAME" in neither.output
    nothing_to_write = play("--file", file)
    assert nothing_to_write.exit_code == 1
    assert "--gif FILE" in nothing_to_write.output
    no_directory = play("--file", file, "--gif", tmp_path / "absent" / "a.gif", "--every", 100, "--width", 160)
    assert no_directory.exit_code == 1
    assert "absent" in no_directory.output


def test_an_episode_of_another_task_is_refused(episode: Episode) -> None:
    other = Episode(episode.metadata.model_copy(update={"layout_hash": "0" * 16}), episode.trajectory)
    with pytest.raises(PlaybackError, match="only episodes of `prosthetics`"):
        EpisodeFrames(other)


def test_a_damaged_episode_is_refused(episode: Episode) -> None:
    """Files need not have passed the API's checks."""
    short = Episode(episode.metadata, replace(episode.trajectory, state=episode.trajectory.state[:-1]))
    with pytest.raises(PlaybackError, match=r"state has shape \[12, 412\], must be \[13, 412\]"):
        EpisodeFrames(short)


def test_without_osim_rl_its_name_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geometry, "find_spec", lambda name: None)
    with pytest.raises(PlaybackError, match="pip install --no-deps osim-rl"):
        geometry.models_directory()


def test_without_the_extra_the_command_names_it_and_opensim_is_never_loaded(file: Path, tmp_path: Path) -> None:
    code = """
import sys
from gaitfleet.command import app
blocked = sys.argv.pop(1)
if blocked:
    sys.modules[blocked] = None
try:
    app()
finally:
    print(*sorted({"opensim", "osim", "torch"} & set(sys.modules)))
"""
    command = ["play", "--file", str(file), "--png", str(tmp_path / "a.png"), "--width", "160"]
    without = subprocess.run([sys.executable, "-c", code, "PIL", *command], capture_output=True, text=True, check=False)
    assert without.returncode == 1
    assert "pip install 'gaitfleet[play]'" in without.stderr
    whole = subprocess.run([sys.executable, "-c", code, "", *command], capture_output=True, text=True, check=False)
    assert whole.returncode == 0, whole.stderr
    assert whole.stdout.splitlines()[-1] == ""

"""The experiment file: what is refused, and with which words."""

from importlib.resources import as_file, files
from pathlib import Path

import pytest
from pydantic import BaseModel

from gaitfleet.errors import ExperimentError
from gaitfleet.experiment import Experiment, load_experiment, parse_experiment
from gaitfleet.task.stages import stage_tasks

A = {"name": "a", "gate": {"mean_speed": 0.5}}
PENDULUM = {"environment": "gymnasium:Pendulum-v1"}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"task": {"environment": "prosthetics", "modle": "2D"}}, "task: unknown key 'modle'; did you mean 'model'?"),
        ({"repaly": {}}, "unknown key 'repaly'; did you mean 'replay'?"),
        ({"replay": {"min_size": -4}}, r"replay\.min_size: .*\(got -4\)"),
        ({"replay": {"min_size": 10**400}}, r"replay\.min_size: .*less than or equal to 1000000000"),
        ({"replay": {"samples_per_insert": 1e307}}, r"replay\.samples_per_insert: .*\(got 1e\+307\)"),
        ({"replay": {"error_buffer": 1e308}}, r"replay\.error_buffer: .*\(got 1e\+308\)"),
        (
            {"algorithm": {"name": "ppo"}},
            "'ppo' found using 'name' does not match any of the expected tags: 'sac', 'crossq', 'td3'",
        ),
        (
            {"algorithm": {"name": "td3", "initial_temperature": 1}},
            r"algorithm\.td3: unknown key 'initial_temperature'",
        ),
        ({"task": {"simulator": {"accuracy": 0.5}}}, r"task\.simulator\.accuracy: .*\(got 0\.5\)"),
        ({"task": {"reward": {"scale": float("inf")}}}, r"task\.reward\.scale: .* finite number \(got inf\)"),
        (
            {"task": {"observation": {"preset": "seed-1260", "history": 2}}},
            r"task\.observation: history is 2; seed-1260 has a history of its own",
        ),
        ({"task": {"environment": "gymnasium:; drop"}}, r"task\.environment: "),
        ({"replay": {"error_buffer": 10}}, r"replay\.error_buffer is 10; below 256 .* could block both sides for ever"),
        (
            {"curriculum": {"stages": [A, {"name": "b", "task": {"modle": 1}}]}},
            r"stages\.b\.task: unknown key 'modle'; did",
        ),
        ({"curriculum": {"stages": [A, {"name": "b", "task": {"round": 3}}]}}, r"stages\.b\.task\.round: .*\(got 3\)"),
        ({"curriculum": {"stages": [{"name": "a"}, {"name": "b"}]}}, "stage 'a' needs a gate"),
        ({"curriculum": {"stages": [A, A | {"name": "b"}]}}, "stage 'b' is the last; its gate would lead nowhere"),
        ({"curriculum": {"stages": [A, A, {"name": "b"}]}}, "stage 'a' stands twice"),
        (
            {"task": PENDULUM, "curriculum": {"stages": [A, {"name": "b"}]}},
            r"gate: gymnasium:Pendulum-v1 has no mean_speed",
        ),
        (
            {"curriculum": {"stages": [A | {"blend_environment_steps": 9}, {"name": "b"}]}},
            "stage 'a' is the first: there is none before it for blend_environment_steps",
        ),
        (
            {"curriculum": {"stages": [A, {"name": "b", "former": {"share": 0.25, "environment_steps": 9}}]}},
            r"former\.share is 0\.25 with replay 'keep'",
        ),
        (
            {"curriculum": {"stages": [A, {"name": "b", "former": {"share": 1, "environment_steps": 9}}]}},
            r"former\.share: .*\(got 1\)",
        ),
        (
            {
                "curriculum": {
                    "stages": [
                        A,
                        {"name": "b", "blend_environment_steps": 9, "gate": {"max_environment_steps": 8}},
                        {"name": "c"},
                    ]
                }
            },
            r"gate\.max_environment_steps is 8, below blend_environment_steps 9",
        ),
        (
            {
                "algorithm": {"name": "sac", "reward_scaling": True},
                "curriculum": {"stages": [A, {"name": "b", "blend_environment_steps": 9}]},
            },
            r"algorithm\.reward_scaling is true and curriculum\.stages\.b\.blend_environment_steps 9",
        ),
        ({"demonstrations": {"run": "a", "share": 1}}, r"demonstrations\.share: .*\(got 1\)"),
        ({"demonstrations": "Not A Run"}, r"demonstrations\.run: .*\(got 'Not A Run'\)"),
        (
            {
                "demonstrations": {"run": "a", "share": 0.75},
                "curriculum": {
                    "stages": [
                        A,
                        {"name": "b", "replay": "restart", "former": {"share": 0.25, "environment_steps": 9}},
                    ]
                },
            },
            r"demonstrations\.share is 0\.75 and curriculum\.stages\.b\.former\.share 0\.25: they must leave",
        ),
        ({"warm_start": {"run": "a", "checkpoint": "newest"}}, r"warm_start\.checkpoint.*'latest' or 'best'"),
        ({"replay": {"capacity": 500, "min_size": 501}}, r"replay\.min_size 501 is above replay\.capacity 500"),
    ],
)
def test_a_mistake_is_named_with_field_and_value(data: object, words: str) -> None:
    with pytest.raises(ExperimentError, match=words):
        parse_experiment(data)


def test_a_file_that_is_not_there_or_not_yaml_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match=r"nowhere\.yaml"):
        load_experiment(tmp_path / "nowhere.yaml")
    (tmp_path / "broken.yaml").write_text("task: {")
    with pytest.raises(ExperimentError, match="is not YAML"):
        load_experiment(tmp_path / "broken.yaml")


def test_an_empty_file_is_refused_and_defaults_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "experiment.yaml"
    for text in ("", "# task:\n#   model: 2D\n"):
        path.write_text(text)
        with pytest.raises(ExperimentError, match=r"experiment\.yaml is empty: "):
            load_experiment(path)
    path.write_text("{}")
    assert load_experiment(path) == Experiment()


@pytest.mark.parametrize("shipped", sorted(p.name for p in (files("gaitfleet") / "experiments").iterdir()))
def test_every_shipped_experiment_is_valid_and_survives_json(shipped: str) -> None:
    with as_file(files("gaitfleet") / "experiments" / shipped) as path:
        experiment = load_experiment(path)
    assert all(task.description.observation_size > 0 for task in stage_tasks(experiment))
    again = parse_experiment(experiment.model_dump(mode="json"))
    assert again == experiment
    assert again.hash == experiment.hash


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ({"task": {"prosthetic": False}}, r"stages\.b: task\.observation: there were 159 values .*, here are 180"),
        ({"task": {"observation": {"preset": "official-160"}}}, "there were 159 values .*, here are 160"),
        ({"task": {"action": {"bins": 2}}}, "abd_r could be 0.3183 when it was recorded; .* nearest gives 0"),
        ({"task": {"reward": {"weights": {"alife": 1}}}}, r"curriculum\.stages\.b: .*alife"),
        ({"gate": {"survival": {"steps": 301}}}, r"stages\.b: gate\.survival\.steps is 301; an episode has 300"),
        ({"blend_environment_steps": 9}, r"stages\.b: blend_environment_steps is 9: the reward is that of a already"),
        (
            {"task": {"action": {"bins": 2}}, "replay": "restart", "former": {"share": 0.5, "environment_steps": 9}},
            "abd_r could be 0.3183 when it was recorded",
        ),
    ],
)
def test_a_stage_that_could_not_follow_the_one_before_is_refused(stage: dict[str, object], words: str) -> None:
    stages = [A, {"name": "b", "gate": {"mean_speed": 1}} | stage, {"name": "c", "task": {"round": 2}}]
    with pytest.raises(ExperimentError, match=words):
        stage_tasks(parse_experiment({"curriculum": {"stages": stages}}))


def test_a_reward_for_a_target_velocity_cannot_be_blended_into_one_without() -> None:
    back = {"name": "b", "replay": "restart", "task": {"round": 1}, "blend_environment_steps": 9}
    with pytest.raises(ExperimentError, match="blend_environment_steps is 9: the reward of a is for a target velocity"):
        stage_tasks(parse_experiment({"task": {"round": 2}, "curriculum": {"stages": [A, back]}}))


def test_a_stage_that_begins_with_an_empty_memory_may_change_the_actions() -> None:
    restarted = {"name": "b", "replay": "restart", "task": {"action": {"bins": 2}, "model": "2D"}}
    first, second = stage_tasks(parse_experiment({"curriculum": {"stages": [A, restarted]}}))
    assert (first.description.action_bins, second.description.action_bins) == (None, 2)


def test_every_field_of_the_file_is_described() -> None:
    def undescribed(model: type[BaseModel], seen: set[type[BaseModel]]) -> list[str]:
        if model in seen:
            return []
        seen.add(model)
        missing = [f"{model.__name__}.{name}" for name, field in model.model_fields.items() if not field.description]
        for definition in model.__subclasses__():
            missing += undescribed(definition, seen)
        return missing

    from gaitfleet.experiment import Settings

    assert undescribed(Settings, set()) == []


def test_two_experiments_that_differ_have_different_hashes() -> None:
    assert Experiment(seed=1).hash != Experiment(seed=2).hash

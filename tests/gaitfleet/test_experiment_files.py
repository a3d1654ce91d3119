"""Any valid experiment, built from the models themselves, survives being written and read."""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from pydantic.fields import FieldInfo

from gaitfleet.course_settings import CurriculumSettings
from gaitfleet.errors import ExperimentError
from gaitfleet.experiment import Experiment, Settings, parse_experiment
from gaitfleet.task.prosthetics_layout import MUSCLES
from gaitfleet.task.prosthetics_reward import TERMS

NAMES = {"weights": st.sampled_from(sorted(TERMS)), "limits": st.sampled_from(MUSCLES)}
"""Keys of the dictionaries of the file."""

TASKS = [{}, {"time_limit_steps": 7}, {"action": {"repeat": 2}}]
"""What a stage may change, whatever the task."""


def curriculum_of(task: dict[str, Any]) -> dict[str, Any]:
    """Stages that follow each other: their rules tie them together, so drawn ones would hardly ever be valid."""
    gate = {"survival": {"share": 0.5, "steps": 5}, "mean_return": 1.5, "min_environment_steps": 10}
    former = {"share": 0.25, "environment_steps": 9}
    second = {"name": "second", "task": task, "replay": "restart", "former": former, "blend_environment_steps": 5}
    return {"stages": [{"name": "first", "gate": gate}, second]}


Bounds = dict[type, Any]
BOUNDS = {Ge: "ge", Gt: "gt", Le: "le", Lt: "lt", MinLen: "min_length", MaxLen: "max_length"}


def fields_of(model: type[Settings]) -> st.SearchStrategy[dict[str, Any]]:
    """Data for a block: some of its fields, each within its bounds."""
    fields = {name: value_of(field.annotation, name, bounds_of(field)) for name, field in model.model_fields.items()}
    required = {name: fields.pop(name) for name, field in model.model_fields.items() if field.is_required()}
    tag = model.model_fields.get("name")  # of a union: it must be there to tell which model is meant
    if tag is not None:
        required["name"] = fields.pop("name")
    return st.fixed_dictionaries(required, optional=fields)


def bounds_of(field: FieldInfo) -> Bounds:
    """What its annotation allows: every bound by its type, a text's pattern by `str`."""
    bounds: Bounds = {type(item): getattr(item, BOUNDS[type(item)]) for item in field.metadata if type(item) in BOUNDS}
    for item in field.metadata:
        bounds[str] = getattr(item, "pattern", bounds.get(str))
    return bounds


def value_of(annotation: Any, name: str, bounds: Bounds) -> st.SearchStrategy[Any]:  # noqa: PLR0911
    """Values of a type, as a file would hold them."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return value_of(arguments[0], name, bounds)
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin in (Union, UnionType):
        return st.one_of(*(value_of(argument, name, bounds) for argument in arguments))
    if origin is tuple and arguments[-1] is Ellipsis:
        most = {"min_size": bounds.get(MinLen, 0), "max_size": bounds.get(MaxLen, 4)}
        return st.lists(value_of(arguments[0], name, {}), **most)
    if origin is tuple:
        return st.tuples(*(value_of(argument, name, bounds) for argument in arguments)).map(sorted)
    if origin is dict:
        return st.dictionaries(NAMES[name], value_of(arguments[1], name, bounds), max_size=3)
    if annotation is NoneType:
        return st.none()
    if annotation is str:
        return st.from_regex(bounds[str], fullmatch=True)
    if annotation in (int, float):
        return number_of(annotation, bounds)
    if annotation is bool:
        return st.booleans()
    if annotation is CurriculumSettings:
        return st.sampled_from(TASKS).map(curriculum_of)
    assert issubclass(annotation, Settings), f"no strategy for {name}: {annotation}"
    return fields_of(annotation)


def number_of(kind: type, bounds: Bounds) -> st.SearchStrategy[Any]:
    low, high = bounds.get(Ge, bounds.get(Gt)), bounds.get(Le, bounds.get(Lt))
    if kind is int:
        top = bounds.get(Le, None if Lt not in bounds else bounds[Lt] - 1)
        return st.integers(low + (Gt in bounds) if low is not None else None, top)
    low, high = (None if bound is None else float(bound) for bound in (low, high))
    return st.floats(
        low, high, exclude_min=Gt in bounds, exclude_max=Lt in bounds, allow_nan=False, allow_infinity=False
    )


@given(data=fields_of(Experiment))
# a file has many blocks, and a busy machine is slow to draw them
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_valid_experiment_survives_its_file_with_its_hash(data: Mapping[str, Any]) -> None:
    try:
        experiment = parse_experiment(data)
    except ExperimentError:
        reject()  # by a rule that ties fields to each other
    text = yaml.safe_dump(experiment.model_dump(mode="json"))
    again = parse_experiment(yaml.safe_load(text))
    assert again == experiment
    assert again.hash == experiment.hash
    assert yaml.safe_dump(again.model_dump(mode="json")) == text

"""Policies in numpy: refused when they cannot be evaluated. (`tests/trainer` holds them against torch.)"""

import numpy as np
import pytest

from gaitfleet.errors import CodecError, PolicyError
from gaitfleet.policy import Activation, Linear, NumpyPolicy, PolicyDescription, Residual, encode_policy


def description(**changes: object) -> PolicyDescription:
    values = {
        "run": "walker",
        "version": 1,
        "observation_size": 3,
        "action_size": 2,
        "observation_hash": "0" * 16,
        "observation_clip": 5.0,
        "layers": (Linear(name="head"),),
        "head": "deterministic",
    }
    return PolicyDescription(**(values | changes))


def tensors(**changes: np.ndarray) -> dict[str, np.ndarray]:
    values = {
        "normalizer.mean": np.zeros(3, np.float32),
        "normalizer.std": np.ones(3, np.float32),
        "head.weight": np.array([[1, 0, 0], [0, 2, 0]], np.float32),
        "head.bias": np.array([0, 1], np.float32),
    }
    return values | {name.replace("__", "."): value for name, value in changes.items()}


def test_a_policy_travels_as_bytes_and_acts_as_its_formula_says() -> None:
    policy = NumpyPolicy.from_bytes(encode_policy(description(), tensors()))
    observation = np.array([0.5, -0.25, 9.0], np.float32)
    np.testing.assert_allclose(policy.act(observation), np.tanh([0.5, 0.5]), rtol=1e-6)


def test_observations_are_normalised_and_clipped() -> None:
    changed = tensors(normalizer__mean=np.float32([1, 0, 0]), normalizer__std=np.float32([2, 1, 1]))
    policy = NumpyPolicy(description(), changed)
    assert policy.normalize(np.float32([3, 100, -100])).tolist() == [1.0, 5.0, -5.0]


def test_a_gaussian_head_samples_around_its_mean() -> None:
    both = tensors(head__weight=np.zeros((4, 3), np.float32), head__bias=np.float32([0.1, 0.2, -1.0, 100.0]))
    policy = NumpyPolicy(description(head="tanh_normal"), both)
    zero = np.zeros(3, np.float32)
    np.testing.assert_allclose(policy.sample(zero, np.zeros(2, np.float32)), policy.act(zero))
    assert policy.distribution(zero)[1].tolist() == [-1.0, 2.0]  # the upper bound holds


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"head__weight": np.full((2, 3), np.nan, np.float32)}, r"'head\.weight' holds a value that is not finite"),
        ({"head__weight": np.zeros((2, 4), np.float32)}, r"\[2, 4\], must be \[\*, 3\]"),
        ({"head__bias": np.zeros(3, np.float32)}, r"must be float32 \[2\]"),
        ({"head__weight": np.zeros((2, 3))}, "float64"),
        ({"head__weight": np.zeros((5, 3), np.float32), "head__bias": np.zeros(5, np.float32)}, "ends in 5 values"),
        ({"normalizer__std": np.float32([1, 0, 1])}, r"normalizer\.std\[1\] is 0\.0, must be positive"),
    ],
)
def test_what_cannot_be_evaluated_is_neither_written_nor_read(changes: dict[str, np.ndarray], words: str) -> None:
    with pytest.raises(PolicyError, match=words):
        encode_policy(description(), tensors(**changes))


def test_a_missing_tensor_is_named() -> None:
    with pytest.raises(PolicyError, match=r"'other\.weight' is missing"):
        NumpyPolicy(description(layers=(Linear(name="other"),)), tensors())


def test_a_residual_branch_must_keep_its_width() -> None:
    branch = Residual(layers=(Linear(name="head"), Activation(kind="relu")))
    with pytest.raises(PolicyError, match="turns 3 values into 2"):
        NumpyPolicy(description(layers=(branch,)), tensors())


def test_bytes_that_are_no_policy_are_refused() -> None:
    with pytest.raises(CodecError):
        NumpyPolicy.from_bytes(b"\x02\0\0\0\0\0\0\0{}")

"""Requests made to hurt, over HTTP: refused with 4xx and a problem document, whatever they hold."""

from __future__ import annotations

import json
import os
from typing import Any

import httpx
import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaitfleet import codec
from gaitfleet.episode import METADATA_KEY, encode_episode
from tests.replay_api.fleet import Fleet, experiment_of

pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module")
"""Hypothesis believes that the server's thread, which draws numbers meanwhile, is the strategy."""

fuzz = hypothesis.settings(
    max_examples=int(os.environ.get("GAITFLEET_TEST_FUZZ_EXAMPLES", "60")),
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
CUTS = st.lists(st.tuples(st.integers(0, 1200), st.integers(0, 3), st.binary(max_size=3)), min_size=1, max_size=3)
OPERATORS: list[Any] = [{"$gt": ""}, {"$ne": None}, {"$where": "sleep(1000)"}, [{"$gt": ""}]]


def refused(answer: httpx.Response) -> dict[str, Any]:
    """Checks that the answer is a refusal that names a field; gives the problem."""
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["detail"]
    return problem


def changed(body: bytes, cuts: list[tuple[int, int, bytes]]) -> bytes:
    altered = bytearray(body)
    for place, length, put in cuts:
        at = place % len(altered)
        altered[at : at + length] = put
    return bytes(altered)


@fuzz
@given(CUTS, st.booleans())
def test_an_episode_of_changed_bytes_is_taken_or_refused(fleet: Fleet, cuts: Any, compressed: bool) -> None:
    """Numbers may be changed into other numbers that keep every rule; all else is a refusal."""
    body = encode_episode(fleet.play(steps=3))
    body = changed(codec.compress(body) if compressed else body, cuts)
    answer = fleet.post(body, **({"Content-Encoding": "zstd"} if compressed else {}))
    if answer.status_code not in (200, 201):
        refused(answer)


@fuzz
@given(CUTS)
def test_a_checkpoint_of_changed_bytes_is_taken_or_refused(fleet: Fleet, cuts: Any) -> None:
    answer = fleet.publish(1, 1, changed(fleet.checkpoint(1), cuts))
    refused(answer)  # nobody holds the lease, whatever the bytes are


@pytest.mark.parametrize(
    "body",
    [
        b"\xff\xfe{}",
        b"[" * 200_000,
        b'{"index": [' + b"9" * 5000 + b'], "priority": [1]}',
        b'{"index": [1e400], "priority": [1]}',
        b'{"index": [18446744073709551616], "priority": [1]}',
        b'{"index": [1], "priority": [NaN]}',
        b'{"index": [1], "priority": [-1]}',
        b'{"index": [1], "priority": [1e300]}',
        b'{"index": [1, 2], "priority": [1]}',
        b'{"index": [1], "priority": [1], "\\ud800": 1}',
        b'{"index": "\\ud800", "priority": [1]}',
    ],
    ids=[
        "utf8",
        "deep",
        "digits",
        "infinite",
        "int64",
        "nan",
        "negative",
        "sum",
        "lengths",
        "surrogate-key",
        "surrogate",
    ],
)
def test_priorities_that_cannot_be_are_refused(api: str, body: bytes) -> None:
    with Fleet(api, experiment_of(replay={"sampling": "prioritized"})) as fleet:
        answer = fleet.http.post(f"{fleet.path}/priorities", content=body, headers={"Content-Type": "application/json"})
        assert refused(answer)["status"] == 422


@pytest.mark.parametrize("number", [float("inf"), float("-inf"), float("nan"), 1e30])
def test_numbers_that_json_or_the_database_does_not_know_are_refused(fleet: Fleet, number: float) -> None:
    """Kept in the run's document they would have broken every later answer about it."""
    losses = {"updates": 1, "updates_per_second": 1, "losses": {"a": number}}
    requests: list[tuple[str, str, Any]] = [("PATCH", "/limits", {"min_size": number})]
    if number != 1e30:
        requests += [
            ("PATCH", "/limits", {"error_buffer": number}),
            ("POST", "/lease", {"holder": "t", "progress": losses}),
            ("POST", "/batches", {"batch_size": 1, "discount": number}),
        ]
    for method, path, body in requests:
        headers = {"Content-Type": "application/json"}
        answer = fleet.http.request(method, f"{fleet.path}{path}", content=json.dumps(body), headers=headers)
        assert refused(answer)["status"] == 422, (path, answer.text)
    assert fleet.status()["lease"] is None


@pytest.mark.parametrize("field", ["samples_per_insert", "min_size", "error_buffer"])
def test_limits_whose_product_is_no_number_are_refused(fleet: Fleet, field: str) -> None:
    """Their product is infinite: kept, they would have broken every later answer about the run."""
    change = {"samples_per_insert": 1000.0, "min_size": 1000, "error_buffer": 1e15} | {field: 10**307}
    answer = refused(fleet.http.patch(f"{fleet.path}/limits", json=change))
    assert (answer["status"], answer["field"]) == (422, field)
    assert fleet.get("/limits").status_code == 200
    largest = {"samples_per_insert": 2.0**53 - 1, "min_size": 2**53 - 1, "error_buffer": 2.0**53 - 1}
    assert fleet.http.patch(f"{fleet.path}/limits", json=largest).status_code == 200
    assert fleet.post(fleet.play()).status_code == 201
    assert fleet.get("/limits").json()["samples_allowed"] == 0
    assert fleet.status()["limits"]["samples_per_insert"] == largest["samples_per_insert"]


@pytest.mark.parametrize("operator", OPERATORS, ids=str)
def test_a_query_operator_in_a_body_is_refused(fleet: Fleet, operator: Any) -> None:
    for method, path, body in (
        ("POST", "/lease", {"holder": operator}),
        ("PATCH", "/limits", {"min_size": operator}),
        ("PATCH", "/limits", {"$set": operator}),
        ("PUT", "/workers/w", {"role": operator, "simulators": 1}),
        ("POST", "/batches", {"batch_size": operator}),
        ("PUT", "", {"task": operator}),
    ):
        assert refused(fleet.http.request(method, f"{fleet.path}{path}", json=body))["status"] == 422, path


@pytest.mark.parametrize("field", ["episode_id", "run", "worker", "role", "policy_version", "seed"])
def test_a_query_operator_in_an_episode_is_refused(fleet: Fleet, field: str) -> None:
    decoded = codec.read(encode_episode(fleet.play()))
    metadata = json.loads(decoded.metadata[METADATA_KEY]) | {field: {"$gt": ""}}
    answer = fleet.post(codec.write(decoded.tensors, {METADATA_KEY: json.dumps(metadata)}))
    assert refused(answer)["field"] == field


def test_a_query_operator_in_the_query_is_refused_or_means_its_letters(fleet: Fleet) -> None:
    """Under its own name it is text of the wrong form; with brackets, as other frameworks read it, it is nobody's."""
    fleet.post(fleet.play())
    for name in ("before", "role", "ending", "policy_version", "finding", "limit"):
        answer = fleet.http.get(f"{fleet.path}/episodes", params={name: '{"$gt": ""}'})
        assert refused(answer)["field"] == name
    assert fleet.http.get(f"{fleet.path}/episodes", params={"worker": '{"$gt": ""}'}).json()["episodes"] == []
    for name in ("after", "kind", "limit"):
        assert refused(fleet.http.get(f"{fleet.path}/events", params={name: "$gt"}))["field"] == name
    assert len(fleet.http.get(f"{fleet.path}/episodes", params={"worker[$ne]": "worker-0"}).json()["episodes"]) == 1
    for path in ("/v1/runs/$gt", "/v1/runs/%7B%22$gt%22:%22%22%7D", f"{fleet.path}/episodes/$ne"):
        assert refused(fleet.http.get(path))["status"] == 422
